//! Version 2 of the payload: what is the same in every row is said once, numbers are told apart by their bytes, and the text is left
//! alone.
//!
//! Random digits next to others that hardly change spoil each other's compression: the lowest byte of a nanosecond never repeats, the
//! highest always does. So a column of numbers is written as its lowest bytes, then the next ones, and each such plane is compressed by
//! itself. Numbers that follow from others are written as the difference to what was expected: a record of a json-file begins where
//! the one before ended, which is behind its text and a few bytes around it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array,
};
use arrow_buffer::Buffer;
use arrow_schema::{Field, Schema};

use super::v1;
use crate::batch::{Batch, attributes_array, empty_redactions};
use crate::frame::header::FrameHeader;
use crate::frame::{FrameError, Parts};
use crate::limits::FRAME_INFLATED_BYTES_MAX;
use crate::schema::{self, Column};

/// Two lengths, six columns of numbers, and zeros up to a multiple of eight.
const HEAD_BYTES: usize = 8 + NUMBERS * NUMBER_BYTES + 4;

/// How many columns of numbers there are.
const NUMBERS: usize = 6;

/// Width, what was taken off, the first number.
const NUMBER_BYTES: usize = 10;

/// From how many rows on the planes are compressed one by one; below that it would cost more than it gives.
const ROWS_APART: usize = 256;

const COUNT: &str = "count";
const RULE: &str = "rule";

/// A column of numbers as it is written.
struct Numbers {
    /// How many planes.
    width: u8,
    /// Whether each is less what was expected of it.
    is_less: bool,
    /// The first row's number, for those written as differences.
    first: u64,
    /// What the planes hold.
    residues: Vec<u64>,
}

/// Appends the payload of a batch to `out`.
pub(super) fn write(batch: &Batch, out: &mut Vec<u8>) -> Result<Parts, FrameError> {
    let start = out.len();
    let redacted = counts(batch.redactions());
    let lengths = lengths(batch.messages());
    let times = v1::numbers(batch.column(Column::Timestamp))?;
    let majors = v1::numbers(batch.column(Column::PositionMajor))?;
    let minors = v1::numbers(batch.column(Column::PositionMinor))?;
    let numbers: [Numbers; NUMBERS] = [
        Numbers::differences(&times, None),
        Numbers::differences(&v1::numbers(batch.column(Column::ObservedTimestamp))?, None),
        Numbers::majors(&majors, &times),
        Numbers::minors(&minors, &lengths),
        Numbers::plain(lengths),
        Numbers::plain(redacted),
    ];
    out.resize(start + HEAD_BYTES, 0);
    let rows_bytes = write_rows(batch, out)?;
    let redactions_bytes = write_redactions(batch.redactions(), out)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&length(rows_bytes)?.to_le_bytes());
    head.extend_from_slice(&length(redactions_bytes)?.to_le_bytes());
    for column in &numbers {
        head.extend_from_slice(&[column.width, u8::from(column.is_less)]);
        head.extend_from_slice(&column.first.to_le_bytes());
    }
    if let Some(slot) = out.get_mut(start..start + head.len()) {
        slot.copy_from_slice(&head);
    }
    let mut ends = Vec::new();
    let is_apart = batch.rows() >= ROWS_APART;
    for column in &numbers {
        for plane in 0..column.width {
            if is_apart {
                ends.push(out.len());
            }
            let shift = 8 * u32::from(plane);
            out.extend(column.residues.iter().map(|residue| (residue >> shift & 0xff) as u8));
        }
    }
    let columns_bytes = out.len() - start;
    if is_apart {
        ends.push(out.len());
    }
    let text = v1::message_text(batch.messages());
    out.extend_from_slice(text);
    Ok(Parts { columns_bytes, text_bytes: text.len(), ends })
}

/// The dictionaries and the attributes as an Arrow stream; gives its length. What is the same in every row stands in the metadata of
/// the schema, for a column of it would be written and read row by row.
fn write_rows(batch: &Batch, out: &mut Vec<u8>) -> Result<usize, FrameError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut constants = HashMap::new();
    for column in Column::ALL {
        let (name, array) = match column {
            Column::Timestamp
            | Column::ObservedTimestamp
            | Column::PositionMajor
            | Column::PositionMinor
            | Column::Message
            | Column::Redactions
            | Column::Tenant => continue,
            Column::Attributes if batch.attributes().values().is_empty() => continue,
            Column::Attributes => (column.name(), batch.column(column).clone()),
            _ => {
                let (keys, values) = batch.dictionary_column(column)?;
                // The level stays, so that the stream has a column.
                if column != Column::Level
                    && let Some(constant) = constant(keys, values)
                {
                    constants.insert(column.name().to_owned(), constant.to_owned());
                    continue;
                }
                (column.name(), v1::narrow_dictionary(keys, values)?)
            }
        };
        fields.push(Field::new(name, array.data_type().clone(), false));
        columns.push(array);
    }
    v1::write_stream(Schema::new_with_metadata(fields, constants), columns, out)
}

