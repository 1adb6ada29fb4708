//! Answers as bytes: one writer per format, fed with rows on the query threads.
//!
//! | format | `Accept` | shape |
//! | --- | --- | --- |
//! | JSON | `application/json` (default) | an array of objects, one per row |
//! | NDJSON | `application/x-ndjson` | an object and a newline per row |
//! | CSV | `text/csv` | RFC 4180 with a header line, `\r\n` |
//! | Arrow | `application/vnd.apache.arrow.stream` | the IPC stream |
//! | Parquet | `application/vnd.apache.parquet` | a file, its row groups as they fill |
//!
//! In JSON, times are RFC 3339 with nine decimals, whole numbers are exact however large (JavaScript rounds those beyond
//! 2^53), maps are objects, missing values are `null`, not-a-number and infinities are `null`. An incomplete answer never
//! looks complete: JSON lacks its `]`, and in every format the body is cut off without its last chunk.

mod arrow;
mod csv;
mod json;
mod parquet;

use std::sync::Arc;

use ::arrow_json::writer::make_encoder;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::arrow::error::ArrowError;

use crate::engine::Transform;
use crate::error::{QueryError, Shown};

/// A format an answer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An array of objects.
    Json,
    /// An object per line.
    JsonLines,
    /// Comma-separated values, with formulas disarmed.
    Csv,
    /// Comma-separated values exactly as stored.
    CsvRaw,
    /// The Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// The content type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::JsonLines => "application/x-ndjson",
            Format::Csv | Format::CsvRaw => "text/csv; charset=utf-8; header=present",
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The best format for an `Accept` header; `None` if none of them will do.
    ///
    /// ```
    /// use beeacon_query::Format;
    /// assert_eq!(Format::accepted("text/html, text/csv;q=0.9, */*;q=0.1"), Some(Format::Csv));
    /// assert_eq!(Format::accepted("text/csv; formulas=raw"), Some(Format::CsvRaw));
    /// assert_eq!(Format::accepted("text/html"), None);
    /// ```
    pub fn accepted(header: &str) -> Option<Format> {
        let mut best: Option<(f32, Format)> = None;
        for part in header.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let name = fields.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut raw) = (1.0_f32, false);
            for field in fields {
                match field
                    .split_once('=')
                    .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim()))
                {
                    Some((key, value)) if key == "q" => quality = value.parse().unwrap_or(0.0),
                    Some((key, value)) if key == "formulas" => raw = value.eq_ignore_ascii_case("raw"),
                    _ => {}
                }
            }
            let format = match name.as_str() {
                "application/json" | "application/*" | "*/*" => Format::Json,
                "application/x-ndjson" | "application/jsonl" => Format::JsonLines,
                "text/csv" | "text/*" if raw => Format::CsvRaw,
                "text/csv" | "text/*" => Format::Csv,
                "application/vnd.apache.arrow.stream" => Format::Arrow,
                "application/vnd.apache.parquet" => Format::Parquet,
                _ => continue,
            };
            if quality > 0.0 && best.is_none_or(|(other, _)| quality > other) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format)
    }
}

/// Writes rows; what it writes is taken away after each call.
trait Writer: Send {
    fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError>;
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError>;
}

/// A format's writer with the limit on the answer's size.
pub(crate) struct Encoder {
    writer: Box<dyn Writer>,
    /// What was written when the writer was made: a header line, a schema.
    start: Vec<u8>,
    bytes: u64,
    bytes_max: u64,
}

impl Encoder {
    pub(crate) fn new(format: Format, schema: &SchemaRef, bytes_max: u64) -> Result<Self, QueryError> {
        let mut start = Vec::new();
        let writer: Result<Box<dyn Writer>, ArrowError> = match format {
            Format::Json => json::Objects::new(schema, json::Frame::Array, &mut start).map(boxed),
            Format::JsonLines => json::Objects::new(schema, json::Frame::Lines, &mut start).map(boxed),
            Format::Csv => Ok(boxed(csv::Lines::new(schema, csv::Formulas::Disarmed, &mut start))),
            Format::CsvRaw => Ok(boxed(csv::Lines::new(schema, csv::Formulas::Raw, &mut start))),
            Format::Arrow => arrow::Stream::new(schema).map(boxed),
            Format::Parquet => parquet::Groups::new(schema).map(boxed),
        };
        Ok(Encoder { writer: writer.map_err(unfit)?, start, bytes: 0, bytes_max })
    }

    fn taken(&mut self, out: Vec<u8>) -> Result<Bytes, QueryError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        if self.bytes > self.bytes_max {
            return Err(QueryError::Bytes { bytes: self.bytes_max });
        }
        Ok(Bytes::from(out))
    }
}

fn boxed(writer: impl Writer + 'static) -> Box<dyn Writer> {
    Box::new(writer)
}

fn unfit(error: ArrowError) -> QueryError {
    QueryError::Format { shown: Shown::new(error.to_string()) }
}

impl Transform for Encoder {
    type Piece = Bytes;
    const SLICES: bool = true;

    fn rows(&mut self, rows: RecordBatch) -> Result<Bytes, QueryError> {
        let mut out = std::mem::take(&mut self.start);
        self.writer.rows(&rows, &mut out).map_err(unfit)?;
        self.taken(out)
    }

    fn end(&mut self) -> Result<Option<Bytes>, QueryError> {
        let mut out = std::mem::take(&mut self.start);
        self.writer.end(&mut out).map_err(unfit)?;
        Ok(Some(self.taken(out)?).filter(|bytes| !bytes.is_empty()))
    }
}

/// How values other than text are written, in JSON and in CSV alike.
pub(crate) fn options() -> ::arrow_json::writer::EncoderOptions {
    ::arrow_json::writer::EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.9f".to_owned())
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.9f%:z".to_owned())
        .with_encoder_factory(Arc::new(json::Utc))
}

/// Each value of a column as JSON text; null stays null.
pub(crate) fn json_texts(field: &FieldRef, array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let options = options();
    let mut encoder = make_encoder(field, array, &options)?;
    let mut text = Vec::new();
    let values = (0..array.len()).map(|row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        text.clear();
        encoder.encode(row, &mut text);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(ArrowError::JsonError("value is no text".into())),
        }
    });
    values.collect()
}
