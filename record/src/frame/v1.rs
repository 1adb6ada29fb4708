//! Version 1 of the payload: integers as narrow differences, dictionaries with narrow keys, then the text.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, DictionaryArray, Int32Array, PrimitiveArray, RecordBatch,
    StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow_buffer::{Buffer, MutableBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};

use crate::batch::Batch;
use crate::frame::header::{FrameHeader, PRELUDE_BYTES};
use crate::frame::{FrameError, Parts};
use crate::schema::{self, Column};

/// Columns that travel as differences, in the order of the prelude.
const DELTA_COLUMNS: [Column; 4] =
    [Column::Timestamp, Column::ObservedTimestamp, Column::PositionMajor, Column::PositionMinor];

const MESSAGE_BYTES: &str = "message_bytes";

/// Appends the payload of a batch to `out`.
pub(super) fn write(batch: &Batch, out: &mut Vec<u8>) -> Result<Parts, FrameError> {
    let mut fields = Vec::with_capacity(Column::ALL.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(Column::ALL.len());
    let mut bases = [0i64; DELTA_COLUMNS.len()];
    for column in Column::ALL {
        if column == Column::Tenant {
            continue;
        }
        let (name, array): (&str, ArrayRef) = match column {
            Column::Message => (MESSAGE_BYTES, message_lengths(batch.messages())),
            Column::Attributes | Column::Redactions => (column.name(), batch.column(column).clone()),
            Column::Timestamp | Column::ObservedTimestamp | Column::PositionMajor | Column::PositionMinor => {
                let numbers = numbers(batch.column(column))?;
                if let Some(index) = DELTA_COLUMNS.iter().position(|c| *c == column)
                    && let (Some(slot), Some(first)) = (bases.get_mut(index), numbers.first())
                {
                    *slot = *first;
                }
                (column.name(), narrow_differences(&numbers))
            }
            _ => {
                let (keys, values) = batch.dictionary_column(column)?;
                (column.name(), narrow_dictionary(keys, values)?)
            }
        };
        fields.push(Field::new(name, array.data_type().clone(), false));
        columns.push(array);
    }
    for base in bases {
        out.extend_from_slice(&base.to_le_bytes());
    }
    let columns_bytes = write_stream(Schema::new(fields), columns, out)?;
    let text = message_text(batch.messages());
    out.extend_from_slice(text);
    Ok(Parts { columns_bytes, text_bytes: text.len(), ends: Vec::new() })
}

/// Appends these columns as an Arrow stream of one record batch; gives its length.
pub(super) fn write_stream(
    schema: Schema,
    columns: Vec<ArrayRef>,
    out: &mut Vec<u8>,
) -> Result<usize, FrameError> {
    let start = out.len();
    let schema = Arc::new(schema);
    let records = RecordBatch::try_new(schema.clone(), columns)
        .map_err(|_| FrameError::Columns { what: "lengths differ" })?;
    let ipc = |_| FrameError::Columns { what: "arrow could not write them" };
    let options = IpcWriteOptions::try_new(8, false, arrow_ipc::MetadataVersion::V5).map_err(ipc)?;
    let mut writer = StreamWriter::try_new_with_options(&mut *out, &schema, options).map_err(ipc)?;
    writer.write(&records).map_err(ipc)?;
    writer.finish().map_err(ipc)?;
    drop(writer);
    Ok(out.len() - start)
}

/// The text of all messages: the part of the value buffer that the offsets span.
pub(super) fn message_text(messages: &StringArray) -> &[u8] {
    let bound = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
    let offsets = messages.value_offsets();
    messages.value_data().get(bound(offsets.first())..bound(offsets.last())).unwrap_or(&[])
}

fn message_lengths(messages: &StringArray) -> ArrayRef {
    let lengths: Vec<u32> = messages
        .value_offsets()
        .windows(2)
        .map(|pair| match pair {
            [start, end] => end.abs_diff(*start),
            _ => 0,
        })
        .collect();
    narrow_unsigned(&lengths)
}

/// Numbers in the narrowest type that holds all of them.
pub(super) fn narrow_unsigned(numbers: &[u32]) -> ArrayRef {
    match numbers.iter().max().copied().unwrap_or(0) {
        max if u8::try_from(max).is_ok() => cast_all::<u32, UInt8Type>(numbers),
        max if u16::try_from(max).is_ok() => cast_all::<u32, UInt16Type>(numbers),
        _ => cast_all::<u32, UInt32Type>(numbers),
    }
}

/// A timestamp or position column as 64-bit integers; positions keep their bits.
pub(super) fn numbers(column: &ArrayRef) -> Result<Vec<i64>, FrameError> {
    if let Some(times) = column.as_any().downcast_ref::<TimestampNanosecondArray>() {
        return Ok(times.values().to_vec());
    }
    let positions = column.as_any().downcast_ref::<UInt64Array>();
    let positions = positions.ok_or(FrameError::Columns { what: "a number column has another type" })?;
    Ok(positions.values().iter().map(|number| number.cast_signed()).collect())
}

/// Differences to the row before; the first is zero, its value stands in the prelude.
fn narrow_differences(numbers: &[i64]) -> ArrayRef {
    let mut before = numbers.first().copied().unwrap_or(0);
    let (mut low, mut high) = (0, 0);
    let differences: Vec<i64> = numbers
        .iter()
        .map(|number| {
            let difference = number.wrapping_sub(before);
            before = *number;
            low = low.min(difference);
            high = high.max(difference);
            difference
        })
        .collect();
    if i8::try_from(low).is_ok() && i8::try_from(high).is_ok() {
        cast_all::<i64, Int8Type>(&differences)
    } else if i16::try_from(low).is_ok() && i16::try_from(high).is_ok() {
        cast_all::<i64, Int16Type>(&differences)
    } else if i32::try_from(low).is_ok() && i32::try_from(high).is_ok() {
        cast_all::<i64, Int32Type>(&differences)
    } else {
        cast_all::<i64, Int64Type>(&differences)
    }
}

/// All numbers in a narrower type that the caller found wide enough.
fn cast_all<S: Copy, T: ArrowPrimitiveType>(numbers: &[S]) -> ArrayRef
where
    T::Native: TryFrom<S>,
{
    let cast = |number: &S| T::Native::try_from(*number).unwrap_or_default();
    Arc::new(PrimitiveArray::<T>::from_iter_values(numbers.iter().map(cast)))
}

pub(super) fn narrow_dictionary(keys: &Int32Array, values: &StringArray) -> Result<ArrayRef, FrameError> {
    let values: ArrayRef = Arc::new(values.clone());
    match values.len() {
        0..=127 => keyed::<Int8Type>(keys, values),
        128..=32_767 => keyed::<Int16Type>(keys, values),
        _ => keyed::<Int32Type>(keys, values),
    }
}

fn keyed<K: ArrowDictionaryKeyType>(keys: &Int32Array, values: ArrayRef) -> Result<ArrayRef, FrameError>
where
    K::Native: TryFrom<i32>,
{
    let cast = |key: &i32| K::Native::try_from(*key).unwrap_or_default();
    let keys = PrimitiveArray::<K>::from_iter_values(keys.values().iter().map(cast));
    let array = DictionaryArray::<K>::try_new(keys, values);
    Ok(Arc::new(array.map_err(|_| FrameError::Columns { what: "a dictionary key has no value" })?))
}

/// Rebuilds the batch from an inflated payload.
pub(super) fn read(inflated: Vec<u8>, header: &FrameHeader) -> Result<Batch, FrameError> {
    let rows = header.row_count as usize;
    let mut bases = [0i64; DELTA_COLUMNS.len()];
    for (base, bytes) in bases.iter_mut().zip(inflated.as_chunks::<8>().0) {
        *base = i64::from_le_bytes(*bytes);
    }
    let inflated = Buffer::from_vec(inflated);
    let columns = inflated.slice_with_length(PRELUDE_BYTES, header.columns_bytes as usize);
    let text =
        inflated.slice_with_length(PRELUDE_BYTES + header.columns_bytes as usize, header.text_bytes as usize);
    // The text outlives this call in the message column; copied, so that it does not keep the columns' bytes alive.
    let text = copied(&text);
    let records = read_stream(columns)?;
    if records.num_rows() != rows {
        return Err(FrameError::Columns { what: "another number of rows than announced" });
    }
    let mut rebuilt: Vec<ArrayRef> = Vec::with_capacity(Column::ALL.len());
    for (index, column) in Column::ALL.into_iter().enumerate().take(Column::ALL.len() - 1) {
        let name = if column == Column::Message { MESSAGE_BYTES } else { column.name() };
        let field = records.schema_ref().fields().get(index).map(|f| f.name().as_str());
        if field != Some(name) {
            return Err(FrameError::Columns { what: "a column is missing or misplaced" });
        }
        let array = records.column(index);
        if array.null_count() > 0 {
            return Err(FrameError::Columns { what: "a column holds nulls" });
        }
        let base = DELTA_COLUMNS.iter().position(|c| *c == column).and_then(|i| bases.get(i)).copied();
        rebuilt.push(rebuild(column, array, base.unwrap_or(0), &text)?);
    }
    let records = RecordBatch::try_new(schema::batch_schema(), rebuilt)
        .map_err(|_| FrameError::Columns { what: "a column has another type" })?;
    Ok(Batch::try_new(records, header.intervals.clone())?)
}

/// The same bytes in a buffer of their own.
pub(super) fn copied(bytes: &Buffer) -> Buffer {
    let mut buffer = MutableBuffer::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes.as_slice());
    buffer.into()
}

