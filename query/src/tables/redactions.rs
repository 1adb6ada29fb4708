//! `redactions(minute, service, rule, count)`: what the pollen filter took out, as a view over `logs`.

use std::sync::Arc;

use beeacon_record::schema::Column;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::error::Result;
use datafusion::functions::expr_fn::{date_trunc, get_field};
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::cast;
use datafusion::prelude::{col, lit};

use super::Moment;
use super::logs;

/// The view. Bounds on `minute` and `service` reach the files below, because both are grouped by.
pub(crate) fn view(moment: &Arc<Moment>) -> Result<Arc<dyn TableProvider>> {
    let redactions = Column::Redactions.name();
    let service = Column::Service.name();
    let count = cast(get_field(col(redactions), "count"), DataType::UInt64);
    let plan = logs::stored(moment)?
        .project(vec![
            date_trunc(lit("minute"), col(Column::Timestamp.name())).alias("minute"),
            col(service),
            col(redactions),
        ])?
        .unnest_column(redactions)?
        .project(vec![
            col("minute"),
            col(service),
            get_field(col(redactions), "rule").alias("rule"),
            count.alias("count"),
        ])?
        .aggregate(vec![col("minute"), col(service), col("rule")], vec![sum(col("count")).alias("count")])?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
