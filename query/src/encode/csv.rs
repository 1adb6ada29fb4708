//! CSV: a header line, then a line per row, fields quoted where needed.
//!
//! Log lines are written by strangers, and spreadsheets run a cell that starts with `=`, `+`, `-`, `@`, a tab or a carriage
//! return. Such cells of text (not of numbers or times) get a `'` in front, unless the client asked for `formulas=raw`. Maps,
//! lists and structs are written as JSON; a missing value is an empty field, empty text is `""`.

use arrow_json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;

/// What happens to cells that a spreadsheet would run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Formulas {
    Disarmed,
    Raw,
}

pub(super) struct Lines {
    formulas: Formulas,
    options: EncoderOptions,
    scratch: Vec<u8>,
}

impl Lines {
    pub(super) fn new(schema: &SchemaRef, formulas: Formulas, start: &mut Vec<u8>) -> Self {
        let lines = Lines { formulas, options: super::options(), scratch: Vec::new() };
        for (index, name) in super::json::unique_names(schema).iter().enumerate() {
            if index > 0 {
                start.push(b',');
            }
            lines.text(name, start);
        }
        start.extend_from_slice(b"\r\n");
        lines
    }

    fn text(&self, text: &str, out: &mut Vec<u8>) {
        let runs = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        let guard = if runs && self.formulas == Formulas::Disarmed { "'" } else { "" };
        if text.is_empty()
            || text.contains(['"', ',', '\n', '\r'])
            || text.starts_with(' ')
            || text.ends_with(' ')
        {
            out.push(b'"');
            out.extend_from_slice(guard.as_bytes());
            out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(guard.as_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// A column ready to be written.
enum Cells<'a> {
    Text(StringArray),
    /// Numbers, times and booleans as JSON writes them, without quotes.
    Plain(NullableEncoder<'a>),
    /// Maps, lists, structs.
    Json(NullableEncoder<'a>),
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

impl super::Writer for Lines {
    fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let schema = rows.schema();
        let options = self.options.clone();
        let cells = schema.fields().iter().zip(rows.columns()).map(|(field, array): (_, &ArrayRef)| {
            let data_type = field.data_type();
            if is_text(data_type) {
                return Ok(Cells::Text(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()));
            }
            let encoder = make_encoder(field, array, &options)?;
            Ok(if data_type.is_nested() { Cells::Json(encoder) } else { Cells::Plain(encoder) })
        });
        let mut cells = cells.collect::<Result<Vec<_>, ArrowError>>()?;
        let mut scratch = std::mem::take(&mut self.scratch);
        for row in 0..rows.num_rows() {
            for (index, cell) in cells.iter_mut().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                scratch.clear();
                match cell {
                    Cells::Text(texts) if texts.is_valid(row) => self.text(texts.value(row), out),
                    Cells::Plain(encoder) if !encoder.is_null(row) => {
                        encoder.encode(row, &mut scratch);
                        out.extend(scratch.iter().filter(|byte| **byte != b'"'));
                    }
                    Cells::Json(encoder) if !encoder.is_null(row) => {
                        encoder.encode(row, &mut scratch);
                        self.text(&String::from_utf8_lossy(&scratch), out);
                    }
                    _ => {}
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        self.scratch = scratch;
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), ArrowError> {
        Ok(())
    }
}
