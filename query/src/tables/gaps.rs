//! `gaps`: what Docker had dropped before it could be read, as the agents declared it.

use std::sync::Arc;

use async_trait::async_trait;
use beeacon_store::gap_schema;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::Moment;

#[derive(Debug)]
pub(crate) struct Gaps {
    moment: Arc<Moment>,
}

impl Gaps {
    pub(crate) fn new(moment: Arc<Moment>) -> Self {
        Gaps { moment }
    }
}

#[async_trait]
impl TableProvider for Gaps {
    fn schema(&self) -> SchemaRef {
        gap_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.moment.gap_rows().await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], gap_schema(), projection.cloned())?)
    }
}
