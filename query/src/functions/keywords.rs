//! `pg_get_keywords()`, which clients ask so that they can quote a name that is a word of SQL.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::sql::sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS};

/// What it is called.
pub(crate) const NAME: &str = "pg_get_keywords";

pub(crate) fn function() -> Arc<TableFunction> {
    Arc::new(TableFunction::new(NAME.to_owned(), Arc::new(Keywords)))
}

#[derive(Debug)]
struct Keywords;

impl TableFunctionImpl for Keywords {
    /// The words of the SQL that is understood here, with PostgreSQL's letters for what they are: `R`eserved, or not (`U`).
    fn call_with_args(&self, arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        if !arguments.exprs().is_empty() {
            return Err(DataFusionError::Plan(format!("{NAME} has no arguments")));
        }
        let words = || ALL_KEYWORDS.iter().zip(ALL_KEYWORDS_INDEX);
        let is_reserved = |keyword| RESERVED_FOR_COLUMN_ALIAS.contains(keyword);
        let schema = Arc::new(Schema::new(vec![
            Field::new("word", DataType::Utf8, false),
            Field::new("catcode", DataType::Utf8, false),
            Field::new("catdesc", DataType::Utf8, false),
        ]));
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(StringArray::from_iter_values(words().map(|(word, _)| word.to_ascii_lowercase()))),
                Arc::new(StringArray::from_iter_values(
                    words().map(|(_, keyword)| if is_reserved(keyword) { "R" } else { "U" }),
                )),
                Arc::new(StringArray::from_iter_values(
                    words().map(|(_, keyword)| if is_reserved(keyword) { "reserved" } else { "unreserved" }),
                )),
            ],
        )?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}
