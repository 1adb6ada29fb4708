//! `pg_catalog` and `information_schema`: what clients of PostgreSQL read to learn which tables there are.
//!
//! The rows are made once, from the schemas of the tables every tenant has and of those that the program brings, and are the
//! same for all tenants. Tables that are
//! always empty here (indexes, constraints, triggers, …) exist with PostgreSQL's columns; see [`is_empty`].

mod rows;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};

/// The schema of the tables with data.
pub(crate) const PUBLIC: &str = "public";

/// The database, as clients see it.
pub(crate) const DATABASE: &str = "beeacon";

/// The role that everything belongs to.
pub(crate) const OWNER: &str = "beeacon";

/// The version of PostgreSQL whose catalog and protocol are followed.
pub(crate) const SERVER_VERSION: &str = "15.0";

/// The same as a number.
pub(crate) const SERVER_VERSION_NUMBER: &str = "150000";

/// The version of TimescaleDB whose `time_bucket` is followed. Grafana and others look for it before they use the function.
pub(crate) const TIMESCALE_VERSION: &str = "2.14.0";

/// What `select version()` says.
pub(crate) fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION} (Beeacon {}, which only reads)", env!("CARGO_PKG_VERSION"))
}

/// A table that users ask.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) name: &'static str,
    pub(crate) is_view: bool,
    /// Whether the program brings it.
    pub(crate) is_brought: bool,
    pub(crate) schema: SchemaRef,
}

/// A value of a catalog's row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Number(i64),
    Real(f64),
    Flag(bool),
    Null,
}

/// The type of a catalog's column, a letter in its description: `t`ext, `n`umber, `r`eal, `f`lag, `l`ist of texts, which is always
/// null.
type Columns = &'static [(&'static str, char)];

/// A table of the catalog and its rows.
pub(crate) struct SystemTable {
    pub(crate) name: &'static str,
    pub(crate) columns: Columns,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// Both catalogs, ready to be read.
#[derive(Debug)]
pub(crate) struct Catalogs {
    pub(crate) pg_catalog: Arc<SystemSchema>,
    pub(crate) information_schema: Arc<SystemSchema>,
}

/// The catalogs, made at the first call from what it describes.
pub(crate) fn catalogs(
    made: &OnceLock<Catalogs>,
    relations: impl FnOnce() -> Result<Vec<Relation>>,
    functions: impl FnOnce() -> Vec<(String, &'static str)>,
) -> Result<&Catalogs> {
    if let Some(made) = made.get() {
        return Ok(made);
    }
    let relations = relations()?;
    let fresh = Catalogs {
        pg_catalog: Arc::new(SystemSchema::new(rows::pg_catalog(&relations, &functions()))?),
        information_schema: Arc::new(SystemSchema::new(rows::information_schema(&relations))?),
    };
    Ok(made.get_or_init(|| fresh))
}

/// Whether a table of `pg_catalog` has no row, here, ever.
pub(crate) fn is_empty(name: &str) -> bool {
    rows::EMPTY.iter().any(|(empty, _)| *empty == name)
}

/// The number of a table in `pg_class`.
pub(crate) fn relation_oid(name: &str) -> Option<i64> {
    rows::relation_oid(name)
}

/// The table of a number in `pg_class`.
pub(crate) fn relation_name(oid: i64) -> Option<&'static str> {
    rows::relation_name(oid)
}

/// One of the two schemas.
#[derive(Debug)]
pub(crate) struct SystemSchema(Vec<(&'static str, Arc<MemTable>)>);

impl SystemSchema {
    fn new(tables: Vec<SystemTable>) -> Result<Self> {
        let tables = tables.into_iter().map(|table| Ok((table.name, Arc::new(in_memory(&table)?))));
        Ok(SystemSchema(tables.collect::<Result<_>>()?))
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        Ok(found.map(|(_, table)| table.clone() as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }
}

fn in_memory(table: &SystemTable) -> Result<MemTable> {
    let fields = table.columns.iter().map(|(name, kind)| Field::new(*name, data_type(*kind), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = table.columns.iter().enumerate().map(|(index, (_, kind))| column(table, index, *kind));
    let batch = if table.rows.is_empty() {
        RecordBatch::new_empty(schema.clone())
    } else {
        RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?
    };
    MemTable::try_new(schema, vec![vec![batch]])
}

fn data_type(kind: char) -> DataType {
    match kind {
        'n' => DataType::Int64,
        'r' => DataType::Float64,
        'f' => DataType::Boolean,
        'l' => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        _ => DataType::Utf8,
    }
}

fn column(table: &SystemTable, index: usize, kind: char) -> Result<ArrayRef> {
    let misfit = || DataFusionError::Internal(format!("{} has a row that is too short", table.name));
    let cells = table.rows.iter().map(|row| row.get(index).ok_or_else(misfit));
    let cells = cells.collect::<Result<Vec<_>>>()?;
    Ok(match kind {
        'n' => Arc::new(cells.into_iter().map(Cell::number).collect::<Int64Array>()),
        'r' => Arc::new(cells.into_iter().map(Cell::real).collect::<Float64Array>()),
        'f' => Arc::new(cells.into_iter().map(Cell::flag).collect::<BooleanArray>()),
        'l' => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            cells.iter().for_each(|_| lists.append(false));
            Arc::new(lists.finish())
        }
        _ => Arc::new(cells.into_iter().map(Cell::text).collect::<StringArray>()),
    })
}

impl Cell {
    fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Cell::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn real(&self) -> Option<f64> {
        match self {
            Cell::Real(real) => Some(*real),
            _ => None,
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Cell::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Cell::Flag(flag)
    }
}