/// The value that all rows have, if there are any.
fn constant<'a>(keys: &Int32Array, values: &'a StringArray) -> Option<&'a str> {
    let first = keys.values().first()?;
    if keys.values().iter().any(|key| key != first) {
        return None;
    }
    values.iter().nth(usize::try_from(*first).ok()?)?
}

/// The items of the redactions, one row each, as an Arrow stream; gives its length, 0 without any.
fn write_redactions(redactions: &ListArray, out: &mut Vec<u8>) -> Result<usize, FrameError> {
    let bound = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
    let offsets = redactions.value_offsets();
    let (start, end) = (bound(offsets.first()), bound(offsets.last()));
    if start >= end {
        return Ok(0);
    }
    let items = redactions.values().slice(start, end - start);
    let misfit = || FrameError::Columns { what: "redactions of another type" };
    let items = items.as_struct_opt().ok_or_else(misfit)?;
    let rules = items.column_by_name(RULE).and_then(|rules| rules.as_string_opt::<i32>());
    let counts = items.column_by_name(COUNT).and_then(|counts| counts.as_primitive_opt::<UInt32Type>());
    let (rules, counts) = (rules.ok_or_else(misfit)?, counts.ok_or_else(misfit)?);
    let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
    rules.iter().for_each(|rule| dictionary.append_value(rule.unwrap_or_default()));
    let dictionary = dictionary.finish();
    let names = dictionary.values().as_string_opt::<i32>().ok_or_else(misfit)?;
    let rules = v1::narrow_dictionary(dictionary.keys(), names)?;
    let counts = v1::narrow_unsigned(counts.values());
    let fields = vec![
        Field::new(RULE, rules.data_type().clone(), false),
        Field::new(COUNT, counts.data_type().clone(), false),
    ];
    v1::write_stream(Schema::new(fields), vec![rules, counts], out)
}

fn length(bytes: usize) -> Result<u32, FrameError> {
    crate::frame::header::length(bytes, "columns")
}

/// How many items each row's list has.
fn counts(lists: &ListArray) -> Vec<u64> {
    spans(lists.value_offsets())
}

fn lengths(messages: &StringArray) -> Vec<u64> {
    spans(messages.value_offsets())
}

fn spans(offsets: &[i32]) -> Vec<u64> {
    let starts = offsets.iter();
    let ends = offsets.iter().skip(1);
    starts.zip(ends).map(|(start, end)| u64::from(end.abs_diff(*start))).collect()
}

impl Numbers {
    fn new(is_less: bool, first: u64, residues: Vec<u64>) -> Self {
        let all = residues.iter().fold(0, |all, residue| all | residue);
        let width = 8 - all.leading_zeros() / 8;
        // At most eight.
        Numbers { width: width as u8, is_less, first, residues }
    }

    /// As they are.
    fn plain(residues: Vec<u64>) -> Self {
        Numbers::new(false, 0, residues)
    }

    /// Each less the one before, and less what is expected of that difference.
    fn differences(numbers: &[i64], expected: Option<&[i64]>) -> Self {
        let first = numbers.first().copied().unwrap_or(0).cast_unsigned();
        let mut residues = Vec::with_capacity(numbers.len());
        residues.extend(numbers.first().map(|_| 0));
        let differences =
            numbers.iter().zip(numbers.iter().skip(1)).map(|(one, next)| next.wrapping_sub(*one));
        match expected {
            None => residues.extend(differences.map(folded)),
            Some(expected) => residues
                .extend(differences.zip(expected).map(|(number, less)| folded(number.wrapping_sub(*less)))),
        }
        Numbers::new(expected.is_some(), first, residues)
    }

    /// What is read through Docker's API stands where its time says.
    fn majors(majors: &[i64], times: &[i64]) -> Self {
        let steps: Vec<i64> = steps(times);
        let moves = majors.iter().zip(majors.iter().skip(1)).zip(&steps);
        let (mut alone, mut beside) = (0, 0);
        for ((one, next), step) in moves {
            let difference = next.wrapping_sub(*one);
            alone += usize::from(difference != 0);
            beside += usize::from(difference != *step);
        }
        Numbers::differences(majors, (beside < alone).then_some(steps.as_slice()))
    }

