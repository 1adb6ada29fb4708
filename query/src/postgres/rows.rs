//! Rows as the protocol has them, in text and in binary.
//!
//! Times have microseconds, as PostgreSQL's do: nanoseconds are cut off. Zones are UTC. Maps, structs and lists of them are JSON.

use beeacon_record::calendar::Date;
use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, FieldRef, IntervalUnit, SchemaRef, TimeUnit, TimestampNanosecondType,
};
use datafusion::arrow::error::ArrowError;

use super::message::{Field, Formats, close, count};
use crate::encode::json_texts;
use crate::engine::Transform;
use crate::error::{QueryError, Shown};
use crate::sql_type::{self, SqlType};

/// Days and microseconds from 1970 to 2000, where PostgreSQL's times begin.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_US: i64 = 946_684_800_000_000;

const DAY_US: i64 = 86_400_000_000;

/// The fields of an answer.
pub(crate) fn fields(schema: &SchemaRef, names: Option<&[String]>, formats: &Formats) -> Vec<Field> {
    let names = names.filter(|names| names.len() == schema.fields().len());
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        let (sql, is_array) = sql_type::of_arrow(field.data_type());
        Field {
            name: names.and_then(|names| names.get(index)).unwrap_or(field.name()).clone(),
            oid: if is_array { sql.array_oid } else { sql.oid },
            bytes: if is_array { -1 } else { sql.bytes },
            is_binary: formats.is_binary(index),
        }
    });
    fields.collect()
}

/// Rows as `DataRow` messages, and where each ends, so that a client can take some of them.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) ends: Vec<usize>,
}

/// Makes messages of batches, on the query threads.
pub(crate) struct RowWriter {
    formats: Formats,
    bytes: u64,
    bytes_max: u64,
}

impl RowWriter {
    pub(crate) fn new(formats: Formats, bytes_max: u64) -> Self {
        RowWriter { formats, bytes: 0, bytes_max }
    }
}

impl Transform for RowWriter {
    type Piece = Encoded;
    const SLICES: bool = true;

    fn rows(&mut self, rows: RecordBatch) -> Result<Encoded, QueryError> {
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, array)| {
            Column::new(field, array)
                .map_err(|error| QueryError::Format { shown: Shown::new(error.to_string()) })
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::with_capacity(rows.get_array_memory_size());
        let mut ends = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            out.push(b'D');
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&count(columns.len()));
            for (index, column) in columns.iter().enumerate() {
                column.put(row, self.formats.is_binary(index), &mut out);
            }
            close(&mut out, start);
            ends.push(out.len());
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        if self.bytes > self.bytes_max {
            return Err(QueryError::Bytes { bytes: self.bytes_max });
        }
        Ok(Encoded { bytes: Bytes::from(out), ends })
    }

    fn end(&mut self) -> Result<Option<Encoded>, QueryError> {
        Ok(None)
    }
}

/// A column in the form in which it is written.
enum Column {
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    /// A number in decimal digits.
    Numeric(StringArray),
    Text(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray, bool),
    Interval(IntervalMonthDayNanoArray),
    Json(StringArray),
    List(ListArray, Box<Column>, SqlType),
}

