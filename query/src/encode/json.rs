//! JSON objects, as an array or as lines.

use std::io::Write as _;

use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use datafusion::arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::arrow::error::ArrowError;

/// What stands around the objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// `[` object `,` object `]`
    Array,
    /// object newline
    Lines,
}

pub(super) struct Objects {
    frame: Frame,
    /// Every column's name as JSON, with its colon.
    names: Vec<Vec<u8>>,
    options: EncoderOptions,
    first: bool,
}

impl Objects {
    pub(super) fn new(schema: &SchemaRef, frame: Frame, start: &mut Vec<u8>) -> Result<Self, ArrowError> {
        let names = unique_names(schema);
        let names = names.iter().map(|name| {
            let mut text = serde_json::to_vec(name).map_err(|_| ArrowError::JsonError("name".into()))?;
            text.push(b':');
            Ok(text)
        });
        let names = names.collect::<Result<_, ArrowError>>()?;
        let options = super::options();
        // A type that has no JSON is found before the first row.
        let empty: Vec<_> = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
        for (field, array) in schema.fields().iter().zip(&empty) {
            make_encoder(field, array, &options)?;
        }
        if frame == Frame::Array {
            start.push(b'[');
        }
        Ok(Objects { frame, names, options, first: true })
    }
}

/// Column names, made distinct as `name`, `name_2`, …: two keys of one name would hide each other in most readers.
pub(super) fn unique_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut count = 1;
        while names.contains(&name) {
            count += 1;
            name = format!("{}_{count}", field.name());
        }
        names.push(name);
    }
    names
}

impl super::Writer for Objects {
    fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let schema = rows.schema();
        let encoders = schema.fields().iter().zip(rows.columns());
        let encoders = encoders.map(|(field, array)| make_encoder(field, array, &self.options));
        let mut encoders = encoders.collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.num_rows() {
            if self.frame == Frame::Array && !std::mem::take(&mut self.first) {
                out.extend_from_slice(b",\n");
            }
            out.push(b'{');
            for (index, (name, encoder)) in self.names.iter().zip(&mut encoders).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name);
                if encoder.is_null(row) {
                    out.extend_from_slice(b"null");
                } else {
                    encoder.encode(row, out);
                }
            }
            out.push(b'}');
            if self.frame == Frame::Lines {
                out.push(b'\n');
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if self.frame == Frame::Array {
            out.extend_from_slice(b"]\n");
        }
        Ok(())
    }
}

/// Writes UTC times with `Z`, not `+00:00`, also inside lists and maps.
#[derive(Debug)]
pub(super) struct Utc;

impl EncoderFactory for Utc {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let DataType::Timestamp(unit, Some(zone)) = array.data_type() else { return Ok(None) };
        if !matches!(zone.as_ref(), "UTC" | "+00:00") {
            return Ok(None);
        }
        Ok(Some(match unit {
            TimeUnit::Second => times::<TimestampSecondType>(array),
            TimeUnit::Millisecond => times::<TimestampMillisecondType>(array),
            TimeUnit::Microsecond => times::<TimestampMicrosecondType>(array),
            TimeUnit::Nanosecond => times::<TimestampNanosecondType>(array),
        }))
    }
}

fn times<T: ArrowTimestampType>(array: &dyn Array) -> NullableEncoder<'_> {
    let times = array.as_primitive::<T>();
    NullableEncoder::new(Box::new(Times(times)), times.nulls().cloned())
}

struct Times<'a, T: ArrowTimestampType>(&'a PrimitiveArray<T>);

impl<T: ArrowTimestampType> Encoder for Times<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match self.0.value_as_datetime(row) {
            // Writing into a vector cannot fail.
            Some(time) => drop(write!(out, "\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.9fZ"))),
            None => out.extend_from_slice(b"null"),
        }
    }
}