    /// What is read from a file stands behind the text of the line before.
    fn minors(minors: &[i64], lengths: &[u64]) -> Self {
        let lengths: Vec<i64> = lengths.iter().map(|length| length.cast_signed()).collect();
        let moves = minors.iter().zip(minors.iter().skip(1)).zip(&lengths);
        let is_behind = |((one, next), length): &((&i64, &i64), &i64)| next.wrapping_sub(**one) > **length;
        let behind = moves.filter(is_behind).count();
        Numbers::differences(minors, (behind > minors.len() / 2).then_some(lengths.as_slice()))
    }

    /// The numbers that were written as differences.
    fn sums(&self, expected: &[i64]) -> Vec<i64> {
        let mut sum = self.first.cast_signed();
        let mut sums = Vec::with_capacity(self.residues.len());
        sums.extend(self.residues.first().map(|_| sum));
        let differences = self.residues.iter().skip(1).map(|residue| unfolded(*residue));
        let mut add = |difference: i64| {
            sum = sum.wrapping_add(difference);
            sum
        };
        if self.is_less {
            sums.extend(differences.zip(expected).map(|(number, more)| add(number.wrapping_add(*more))));
        } else {
            sums.extend(differences.map(add));
        }
        sums
    }
}

/// What each number is more than the one before.
fn steps(numbers: &[i64]) -> Vec<i64> {
    numbers.iter().zip(numbers.iter().skip(1)).map(|(one, next)| next.wrapping_sub(*one)).collect()
}

/// Small numbers of either sign as small numbers: 0, -1, 1, -2, …
fn folded(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn unfolded(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Rebuilds the batch from an inflated payload.
pub(super) fn read(inflated: Vec<u8>, header: &FrameHeader) -> Result<Batch, FrameError> {
    let rows = header.row_count as usize;
    let columns_bytes = header.columns_bytes as usize;
    let short = || FrameError::Truncated { what: "columns" };
    let columns = inflated.get(..columns_bytes).ok_or_else(short)?;
    let (head, rest) = columns.split_at_checked(HEAD_BYTES).ok_or_else(short)?;
    let (lengths, head) = head.split_at_checked(8).ok_or_else(short)?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let [rows_bytes, redactions_bytes] = *lengths else { return Err(short()) };
    let rows_bytes = u32::from_le_bytes(rows_bytes) as usize;
    let redactions_bytes = u32::from_le_bytes(redactions_bytes) as usize;
    let (heads, zeros) = head.as_chunks::<NUMBER_BYTES>();
    if zeros != [0; 4] {
        return Err(FrameError::Columns { what: "reserved bytes are not zero" });
    }
    let mut planes = rest.get(rows_bytes.saturating_add(redactions_bytes)..).ok_or_else(short)?;
    let mut numbers = Vec::with_capacity(NUMBERS);
    for head in heads {
        numbers.push(read_numbers(head, rows, &mut planes)?);
    }
    if !planes.is_empty() {
        return Err(FrameError::Columns { what: "more bytes than the columns have" });
    }
    let Ok([times, observed, majors, minors, lengths, counts]) = <[Numbers; NUMBERS]>::try_from(numbers)
    else {
        return Err(short());
    };
    let times = times.sums(&[]);
    let majors = majors.sums(&steps(&times));
    // Longer ones than fit are refused with the messages below.
    let behind: Vec<i64> = lengths.residues.iter().map(|length| length.cast_signed()).collect();
    let minors = minors.sums(&behind);
    let inflated = Buffer::from_vec(inflated);
    let text = inflated.slice_with_length(columns_bytes, header.text_bytes as usize);
    // The text outlives this call in the message column; copied, so that it does not keep the columns' bytes alive.
    let messages = v1::messages(lengths.residues, &v1::copied(&text))?;
    let redactions = inflated.slice_with_length(HEAD_BYTES + rows_bytes, redactions_bytes);
    let redactions = read_redactions(redactions, &counts.residues)?;
    let records = v1::read_stream(inflated.slice_with_length(HEAD_BYTES, rows_bytes))?;
    let constants = records.schema_ref().metadata();
    let mut rebuilt: Vec<ArrayRef> = Vec::with_capacity(Column::ALL.len());
    let mut taken = 0;
    for column in Column::ALL.into_iter().take(Column::ALL.len() - 1) {
        let array: ArrayRef = match column {
            Column::Timestamp => v1::times(times.clone()),
            Column::ObservedTimestamp => v1::times(observed.sums(&[])),
            Column::PositionMajor => v1::positions(&majors),
            Column::PositionMinor => v1::positions(&minors),
            Column::Message => messages.clone(),
            Column::Redactions => redactions.clone(),
            _ => match records.column_by_name(column.name()) {
                Some(array) if array.null_count() > 0 => {
                    return Err(FrameError::Columns { what: "a column holds nulls" });
                }
                Some(array) => {
                    taken += 1;
                    if column == Column::Attributes { array.clone() } else { v1::wide_dictionary(array)? }
                }
                None if column == Column::Attributes => Arc::new(attributes_array(rows, &[])?),
                None => repeated(constants.get(column.name()), rows)?,
            },
        };
        rebuilt.push(array);
    }
    if taken != records.num_columns() {
        return Err(FrameError::Columns { what: "a column is unknown or stands there twice" });
    }
    let records = RecordBatch::try_new(schema::batch_schema(), rebuilt)
        .map_err(|_| FrameError::Columns { what: "a column has another type or length" })?;
    Ok(Batch::try_new(records, header.intervals.clone())?)
}

/// Takes a column's planes from the front.
fn read_numbers(head: &[u8; NUMBER_BYTES], rows: usize, planes: &mut &[u8]) -> Result<Numbers, FrameError> {
    let [width, less, first @ ..] = *head;
    if width > 8 || less > 1 {
        return Err(FrameError::Columns { what: "numbers of no known form" });
    }
    let bytes = usize::from(width) * rows;
    let (mine, rest) = planes.split_at_checked(bytes).ok_or(FrameError::Truncated { what: "columns" })?;
    *planes = rest;
    let mut residues = vec![0u64; rows];
    for (index, plane) in mine.chunks_exact(rows.max(1)).enumerate() {
        for (residue, byte) in residues.iter_mut().zip(plane) {
            *residue |= u64::from(*byte) << (8 * index);
        }
    }
    Ok(Numbers { width, is_less: less == 1, first: u64::from_le_bytes(first), residues })
}

/// A dictionary whose one value all rows have.
fn repeated(value: Option<&String>, rows: usize) -> Result<ArrayRef, FrameError> {
    let value = value.ok_or(FrameError::Columns { what: "a column is missing" })?;
    let values: ArrayRef = Arc::new(StringArray::from_iter_values([value]));
    let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; rows]), values);
    Ok(Arc::new(array.map_err(|_| FrameError::Columns { what: "a column is missing" })?))
}

