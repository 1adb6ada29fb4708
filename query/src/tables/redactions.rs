//! `redactions(minute, service, rule, count)`: what the pollen filter took out, as a view.
//!
//! Files are counted when they are written; what is not counted, which is what is in no file yet and files of earlier versions, is
//! counted from its lines. Both say the same, so that nobody sees which it was but by the time that it takes.

use std::sync::Arc;

use async_trait::async_trait;
use beeacon_record::schema::Column;
use beeacon_store::redaction_schema;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::functions::expr_fn::{date_trunc, get_field};
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, cast};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{col, lit};

use super::Moment;
use super::logs::{self, Rows};
use crate::prune::{Bounds, Narrowing};

const MINUTE_NS: i64 = 60 * 1_000_000_000;

/// The view. Bounds on `minute` and `service` reach the files and the counts below, because both are grouped by.
pub(crate) fn view(moment: &Arc<Moment>) -> Result<Arc<dyn TableProvider>> {
    let redactions = Column::Redactions.name();
    let service = Column::Service.name();
    let count = cast(get_field(col(redactions), "count"), DataType::UInt64);
    let of_lines = logs::stored(moment, Rows::NotCounted)?
        .project(vec![
            date_trunc(lit("minute"), col(Column::Timestamp.name())).alias("minute"),
            col(service).alias(service),
            col(redactions),
        ])?
        .unnest_column(redactions)?
        .project(vec![
            col("minute"),
            col(service),
            get_field(col(redactions), "rule").alias("rule"),
            count.alias("count"),
        ])?;
    let table = Arc::new(Counted { moment: moment.clone() });
    let of_files = LogicalPlanBuilder::scan("counted", provider_as_source(table), None)?
        .project(["minute", service, "rule", "count"].map(|name| col(name).alias(name)))?
        .build()?;
    let plan = of_lines
        .union(of_files)?
        .aggregate(vec![col("minute"), col(service), col("rule")], vec![sum(col("count")).alias("count")])?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// What filters over counts leave of the lines that they are of.
pub(crate) fn bounds(filters: &[Expr]) -> Bounds {
    Narrowing { time: "minute", text: Column::Service.name() }.bounds(filters).widened(MINUTE_NS)
}

/// What is counted of files.
#[derive(Debug)]
pub(crate) struct Counted {
    moment: Arc<Moment>,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        redaction_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.moment.counted(&bounds(filters))?.rows.clone();
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], redaction_schema(), projection.cloned())?)
    }
}
