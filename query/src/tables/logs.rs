//! `logs`: fresh rows in memory and rows in Parquet files, as one table.
//!
//! What SQL sees is a view that shows `labels` as a map; below it lies the table as it is stored. Each scan reads the query's
//! snapshot, less the files whose times the scan's own filters exclude.
//!
//! A filter that its [`Bounds`] say whole is applied here, and only to files of which the catalog does not tell that all their rows
//! match: of a day that somebody looks at, these are those at its ends, and no row of the others is compared with anything. All
//! other filters are applied above the scan, so pruning by them never has to be exact. The exact counts and time bounds in the catalog
//! answer `count(*)`, `min` and `max` over files without opening one.

use std::sync::Arc;

use async_trait::async_trait;
use beeacon_record::schema::{self, Column};
use beeacon_store::{LogFile, Snapshot};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DFSchema, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::{ViewTable, provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::col;
use datafusion::scalar::ScalarValue;

use super::Moment;
use super::labels::labels_map;
use super::reader::Readers;
use super::redactions::{self, Counted};
use crate::error::QueryError;
use crate::limits::SCAN_FILES_MAX;
use crate::prune::Bounds;

/// `logs` as SQL users see it.
pub(crate) fn view(moment: &Arc<Moment>) -> Result<Arc<dyn TableProvider>> {
    let columns = Column::ALL.map(|column| match column {
        Column::Labels => labels_map().call(vec![col(column.name())]).alias(column.name()),
        other => col(other.name()),
    });
    let plan = stored(moment, Rows::All)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// A scan of the rows as they are stored, for views to build on.
pub(crate) fn stored(moment: &Arc<Moment>, rows: Rows) -> Result<LogicalPlanBuilder> {
    let table = Arc::new(StoredLogs { moment: moment.clone(), rows });
    LogicalPlanBuilder::scan("logs", provider_as_source(table), None)
}

/// Which rows a scan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// All of them.
    All,
    /// Those whose redactions are not counted.
    NotCounted,
}

/// What a plan needs of the store.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// What all its scans of stored logs, and of what is counted of them, may need together; none without such a scan.
    pub(crate) bounds: Option<Bounds>,
    /// Whether it asks for counted redactions.
    pub(crate) counts: bool,
}