fn read_redactions(stream: Buffer, counts: &[u64]) -> Result<ArrayRef, FrameError> {
    if stream.is_empty() {
        if counts.iter().any(|count| *count > 0) {
            return Err(FrameError::Columns { what: "redactions are missing" });
        }
        return Ok(Arc::new(empty_redactions(counts.len())?));
    }
    let misfit = || FrameError::Columns { what: "redactions of another type" };
    let records = v1::read_stream(stream)?;
    let column = |name| records.column_by_name(name).filter(|array| array.null_count() == 0);
    let (rules, found) = column(RULE).zip(column(COUNT)).ok_or_else(misfit)?;
    let rules = v1::wide_dictionary(rules)?;
    let rules = rules.as_dictionary_opt::<Int32Type>().ok_or_else(misfit)?;
    let names = rules.values().as_string_opt::<i32>().ok_or_else(misfit)?;
    let name =
        |key: &i32| usize::try_from(*key).ok().filter(|key| *key < names.len()).map(|key| names.value(key));
    // A long name that many rows share would become large.
    let bytes: usize = rules.keys().values().iter().filter_map(name).map(str::len).sum();
    if bytes > FRAME_INFLATED_BYTES_MAX {
        return Err(FrameError::Columns { what: "names of rules are too long" });
    }
    let rules = StringArray::from_iter_values(rules.keys().values().iter().filter_map(name));
    let found = v1::unsigned(found)?.into_iter().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    let found = UInt32Array::from_iter_values(found);
    let columns: Vec<ArrayRef> = vec![Arc::new(rules), Arc::new(found)];
    let items = StructArray::try_new(schema::redaction_fields(), columns, None).map_err(|_| misfit())?;
    let offsets = v1::offsets(counts, items.len())?;
    let array = ListArray::try_new(Arc::new(schema::redactions_item()), offsets, Arc::new(items), None);
    Ok(Arc::new(array.map_err(|_| misfit())?))
}