impl Column {
    fn new(field: &FieldRef, array: &ArrayRef) -> Result<Column, ArrowError> {
        let (sql, is_array) = sql_type::of_arrow(array.data_type());
        if is_array {
            let item = FieldRef::new(datafusion::arrow::datatypes::Field::new("item", DataType::Null, true));
            let to = match array.data_type() {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    DataType::List(item.clone())
                }
                other => other.clone(),
            };
            let lists = cast(array, &to)?.as_list::<i32>().clone();
            let items = Column::new(&item, lists.values())?;
            return Ok(Column::List(lists, Box::new(items), sql));
        }
        let to = |to: DataType| cast(array, &to);
        Ok(match sql {
            sql_type::BOOL => Column::Bool(to(DataType::Boolean)?.as_boolean().clone()),
            sql_type::INT2 => Column::Int2(to(DataType::Int16)?.as_primitive().clone()),
            sql_type::INT4 => Column::Int4(to(DataType::Int32)?.as_primitive().clone()),
            sql_type::INT8 => Column::Int8(to(DataType::Int64)?.as_primitive().clone()),
            sql_type::FLOAT4 => Column::Float4(to(DataType::Float32)?.as_primitive().clone()),
            sql_type::FLOAT8 => Column::Float8(to(DataType::Float64)?.as_primitive().clone()),
            sql_type::NUMERIC => Column::Numeric(to(DataType::Utf8)?.as_string().clone()),
            sql_type::BYTEA => Column::Bytes(to(DataType::Binary)?.as_binary().clone()),
            sql_type::DATE => Column::Date(to(DataType::Date32)?.as_primitive().clone()),
            sql_type::TIME => {
                Column::Time(to(DataType::Time64(TimeUnit::Microsecond))?.as_primitive().clone())
            }
            sql_type::TIMESTAMP | sql_type::TIMESTAMPTZ => {
                // Nanoseconds are cut off downwards, also before 1970, where a cast would cut them off upwards.
                let us = match array.data_type() {
                    DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                        let ns = array.as_primitive::<TimestampNanosecondType>();
                        ns.unary(|ns| ns.div_euclid(1_000))
                    }
                    other => {
                        to(DataType::Timestamp(TimeUnit::Microsecond, zone(other)))?.as_primitive().clone()
                    }
                };
                Column::Timestamp(us, sql == sql_type::TIMESTAMPTZ)
            }
            sql_type::INTERVAL => {
                let plain = match array.data_type() {
                    DataType::Duration(_) => {
                        let plain = to(DataType::Duration(TimeUnit::Nanosecond))?;
                        cast(&plain, &DataType::Interval(IntervalUnit::MonthDayNano))?
                    }
                    _ => to(DataType::Interval(IntervalUnit::MonthDayNano))?,
                };
                Column::Interval(plain.as_primitive().clone())
            }
            sql_type::JSON => Column::Json(json_texts(field, array)?),
            _ if array.data_type() == &DataType::Null => Column::Null,
            _ => Column::Text(to(DataType::Utf8)?.as_string().clone()),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        let array: &dyn Array = match self {
            Column::Null => return true,
            Column::Bool(array) => array,
            Column::Int2(array) => array,
            Column::Int4(array) => array,
            Column::Int8(array) => array,
            Column::Float4(array) => array,
            Column::Float8(array) => array,
            Column::Numeric(array) | Column::Text(array) | Column::Json(array) => array,
            Column::Bytes(array) => array,
            Column::Date(array) => array,
            Column::Time(array) => array,
            Column::Timestamp(array, _) => array,
            Column::Interval(array) => array,
            Column::List(array, ..) => array,
        };
        array.is_null(row)
    }