/// Reads an Arrow stream of one record batch.
pub(super) fn read_stream(stream: Buffer) -> Result<RecordBatch, FrameError> {
    // Arrow's reader trusts the stream's metadata in places and panics where it lies. The checksums make that an
    // attack, not an accident; it must end as a refused frame all the same.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_columns(stream)));
    decoded.map_err(|_| FrameError::Columns { what: "arrow's reader gave up" })?
}

fn decode_columns(mut columns: Buffer) -> Result<RecordBatch, FrameError> {
    let ipc = |_| FrameError::Columns { what: "not an arrow stream" };
    let mut decoder = StreamDecoder::new();
    let records = decoder.decode(&mut columns).map_err(ipc)?;
    let records = records.ok_or(FrameError::Columns { what: "no record batch" })?;
    if decoder.decode(&mut columns).map_err(ipc)?.is_some() {
        return Err(FrameError::Columns { what: "more than one record batch" });
    }
    decoder.finish().map_err(ipc)?;
    Ok(records)
}

fn rebuild(column: Column, array: &ArrayRef, base: i64, text: &Buffer) -> Result<ArrayRef, FrameError> {
    match column {
        Column::Timestamp | Column::ObservedTimestamp => Ok(times(widen(array, base)?)),
        Column::PositionMajor | Column::PositionMinor => Ok(positions(&widen(array, base)?)),
        Column::Message => messages(unsigned(array)?, text),
        Column::Attributes | Column::Redactions => Ok(array.clone()),
        _ => wide_dictionary(array),
    }
}

