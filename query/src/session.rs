//! One DataFusion session per query and tenant.
//!
//! What always holds:
//! - the catalog has the tables of one tenant and what describes them, nothing else, and nothing can be added to it;
//! - the only object store is the tenant's own prefix of the log store, under a name made for this query; there is no
//!   `file://`, so no plan can name a path of the machine;
//! - functions are those of the DataFusion features this crate turns on, and our own; table functions are `generate_series` and `range`;
//! - memory is bounded by a pool of the query's own, and disk by the spill directory's limit.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::{Arc, OnceLock};

use beeacon_store::Store;
use datafusion::catalog::CatalogProviderList;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, TableFunction};
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::cache::cache_manager::{CacheManagerConfig, FileMetadataCache};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::engine::QueryOptions;
use crate::grouping::GroupByNumbers;
use crate::limits::{BATCH_ROWS, PARSER_RECURSION_MAX, SORT_RESERVE_BYTES};
use crate::system::Catalogs;
use crate::tables::{self, Moment, Tables};
use crate::{functions, system};

/// The catalog's and the schema's name, as SQL users see them.
const CATALOG: &str = system::DATABASE;
const SCHEMA: &str = system::PUBLIC;

/// A session for one query of one tenant, and the moment it sees.
pub(crate) struct Session {
    pub(crate) state: SessionState,
    pub(crate) moment: Arc<Moment>,
}

/// Makes a session.
pub(crate) fn open(
    store: &Store,
    tenant: &str,
    options: &QueryOptions,
    footers: Arc<FileMetadataCache>,
    catalogs: &OnceLock<Catalogs>,
) -> Result<Session> {
    let prefix = Path::from_iter(["tenants", tenant]);
    let url = ObjectStoreUrl::parse("beeacon://query")?;
    let files: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store.object_store(), prefix.clone()));
    let runtime = runtime(options, files.clone(), footers.clone())?;
    let moment = Moment::new(store.clone(), tenant, options.partitions, files, prefix, url, footers);
    let moment = Arc::new(moment);
    let catalog = MemoryCatalogProvider::new();
    let catalogs =
        system::catalogs(catalogs, || tables::relations(&moment, &options.relations), function_names)?;
    let tables = Tables {
        moment: moment.clone(),
        brought: options.relations.clone(),
        pg_catalog: catalogs.pg_catalog.clone(),
    };
    catalog.register_schema(SCHEMA, Arc::new(tables))?;
    catalog.register_schema("pg_catalog", catalogs.pg_catalog.clone())?;
    catalog.register_schema("information_schema", catalogs.information_schema.clone())?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let table_functions: HashMap<String, Arc<TableFunction>> =
        SessionStateDefaults::default_table_functions()
            .into_iter()
            .map(|function| (function.name().to_owned(), function))
            .filter(|(name, _)| matches!(name.as_str(), "generate_series" | "range"))
            .chain([(functions::keywords::NAME.to_owned(), functions::keywords::function())])
            .collect();
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(functions::json::Arrows)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    let mut scalar_functions = SessionStateDefaults::default_scalar_functions();
    scalar_functions.extend(functions::all().iter().cloned());
    let mut state = SessionStateBuilder::new()
        .with_config(config(options)?)
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(catalogs))
        .with_expr_planners(planners)
        .with_scalar_functions(scalar_functions)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_functions(table_functions)
        .with_physical_optimizer_rule(Arc::new(GroupByNumbers))
        .build();
    state.mark_start_execution();
    Ok(Session { state, moment })
}

/// The functions that there are, for `pg_proc`, with the letter of their kind.
fn function_names() -> Vec<(String, &'static str)> {
    let scalar = SessionStateDefaults::default_scalar_functions();
    let scalar = scalar.iter().chain(functions::all()).map(|function| (function.name().to_owned(), "f"));
    let aggregate = SessionStateDefaults::default_aggregate_functions();
    let aggregate = aggregate.iter().map(|function| (function.name().to_owned(), "a"));
    let window = SessionStateDefaults::default_window_functions();
    let window = window.iter().map(|function| (function.name().to_owned(), "w"));
    let mut names: Vec<_> = scalar.chain(aggregate).chain(window).collect();
    names.push(("time_bucket".to_owned(), "f"));
    names.retain(|(name, _)| !name.starts_with("beeacon_"));
    names.sort();
    names.dedup_by(|one, other| one.0 == other.0);
    names
}

fn config(options: &QueryOptions) -> Result<SessionConfig> {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(options.partitions.max(1))
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_sort_spill_reservation_bytes(
            SORT_RESERVE_BYTES.min(options.memory_bytes_max / (8 * options.partitions.max(1))),
        )
        // There is one of our own, with PostgreSQL's columns and types.
        .with_information_schema(false);
    let settings = config.options_mut();
    settings.sql_parser.collect_spans = true;
    settings.sql_parser.recursion_limit = ConfigNonZeroUsize::try_new(PARSER_RECURSION_MAX)?;
    settings.execution.parquet.pushdown_filters = true;
    settings.execution.time_zone = Some("UTC".into());
    Ok(config)
}

fn runtime(
    options: &QueryOptions,
    files: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
) -> Result<Arc<RuntimeEnv>> {
    let mode = match &options.spill_directory {
        Some(directory) => DiskManagerMode::Directories(vec![directory.clone()]),
        None => DiskManagerMode::Disabled,
    };
    let disk =
        DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(options.spill_bytes_max);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(options.memory_bytes_max)))
        .with_disk_manager_builder(disk)
        .with_cache_manager(CacheManagerConfig::default().with_file_metadata_cache(Some(footers)))
        .with_object_store_registry(Arc::new(OnlyStore { files }))
        .build_arc()
}

/// A registry with one store in it that takes no other.
#[derive(Debug)]
struct OnlyStore {
    files: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for OnlyStore {
    fn register_store(&self, _url: &url::Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &url::Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() == CATALOG {
            return Ok(self.files.clone());
        }
        Err(DataFusionError::Plan("queries read the log store only".into()))
    }
}

/// Removes what an earlier process left in the spill directory, and makes the directory.
pub(crate) fn clean_spill_directory(directory: &FilePath) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // DataFusion names its directories so; nothing else is touched.
        if entry.file_type()?.is_dir() && entry.file_name().to_string_lossy().starts_with("datafusion-") {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