    /// The value with its length before it.
    fn put(&self, row: usize, is_binary: bool, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return;
        }
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if is_binary {
            self.binary(row, out);
        } else {
            self.text(row, out);
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn text(&self, row: usize, out: &mut Vec<u8>) {
        let shown = match self {
            Column::Null => return,
            Column::Text(array) | Column::Numeric(array) | Column::Json(array) => {
                // A text of PostgreSQL has no zero byte, and clients take it for the end.
                out.extend(array.value(row).bytes().filter(|byte| *byte != 0));
                return;
            }
            Column::Bool(array) => if array.value(row) { "t" } else { "f" }.to_owned(),
            Column::Int2(array) => array.value(row).to_string(),
            Column::Int4(array) => array.value(row).to_string(),
            Column::Int8(array) => array.value(row).to_string(),
            Column::Float4(array) => real(f64::from(array.value(row)), &array.value(row).to_string()),
            Column::Float8(array) => real(array.value(row), &array.value(row).to_string()),
            Column::Bytes(array) => {
                let digits = array.value(row).iter().map(|byte| format!("{byte:02x}"));
                format!("\\x{}", digits.collect::<String>())
            }
            Column::Date(array) => date(i64::from(array.value(row))),
            Column::Time(array) => time(array.value(row)),
            Column::Timestamp(array, zoned) => {
                let us = array.value(row);
                let zone = if *zoned { "+00" } else { "" };
                format!("{} {}{zone}", date(us.div_euclid(DAY_US)), time(us.rem_euclid(DAY_US)))
            }
            Column::Interval(array) => {
                let value = array.value(row);
                interval(value.months, value.days, value.nanoseconds / 1_000)
            }
            Column::List(lists, items, _) => {
                let (from, to) = range(lists, row);
                out.push(b'{');
                for index in from..to {
                    if index > from {
                        out.push(b',');
                    }
                    if items.is_null(index) {
                        out.extend_from_slice(b"NULL");
                        continue;
                    }
                    let mut item = Vec::new();
                    items.text(index, &mut item);
                    quoted(&item, out);
                }
                out.push(b'}');
                return;
            }
        };
        out.extend_from_slice(shown.as_bytes());
    }

    fn binary(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Null => {}
            Column::Text(_) | Column::Json(_) => self.text(row, out),
            Column::Bool(array) => out.push(u8::from(array.value(row))),
            Column::Int2(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Int4(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Int8(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Float4(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Float8(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Numeric(array) => numeric(array.value(row), out),
            Column::Bytes(array) => out.extend_from_slice(array.value(row)),
            Column::Date(array) => {
                out.extend_from_slice(&array.value(row).saturating_sub(EPOCH_DAYS).to_be_bytes());
            }
            Column::Time(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Column::Timestamp(array, _) => {
                out.extend_from_slice(&array.value(row).saturating_sub(EPOCH_US).to_be_bytes());
            }
            Column::Interval(array) => {
                let value = array.value(row);
                out.extend_from_slice(&(value.nanoseconds / 1_000).to_be_bytes());
                out.extend_from_slice(&value.days.to_be_bytes());
                out.extend_from_slice(&value.months.to_be_bytes());
            }
            Column::List(lists, items, sql) => {
                let (from, to) = range(lists, row);
                let has_null = (from..to).any(|index| items.is_null(index));
                let length = i32::try_from(to - from).unwrap_or(i32::MAX);
                out.extend_from_slice(&i32::from(length > 0).to_be_bytes());
                out.extend_from_slice(&i32::from(has_null).to_be_bytes());
                out.extend_from_slice(&sql.oid.to_be_bytes());
                if length > 0 {
                    out.extend_from_slice(&length.to_be_bytes());
                    out.extend_from_slice(&1_i32.to_be_bytes());
                }
                (from..to).for_each(|index| items.put(index, true, out));
            }
        }
    }
}

fn zone(data_type: &DataType) -> Option<std::sync::Arc<str>> {
    match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

fn range(lists: &ListArray, row: usize) -> (usize, usize) {
    let at = |row: usize| {
        lists.value_offsets().get(row).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0)
    };
    (at(row), at(row + 1))
}

/// A floating-point number as PostgreSQL writes it: `Infinity`, `NaN`, and an exponent where the digits would be many.
fn real(value: f64, shortest: &str) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value != 0.0 && !(1e-5..1e15).contains(&value.abs()) {
        return format!("{value:e}");
    }
    shortest.to_owned()
}

/// A day, counted from 1970, as `2026-01-05`.
fn date(days: i64) -> String {
    let Date { year, month, day } = Date::of_day(days);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

/// Microseconds of a day as `12:00:00.5`, without zeros at the end.
fn time(us: i64) -> String {
    let seconds = us / 1_000_000;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = us % 1_000_000;
    if fraction > 0 {
        let digits = format!(".{fraction:06}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// An interval as PostgreSQL writes it: `1 mon 2 days 03:00:00`.
fn interval(months: i32, days: i32, us: i64) -> String {
    let mut parts = Vec::new();
    let mut part = |amount: i32, one: &str, many: &str| {
        if amount != 0 {
            parts.push(format!("{amount} {}", if amount == 1 { one } else { many }));
        }
    };
    part(months / 12, "year", "years");
    part(months % 12, "mon", "mons");
    part(days, "day", "days");
    if us != 0 || parts.is_empty() {
        let sign = if us < 0 { "-" } else { "" };
        parts.push(format!("{sign}{}", time(us.saturating_abs())));
    }
    parts.join(" ")
}

/// An item of an array, quoted where its text would be taken for something else.
fn quoted(item: &[u8], out: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace();
    if !item.is_empty() && !item.iter().any(special) && !item.eq_ignore_ascii_case(b"null") {
        out.extend_from_slice(item);
        return;
    }
    out.push(b'"');
    for byte in item {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Decimal digits as groups of four: the binary form of `numeric`.
fn numeric(text: &str, out: &mut Vec<u8>) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.trim_start_matches('0');
    let scale = u16::try_from(fraction.len()).unwrap_or(u16::MAX);
    // Both sides of the point are filled up to whole groups.
    let filled = format!(
        "{:0>width$}{:0<after$}",
        whole,
        fraction,
        width = whole.len().div_ceil(4) * 4,
        after = fraction.len().div_ceil(4) * 4
    );
    let group = |digits: &[u8]| {
        digits.iter().fold(0_i16, |sum, digit| sum * 10 + i16::from(digit.saturating_sub(b'0')))
    };
    let mut groups: Vec<i16> = filled.as_bytes().chunks(4).map(group).collect();
    let mut weight = i16::try_from(whole.len().div_ceil(4)).unwrap_or(i16::MAX) - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= i16::try_from(zeros).unwrap_or(0);
    if groups.is_empty() {
        weight = 0;
    }
    out.extend_from_slice(&count(groups.len()));
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&(if negative && !groups.is_empty() { 0x4000_u16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

/// The reverse of [`numeric`].
pub(crate) fn numeric_text(bytes: &[u8]) -> Option<String> {
    let mut numbers = bytes.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let mut next = || numbers.next().flatten();
    let (groups, weight, sign, scale) = (next()?, next()?.cast_signed(), next()?, usize::from(next()?));
    let digits: Option<Vec<u16>> = (0..groups).map(|_| next()).collect();
    let digits = digits?;
    if sign & !0x4000 != 0 || digits.iter().any(|group| *group > 9_999) {
        return None;
    }
    let at =
        |place: i32| usize::try_from(place).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    if !(-1_000..1_000).contains(&weight) || scale > 1_000 {
        return None;
    }
    let whole: String =
        (0..=weight.max(0)).map(|place| format!("{:04}", if weight < 0 { 0 } else { at(place) })).collect();
    let whole = whole.trim_start_matches('0');
    let groups_after = i32::try_from(scale.div_ceil(4)).ok()?;
    let fraction: String = (1..=groups_after).map(|place| format!("{:04}", at(weight + place))).collect();
    let fraction: String = fraction.chars().take(scale).collect();
    let sign = if sign == 0x4000 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
    use datafusion::arrow::array::{Decimal128Array, TimestampNanosecondArray, UInt64Array};
    use datafusion::arrow::datatypes::Field;

    use super::*;

    fn shown(array: ArrayRef) -> Vec<String> {
        let field = Arc::new(Field::new("c", array.data_type().clone(), true));
        let column = Column::new(&field, &array).unwrap();
        let text = |row| {
            let mut out = Vec::new();
            column.text(row, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..array.len()).map(text).collect()
    }

    #[test]
    fn times_are_written_as_postgresql_does() {
        let zoned =
            TimestampNanosecondArray::from(vec![1_767_614_400_123_456_789, -1, 951_782_400_000_000_000]);
        assert_eq!(
            shown(Arc::new(zoned.with_timezone("UTC"))),
            ["2026-01-05 12:00:00.123456+00", "1969-12-31 23:59:59.999999+00", "2000-02-29 00:00:00+00"]
        );
        assert_eq!(
            shown(Arc::new(Date32Array::from(vec![0, 19_782, -719_529]))),
            ["1970-01-01", "2024-02-29", "0002-12-31 BC"]
        );
        assert_eq!(interval(14, 1, 10_800_000_000), "1 year 2 mons 1 day 03:00:00");
        assert_eq!(interval(0, 0, 0), "00:00:00");
        assert_eq!(interval(0, 0, -500_000), "-00:00:00.5");
    }

    #[test]
    fn numbers_are_written_as_postgresql_does() {
        let reals = Float64Array::from(vec![1.5, 1e300, f64::INFINITY, f64::NAN, 0.0, 1e-7, 100_000.0]);
        assert_eq!(shown(Arc::new(reals)), ["1.5", "1e300", "Infinity", "NaN", "0", "1e-7", "100000"]);
        assert_eq!(shown(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
        let decimals = Decimal128Array::from(vec![-12_345_i128]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(shown(Arc::new(decimals)), ["-123.45"]);
    }

    #[test]
    fn a_numeric_survives_its_binary_form() {
        let table = [
            "0",
            "1",
            "-1",
            "9999",
            "10000",
            "18446744073709551615",
            "123.45",
            "-0.0001",
            "0.00001",
            "100000000.5",
        ];
        for text in table {
            let mut bytes = Vec::new();
            numeric(text, &mut bytes);
            assert_eq!(numeric_text(&bytes).as_deref(), Some(text));
        }
        let mut bytes = Vec::new();
        numeric("12345.678", &mut bytes);
        assert_eq!(bytes, [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 9, 41, 26, 124], "1, 2345, 6780");
        assert_eq!(numeric_text(&[0, 1]), None);
    }

    #[test]
    fn arrays_quote_what_would_be_mistaken() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for item in [Some("a"), Some(""), None, Some("null"), Some("a,\"b\\"), Some("ü ")] {
            lists.values().append_option(item);
        }
        lists.append(true);
        lists.append(true);
        assert_eq!(shown(Arc::new(lists.finish())), [r#"{a,"",NULL,"null","a,\"b\\","ü "}"#, "{}"]);
    }

    #[test]
    fn a_row_has_a_length_for_every_value_and_minus_one_for_null() {
        let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("b", DataType::Utf8, true),
        ]));
        let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None]));
        let b: ArrayRef = Arc::new(StringArray::from(vec!["x\0y", ""]));
        let batch = RecordBatch::try_new(schema, vec![a, b]).unwrap();
        let encoded = RowWriter::new(Formats::default(), 1_000).rows(batch.clone()).unwrap();
        assert_eq!(
            &encoded.bytes[..],
            b"D\0\0\0\x11\0\x02\0\0\0\x017\0\0\0\x02xyD\0\0\0\x0e\0\x02\xff\xff\xff\xff\0\0\0\0"
        );
        assert_eq!(encoded.ends, [18, 33]);
        assert!(matches!(RowWriter::new(Formats::default(), 10).rows(batch), Err(QueryError::Bytes { .. })));
    }
}
