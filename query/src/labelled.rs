//! Rows as numbers with labels, as rules over SQL want them.

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use futures_util::TryStreamExt;

use crate::engine::{Ask, Query};
use crate::error::{QueryError, Shown};

/// The column that is the number.
const VALUE: &str = "value";

/// A row: its other columns as text, without those that are null or empty, and its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Names and texts, in the order of the columns.
    pub labels: Vec<(String, String)>,
    /// The column `value`.
    pub value: f64,
}

impl Query {
    /// The rows of a query whose column `value` is a number; a row whose number is null counts as not there.
    ///
    /// # Errors
    /// Those of [`Query::sql`], [`QueryError::Rows`] beyond `rows_max`, [`QueryError::Plan`] when there is no such column, and
    /// [`QueryError::Format`] when a column cannot be read as text or the value not as a number.
    pub async fn labelled(&self, ask: Ask, rows_max: usize) -> Result<Vec<Labelled>, QueryError> {
        let mut answer = self.ask(ask).await?;
        let mut rows = Vec::new();
        while let Some(batch) = answer.try_next().await? {
            let schema = batch.schema();
            let Ok(at) = schema.index_of(VALUE) else {
                let shown = Shown::new("the query has no column named value");
                return Err(QueryError::Plan { shown, place: None });
            };
            if rows.len() + batch.num_rows() > rows_max {
                return Err(QueryError::Rows { rows: u64::try_from(rows_max).unwrap_or(u64::MAX) });
            }
            let misfit = |name: &str, wanted: &str| QueryError::Format {
                shown: Shown::new(format!("the column {name} cannot be read as {wanted}")),
            };
            let values = cast(batch.column(at), &DataType::Float64).map_err(|_| misfit(VALUE, "a number"))?;
            // What is text and no number became null.
            if values.null_count() > batch.column(at).logical_null_count() {
                return Err(misfit(VALUE, "a number"));
            }
            let mut columns: Vec<(String, StringArray)> = Vec::new();
            for (index, field) in schema.fields().iter().enumerate().filter(|(index, _)| *index != at) {
                let texts =
                    cast(batch.column(index), &DataType::Utf8).map_err(|_| misfit(field.name(), "text"))?;
                columns.push((field.name().clone(), texts.as_string::<i32>().clone()));
            }
            let values = values.as_primitive::<Float64Type>();
            for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
                let labels = columns
                    .iter()
                    .filter(|(_, texts)| texts.is_valid(row) && !texts.value(row).is_empty())
                    .map(|(name, texts)| (name.clone(), texts.value(row).to_owned()))
                    .collect();
                rows.push(Labelled { labels, value: values.value(row) });
            }
        }
        Ok(rows)
    }
}