/// Sums the differences up.
fn widen(array: &ArrayRef, base: i64) -> Result<Vec<i64>, FrameError> {
    fn sums<T: ArrowPrimitiveType>(array: &ArrayRef, base: i64) -> Vec<i64>
    where
        T::Native: Into<i64>,
    {
        let mut sum = base;
        let add = |difference: &T::Native| {
            sum = sum.wrapping_add((*difference).into());
            sum
        };
        array.as_primitive::<T>().values().iter().map(add).collect()
    }
    match array.data_type() {
        DataType::Int8 => Ok(sums::<Int8Type>(array, base)),
        DataType::Int16 => Ok(sums::<Int16Type>(array, base)),
        DataType::Int32 => Ok(sums::<Int32Type>(array, base)),
        DataType::Int64 => Ok(sums::<Int64Type>(array, base)),
        _ => Err(FrameError::Columns { what: "a difference column has another type" }),
    }
}

pub(super) fn times(times: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"))
}

pub(super) fn positions(numbers: &[i64]) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(numbers.iter().map(|number| number.cast_unsigned())))
}

/// What [`narrow_unsigned`] made.
pub(super) fn unsigned(array: &ArrayRef) -> Result<Vec<u64>, FrameError> {
    fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<u64>
    where
        T::Native: Into<u64>,
    {
        array.as_primitive::<T>().values().iter().map(|number| (*number).into()).collect()
    }
    match array.data_type() {
        DataType::UInt8 => Ok(numbers::<UInt8Type>(array)),
        DataType::UInt16 => Ok(numbers::<UInt16Type>(array)),
        DataType::UInt32 => Ok(numbers::<UInt32Type>(array)),
        _ => Err(FrameError::Columns { what: "lengths of another type" }),
    }
}

/// Where parts of these lengths begin and end, which together have to be so long.
pub(super) fn offsets(lengths: &[u64], total: usize) -> Result<OffsetBuffer<i32>, FrameError> {
    let mut offsets: Vec<i32> = Vec::with_capacity(lengths.len() + 1);
    let mut end = 0u64;
    offsets.push(0);
    for length in lengths {
        end = end.saturating_add(*length);
        let offset = i32::try_from(end).map_err(|_| FrameError::Columns { what: "parts too long" })?;
        offsets.push(offset);
    }
    if end != total as u64 {
        return Err(FrameError::Length { what: "text or list", announced: end, found: total as u64 });
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

pub(super) fn messages(lengths: Vec<u64>, text: &Buffer) -> Result<ArrayRef, FrameError> {
    let array = StringArray::try_new(offsets(&lengths, text.len())?, text.clone(), None);
    Ok(Arc::new(array.map_err(|_| FrameError::Columns { what: "messages are not UTF-8" })?))
}

pub(super) fn wide_dictionary(array: &ArrayRef) -> Result<ArrayRef, FrameError> {
    fn keys<K: ArrowDictionaryKeyType>(array: &ArrayRef) -> Option<(Vec<i32>, ArrayRef)>
    where
        K::Native: Into<i32>,
    {
        let array = array.as_any().downcast_ref::<DictionaryArray<K>>()?;
        let keys = array.keys().values().iter().map(|key| (*key).into()).collect();
        Some((keys, array.values().clone()))
    }
    let misfit = || FrameError::Columns { what: "a text column is not a dictionary" };
    let parts = keys::<Int8Type>(array).or_else(|| keys::<Int16Type>(array));
    let (keys, values) = parts.or_else(|| keys::<Int32Type>(array)).ok_or_else(misfit)?;
    if values.data_type() != &DataType::Utf8 || values.null_count() > 0 {
        return Err(misfit());
    }
    let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), values);
    Ok(Arc::new(array.map_err(|_| misfit())?))
}
