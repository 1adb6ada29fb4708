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
    let shown = batches.iter().map(|batch| {
        let columns = cells(batch)?.into_iter().map(|cells| Arc::new(StringArray::from(cells)) as ArrayRef);
        let schema = batch.schema();
        let fields =
            schema.fields().iter().map(|field| Field::new(escaped(field.name()), DataType::Utf8, true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns.collect())
    });
    let shown = shown.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(pretty_format_batches(&shown)?.to_string())
}

/// Each row as a block of lines, a column's name and its value on each: for rows that are wider than the screen. Escaped as in
/// [`table`]; columns without a value are left out.
///
/// # Errors
/// When Arrow cannot show a column's type.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::arrow::array::{RecordBatch, StringArray};
/// let rows = RecordBatch::try_from_iter([("level", Arc::new(StringArray::from(vec!["info"])) as _)]).unwrap();
/// assert_eq!(beeacon_query::display::blocks(&[rows]).unwrap(), "-- row 1\nlevel  info");
/// ```
pub fn blocks(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let (mut blocks, mut row_number) = (Vec::new(), 0_u64);
    for batch in batches {
        let schema = batch.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| escaped(field.name())).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let columns = cells(batch)?;
        for row in 0..batch.num_rows() {
            row_number += 1;
            let mut block = format!("-- row {row_number}");
            for (name, column) in names.iter().zip(&columns) {
                if let Some(value) = column.get(row).filter(|value| !value.is_empty()) {
                    block.push_str(&format!("\n{name:width$}  {value}"));
                }
            }
            blocks.push(block);
        }
    }
    Ok(blocks.join("\n"))
}

/// The cells of every column as texts, escaped.
fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::default()
        .with_null("")
        .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.9f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.9fZ"));
    let columns = batch.columns().iter().map(|column| {
        let formatter = ArrayFormatter::try_new(column, &options)?;
        (0..column.len()).map(|row| Ok(escaped(&formatter.value(row).try_to_string()?))).collect()
    });
    columns.collect()
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
