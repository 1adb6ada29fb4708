//! The tables of one query: what it sees of the store, at one moment.
//!
//! A [`Moment`] belongs to one query of one tenant. Whatever a query reads from `logs`, however often, comes from one snapshot
//! taken after planning, when it is known which times and services it asks about; the same holds for `gaps`.
//!
//! - [`logs`]: fresh rows and files as one table;
//! - [`labels`]: the map made of stored labels;
//! - [`gaps`]: declared losses;
//! - [`reader`]: reading a file, if it is the tenant's;
//! - [`redactions`]: what the pollen filter took out, per minute, from the counts of files where they have them.

pub(crate) mod gaps;
pub(crate) mod labels;
pub(crate) mod logs;
pub(crate) mod reader;
pub(crate) mod redactions;

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use beeacon_store::{Redactions, Snapshot, Store};
use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::LogicalPlan;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::OnceCell;

use crate::error::QueryError;
use crate::prune::Bounds;
use crate::relation;
use crate::system::{Relation, SystemSchema};
use crate::tables::logs::Needs;

/// What one query sees.
pub(crate) struct Moment {
    pub(crate) store: Store,
    pub(crate) tenant: String,
    pub(crate) partitions: usize,
    /// The tenant's own part of the object store, and where it starts.
    pub(crate) files: Arc<dyn ObjectStore>,
    pub(crate) files_prefix: Path,
    pub(crate) files_url: ObjectStoreUrl,
    pub(crate) footers: Arc<FileMetadataCache>,
    arrived: OnceLock<Arrived>,
    gaps: OnceCell<RecordBatch>,
}

/// What was read of the store for a plan, and the bounds that it was read with.
struct Arrived {
    bounds: Bounds,
    snapshot: Snapshot,
    redactions: Option<Redactions>,
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment").finish_non_exhaustive()
    }
}

impl Moment {
    pub(crate) fn new(
        store: Store,
        tenant: &str,
        partitions: usize,
        files: Arc<dyn ObjectStore>,
        files_prefix: Path,
        files_url: ObjectStoreUrl,
        footers: Arc<FileMetadataCache>,
    ) -> Self {
        Moment {
            store,
            tenant: tenant.to_owned(),
            partitions,
            files,
            files_prefix,
            files_url,
            footers,
            arrived: OnceLock::new(),
            gaps: OnceCell::new(),
        }
    }

    /// Takes the snapshot for an optimised plan: one for all its scans of `logs`.
    pub(crate) async fn arrive(&self, plan: &LogicalPlan) -> Result<Option<&Snapshot>, QueryError> {
        let Needs { bounds: Some(bounds), counts } = Needs::of(plan) else { return Ok(None) };
        let failed = |error| QueryError::Store(Some(error));
        let prune = bounds.to_prune();
        let snapshot = self.store.snapshot(&self.tenant, &prune).await.map_err(failed)?;
        let redactions = match counts {
            true => Some(self.store.redactions(&self.tenant, &prune, &snapshot.files).await.map_err(failed)?),
            false => None,
        };
        Ok(Some(&self.arrived.get_or_init(|| Arrived { bounds, snapshot, redactions }).snapshot))
    }

    fn arrived(&self, bounds: &Bounds) -> Result<&Arrived> {
        let arrived = self.arrived.get().filter(|arrived| arrived.bounds.covers(bounds));
        arrived.ok_or_else(|| {
            DataFusionError::Internal("a scan of logs was planned outside the query's snapshot".into())
        })
    }

    /// The snapshot, if it was taken wide enough for these bounds, and the bounds that it was taken with.
    pub(crate) fn snapshot(&self, bounds: &Bounds) -> Result<(&Snapshot, &Bounds)> {
        let arrived = self.arrived(bounds)?;
        Ok((&arrived.snapshot, &arrived.bounds))
    }

    /// What is counted of the snapshot's files.
    pub(crate) fn counted(&self, bounds: &Bounds) -> Result<&Redactions> {
        self.arrived(bounds)?.redactions.as_ref().ok_or_else(|| {
            DataFusionError::Internal("counts were planned that the query's snapshot does not have".into())
        })
    }

    pub(crate) async fn gap_rows(&self) -> Result<RecordBatch> {
        let load =
            || async { self.store.gaps(&self.tenant).await.map_err(|error| QueryError::Store(Some(error))) };
        Ok(self.gaps.get_or_try_init(load).await?.clone())
    }
}

/// The tables' names.
const NAMES: [&str; 3] = ["gaps", "logs", "redactions"];

/// What describes the tables to clients. It is the same for every tenant and moment.
pub(crate) fn relations(
    moment: &Arc<Moment>,
    brought: &[Arc<dyn relation::Relation>],
) -> Result<Vec<Relation>> {
    let own = |name, is_view, table: Arc<dyn TableProvider>| Relation {
        name,
        is_view,
        is_brought: false,
        schema: table.schema(),
    };
    let mut relations = vec![
        own("gaps", false, Arc::new(gaps::Gaps::new(moment.clone()))),
        own("logs", false, logs::view(moment)?),
        own("redactions", true, redactions::view(moment)?),
    ];
    relations.extend(brought.iter().map(|table| Relation {
        name: table.name(),
        is_view: false,
        is_brought: true,
        schema: relation::schema(&**table),
    }));
    Ok(relations)
}

/// The schema of one query: the tables of one tenant, and those of the catalog, which clients of PostgreSQL name without its schema.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) moment: Arc<Moment>,
    pub(crate) brought: Vec<Arc<dyn relation::Relation>>,
    pub(crate) pg_catalog: Arc<SystemSchema>,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let brought = self.brought.iter().map(|table| table.name());
        NAMES.into_iter().chain(brought).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(match name {
            "gaps" => Some(Arc::new(gaps::Gaps::new(self.moment.clone()))),
            "logs" => Some(logs::view(&self.moment)?),
            "redactions" => Some(redactions::view(&self.moment)?),
            _ => match self.brought.iter().find(|table| table.name() == name) {
                Some(table) => Some(Arc::new(relation::Brought::new(table.clone(), &self.moment.tenant))),
                None => self.pg_catalog.table(name).await?,
            },
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        NAMES.contains(&name)
            || self.brought.iter().any(|table| table.name() == name)
            || self.pg_catalog.table_exist(name)
    }
}