impl Needs {
    /// Those of an optimised plan.
    pub(crate) fn of(plan: &LogicalPlan) -> Needs {
        let mut needs = Needs::default();
        let walked = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(table) = source_as_provider(&scan.source)
            {
                if table.is::<StoredLogs>() {
                    needs.also(Bounds::of_filters(&scan.filters));
                } else if table.is::<Counted>() {
                    needs.also(redactions::bounds(&scan.filters));
                    needs.counts = true;
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        // The walk's closure never fails; should the walk, everything is taken.
        if walked.is_ok() { needs } else { Needs { bounds: Some(Bounds::default()), counts: true } }
    }

    fn also(&mut self, own: Bounds) {
        self.bounds = Some(match self.bounds.take() {
            Some(others) => others.or(own),
            None => own,
        });
    }
}

/// The table as it is stored.
#[derive(Debug)]
struct StoredLogs {
    moment: Arc<Moment>,
    rows: Rows,
}

#[async_trait]
impl TableProvider for StoredLogs {
    fn schema(&self) -> SchemaRef {
        schema::log_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let how = |filter: &&Expr| match Bounds::are_exact(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(how).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bounds = Bounds::of_filters(filters);
        let (snapshot, asked) = self.moment.snapshot(&bounds)?;
        let exact = Exact::of(state, filters)?;
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(3);
        if !snapshot.fresh.is_empty() {
            let scan = |projection: Option<&Vec<usize>>, limit| {
                fresh(snapshot, self.moment.partitions, projection, limit)
            };
            inputs.push(match &exact {
                Some(exact) => exact.applied(projection, scan)?,
                None => scan(projection, limit)?,
            });
        }
        let counted = match self.rows {
            Rows::All => None,
            Rows::NotCounted => Some(self.moment.counted(&bounds)?),
        };
        let files = snapshot.files.iter().filter(|file| bounds.meets(file.time_min_ns, file.time_max_ns));
        let files = files.filter(|file| counted.is_none_or(|counted| !counted.files.contains(&file.file_id)));
        let files: Vec<&LogFile> = files.collect();
        if files.len() > SCAN_FILES_MAX {
            return Err(QueryError::Files { files: files.len(), max: SCAN_FILES_MAX }.into());
        }
        // Of what the bounds of all filters hold, every exact filter holds all.
        let is_whole = |file: &&LogFile| {
            bounds.hold_all(file.time_min_ns, file.time_max_ns, file.services_within, asked)
        };
        let (whole, others): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| exact.is_none() || is_whole(file));
        if !whole.is_empty() {
            inputs.push(parquet(&self.moment, &whole, projection, limit)?);
        }
        if let Some(exact) = exact.filter(|_| !others.is_empty()) {
            let scan =
                |projection: Option<&Vec<usize>>, limit| parquet(&self.moment, &others, projection, limit);
            inputs.push(exact.applied(projection, scan)?);
        }
        match inputs.len() {
            0 => Ok(MemorySourceConfig::try_new_exec(&[vec![]], schema::log_schema(), projection.cloned())?),
            1 => inputs.pop().ok_or_else(|| DataFusionError::Internal("one input went missing".into())),
            _ => UnionExec::try_new(inputs),
        }
    }
}

/// The filters that nobody applies above the scan.
struct Exact {
    physical: Arc<dyn PhysicalExpr>,
    /// The columns that they name.
    columns: Vec<usize>,
}

impl Exact {
    fn of(state: &dyn Session, filters: &[Expr]) -> Result<Option<Exact>> {
        let exact = filters.iter().filter(|filter| Bounds::are_exact(filter)).cloned();
        let Some(condition) = conjunction(exact) else { return Ok(None) };
        let schema = DFSchema::try_from(schema::log_schema())?;
        let physical = state.create_physical_expr(condition, &schema)?;
        let mut columns: Vec<usize> =
            collect_columns(&physical).into_iter().map(|column| column.index()).collect();
        columns.sort_unstable();
        Ok(Some(Exact { physical, columns }))
    }

    /// What these filters leave of a scan, which reads the columns that it is told to.
    fn applied(
        &self,
        projection: Option<&Vec<usize>>,
        scan: impl FnOnce(Option<&Vec<usize>>, Option<usize>) -> Result<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(wanted) = projection else {
            return Ok(Arc::new(FilterExec::try_new(self.physical.clone(), scan(None, None)?)?));
        };
        let added = self.columns.iter().filter(|column| !wanted.contains(column));
        let read: Vec<usize> = wanted.iter().chain(added).copied().collect();
        let input = scan(Some(&read), None)?;
        let condition = reassign_expr_columns(self.physical.clone(), &input.schema())?;
        let kept = (0..wanted.len()).collect();
        let filter = FilterExecBuilder::new(condition, input).apply_projection(Some(kept))?.build()?;
        Ok(Arc::new(filter))
    }
}

/// Fresh rows: batches dealt out to the partitions.
fn fresh(
    snapshot: &Snapshot,
    partitions: usize,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let per_partition = snapshot.fresh.len().div_ceil(partitions.max(1)).max(1);
    let dealt: Vec<_> = snapshot.fresh.chunks(per_partition).map(<[_]>::to_vec).collect();
    let source = MemorySourceConfig::try_new(&dealt, schema::log_schema(), projection.cloned())?;
    Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
}

/// Files: newest first, so that `order by timestamp desc limit` soon knows which ones it can skip.
fn parquet(
    moment: &Moment,
    files: &[&LogFile],
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut newest_first = files.to_vec();
    newest_first.sort_by_key(|file| std::cmp::Reverse(file.time_max_ns));
    let mut groups = vec![Vec::new(); moment.partitions.clamp(1, files.len())];
    let count = groups.len();
    for (index, file) in newest_first.into_iter().enumerate() {
        if let Some(group) = groups.get_mut(index % count) {
            group.push(partitioned(moment, file)?);
        }
    }
    let source = ParquetSource::new(schema::log_schema())
        .with_parquet_file_reader_factory(Arc::new(Readers::new(moment)))
        .with_pushdown_filters(true)
        .with_enable_page_index(true);
    let config = FileScanConfigBuilder::new(moment.files_url.clone(), Arc::new(source))
        .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
        .with_statistics(statistics(files.iter().copied()))
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// The file as the tenant's own store names it. A file that is not the tenant's stops the query.
fn partitioned(moment: &Moment, file: &LogFile) -> Result<PartitionedFile> {
    let within = file.path.prefix_match(&moment.files_prefix).ok_or(QueryError::ForeignFile)?;
    let path: object_store::path::Path = within.collect();
    let statistics = statistics(std::iter::once(file));
    Ok(PartitionedFile::new(path.to_string(), file.bytes).with_statistics(Arc::new(statistics)))
}

/// What the catalog knows of these files: rows, and the bounds of `timestamp`.
fn statistics<'a>(files: impl Iterator<Item = &'a LogFile> + Clone) -> Statistics {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let rows = files.clone().map(|file| number(file.rows)).sum();
    let bytes: usize = files.clone().map(|file| number(file.bytes)).sum();
    let at = |ns: Option<i64>| ScalarValue::TimestampNanosecond(ns, Some("UTC".into()));
    let min = files.clone().map(|file| file.time_min_ns).min();
    let max = files.map(|file| file.time_max_ns).max();
    let columns = Column::ALL.map(|column| {
        let mut statistics = ColumnStatistics::new_unknown();
        statistics.null_count = Precision::Exact(0);
        if column == Column::Timestamp {
            statistics.min_value = Precision::Exact(at(min));
            statistics.max_value = Precision::Exact(at(max));
        }
        statistics
    });
    Statistics {
        num_rows: Precision::Exact(rows),
        total_byte_size: Precision::Inexact(bytes),
        column_statistics: columns.to_vec(),
    }
}
