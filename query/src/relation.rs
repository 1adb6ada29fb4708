//! Relations that others bring: small tables of the program, readable beside `logs`.
//!
//! Whoever composes the program names them in [`crate::QueryOptions::relations`]; this room knows what columns they have and
//! asks for their rows when a query reads them. They are described to clients of PostgreSQL like the tables of the store.
//! A query that reads one twice asks for its rows twice.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use thiserror::Error;

use crate::error::{QueryError, Shown};
use crate::prune::Narrowing;

/// What a column holds. Every column may hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    Text,
    /// A whole number.
    Number,
    /// A number.
    Real,
    /// True or false.
    Flag,
    /// A time, as the column `timestamp` of `logs`.
    Time,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A number.
    Real(f64),
    /// True or false.
    Flag(bool),
    /// A time, in nanoseconds since 1970.
    Time(i64),
    /// Nothing.
    Null,
}

/// The rows of a relation, some time later.
pub type RelationRows =
    Pin<Box<dyn Future<Output = std::result::Result<Vec<Vec<Value>>, RelationError>> + Send>>;

/// Which of a relation's rows and columns a query needs. Rows beyond them are always right: the query looks itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Rows whose time, in [`Relation::narrowed_by`]'s column, lies between these, both included, in nanoseconds since 1970.
    pub time_ns: Option<(i64, i64)>,
    /// Rows whose text, in [`Relation::narrowed_by`]'s column, is one of these.
    pub texts: Option<BTreeSet<String>>,
    /// The places of the columns that are read; what stands in the others does not matter. All, without it.
    pub columns: Option<BTreeSet<usize>>,
}

/// Why a relation has no rows to give now. The text is for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RelationError(pub String);

/// A table that others bring.
pub trait Relation: Send + Sync + fmt::Debug {
    /// Its name; not that of another table.
    fn name(&self) -> &'static str;

    /// Its columns.
    fn columns(&self) -> &'static [(&'static str, ColumnKind)];

    /// The columns, one of times and one of texts, by which it can leave out rows that a query does not want. By default none.
    fn narrowed_by(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Its rows for a tenant, each with one value per column, of the column's kind. Bounding them is up to whoever brings them.
    fn rows(&self, tenant: &str, wanted: &Wanted) -> RelationRows;
}

pub(crate) fn schema(relation: &dyn Relation) -> SchemaRef {
    let fields = relation.columns().iter().map(|(name, kind)| Field::new(*name, data_type(*kind), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Text => DataType::Utf8,
        ColumnKind::Number => DataType::Int64,
        ColumnKind::Real => DataType::Float64,
        ColumnKind::Flag => DataType::Boolean,
        ColumnKind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
    }
}

/// A relation as a table of one tenant.
#[derive(Debug)]
pub(crate) struct Brought {
    relation: Arc<dyn Relation>,
    tenant: String,
    schema: SchemaRef,
}

impl Brought {
    pub(crate) fn new(relation: Arc<dyn Relation>, tenant: &str) -> Self {
        let schema = schema(&*relation);
        Brought { relation, tenant: tenant.to_owned(), schema }
    }

    fn batch(&self, rows: &[Vec<Value>]) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let columns = self.relation.columns().iter().enumerate();
        let columns = columns.map(|(index, (_, kind))| column(rows, index, *kind));
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_>>()?)?)
    }
}

fn column(rows: &[Vec<Value>], index: usize, kind: ColumnKind) -> Result<ArrayRef> {
    let misfit = || DataFusionError::from(QueryError::internal("a relation's row does not fit its columns"));
    macro_rules! values {
        ($variant:ident, $array:ty, $pick:expr) => {{
            let values = rows.iter().map(|row| match row.get(index) {
                Some(Value::Null) => Ok(None),
                Some(Value::$variant(value)) => Ok(Some($pick(value))),
                _ => Err(misfit()),
            });
            values.collect::<Result<$array>>()?
        }};
    }
    Ok(match kind {
        ColumnKind::Text => Arc::new(values!(Text, StringArray, String::as_str)),
        ColumnKind::Number => Arc::new(values!(Number, Int64Array, |value: &i64| *value)),
        ColumnKind::Real => Arc::new(values!(Real, Float64Array, |value: &f64| *value)),
        ColumnKind::Flag => Arc::new(values!(Flag, BooleanArray, |value: &bool| *value)),
        ColumnKind::Time => {
            Arc::new(values!(Time, TimestampNanosecondArray, |value: &i64| *value).with_timezone("UTC"))
        }
    })
}

#[async_trait]
impl TableProvider for Brought {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
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
        let bounds = self.relation.narrowed_by().map(|(time, text)| Narrowing { time, text }.bounds(filters));
        let bounds = bounds.unwrap_or_default();
        let wanted = Wanted {
            time_ns: bounds.time_ns(),
            texts: bounds.into_texts(),
            columns: projection.map(|columns| columns.iter().copied().collect()),
        };
        let rows = self.relation.rows(&self.tenant, &wanted).await;
        let rows = rows.map_err(|error| QueryError::Relation { shown: Shown::new(error.0) })?;
        let batch = self.batch(&rows)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema.clone(), projection.cloned())?)
    }
}
