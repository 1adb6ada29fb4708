//! Rows as a table for a terminal.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches;

/// A table with a frame. Log lines are written by strangers: control characters and those that turn the direction of text are
/// shown as escapes such as `\u{1b}`, so that a line can neither move the cursor nor colour the screen. Missing values are
/// empty cells.
///
/// # Errors
/// When Arrow cannot show a column's type.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::arrow::array::{RecordBatch, StringArray};
/// let rows = RecordBatch::try_from_iter([("message", Arc::new(StringArray::from(vec!["\u{1b}[2J"])) as _)]).unwrap();
/// assert!(beeacon_query::display::table(&[rows]).unwrap().contains("\\u{1b}[2J"));
/// ```
pub fn table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let options = FormatOptions::default()
        .with_null("")
        .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.9f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.9fZ"));
    let shown = batches.iter().map(|batch| {
        let columns = batch.columns().iter().map(|column| {
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let cells = (0..column.len()).map(|row| Ok(escaped(&formatter.value(row).try_to_string()?)));
            let cells = cells.collect::<Result<Vec<_>, ArrowError>>()?;
            Ok(Arc::new(StringArray::from(cells)) as ArrayRef)
        });
        let schema = batch.schema();
        let fields =
            schema.fields().iter().map(|field| Field::new(escaped(field.name()), DataType::Utf8, true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns.collect::<Result<Vec<_>, ArrowError>>()?)
    });
    let shown = shown.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(pretty_format_batches(&shown)?.to_string())
}

/// The text with everything escaped that would act on a terminal instead of being seen.
pub fn escaped(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(acts) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if acts(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}
