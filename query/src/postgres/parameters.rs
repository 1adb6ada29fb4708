//! The values of parameters, as clients send them.

use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

use super::message::Bind;
use super::rows::{EPOCH_DAYS, EPOCH_US, numeric_text};
use crate::sql_type::{self, SqlType};

/// A value that does not fit its type; it says which parameter, never what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter ${place} is no {wanted}")]
pub(crate) struct Misfit {
    pub(crate) place: usize,
    pub(crate) wanted: &'static str,
}

/// The values of a bind, for parameters of these types.
pub(crate) fn values(bind: &Bind, types: &[u32]) -> Result<Vec<ScalarValue>, Misfit> {
    let values = bind.parameters.iter().zip(types).enumerate().map(|(index, (value, oid))| {
        let sql = sql_type::by_oid(*oid).unwrap_or(sql_type::TEXT);
        let Some(bytes) = value else {
            return Ok(ScalarValue::try_from(&sql_type::to_arrow(*oid)).unwrap_or(ScalarValue::Null));
        };
        let value =
            if bind.parameter_formats.is_binary(index) { binary(bytes, sql) } else { text(bytes, sql) };
        value.ok_or(Misfit { place: index + 1, wanted: sql.sql_name })
    });
    values.collect()
}

fn text(bytes: &[u8], sql: SqlType) -> Option<ScalarValue> {
    let text = std::str::from_utf8(bytes).ok()?;
    match sql {
        sql_type::NUMERIC => numeric(text),
        sql_type::BYTEA => Some(ScalarValue::Binary(Some(unhex(text)?))),
        sql_type::BOOL => Some(ScalarValue::Boolean(Some(match text.to_ascii_lowercase().as_str() {
            "t" | "true" | "on" | "yes" | "1" => true,
            "f" | "false" | "off" | "no" | "0" => false,
            _ => return None,
        }))),
        _ => match sql_type::to_arrow(sql.oid) {
            DataType::Utf8 => Some(ScalarValue::from(text)),
            arrow => {
                let value = ScalarValue::try_from_string(text.trim().to_owned(), &arrow).ok()?;
                // What cannot be read comes as null.
                (!value.is_null()).then_some(value)
            }
        },
    }
}

fn binary(bytes: &[u8], sql: SqlType) -> Option<ScalarValue> {
    Some(match sql {
        sql_type::BOOL => match bytes {
            [flag] => ScalarValue::Boolean(Some(*flag != 0)),
            _ => return None,
        },
        sql_type::INT2 => ScalarValue::Int16(Some(i16::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::INT4 => ScalarValue::Int32(Some(i32::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::INT8 => ScalarValue::Int64(Some(i64::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::OID => ScalarValue::Int64(Some(i64::from(u32::from_be_bytes(bytes.try_into().ok()?)))),
        sql_type::FLOAT4 => ScalarValue::Float32(Some(f32::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::FLOAT8 => ScalarValue::Float64(Some(f64::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::NUMERIC => return numeric(&numeric_text(bytes)?),
        sql_type::BYTEA => ScalarValue::Binary(Some(bytes.to_vec())),
        sql_type::DATE => {
            let days = i32::from_be_bytes(bytes.try_into().ok()?);
            ScalarValue::Date32(Some(days.checked_add(EPOCH_DAYS)?))
        }
        sql_type::TIME => ScalarValue::Time64Microsecond(Some(i64::from_be_bytes(bytes.try_into().ok()?))),
        sql_type::TIMESTAMP | sql_type::TIMESTAMPTZ => {
            let us = i64::from_be_bytes(bytes.try_into().ok()?);
            let ns = us.checked_add(EPOCH_US)?.checked_mul(1_000)?;
            let zone = (sql == sql_type::TIMESTAMPTZ).then(|| "UTC".into());
            ScalarValue::TimestampNanosecond(Some(ns), zone)
        }
        sql_type::INTERVAL => {
            let (us, rest) = bytes.split_first_chunk::<8>()?;
            let (days, months) = rest.split_first_chunk::<4>()?;
            let ns = i64::from_be_bytes(*us).checked_mul(1_000)?;
            let months = i32::from_be_bytes(months.try_into().ok()?);
            ScalarValue::new_interval_mdn(months, i32::from_be_bytes(*days), ns)
        }
        sql_type::UUID => {
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts =
                [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
            ScalarValue::from(parts.join("-"))
        }
        sql_type::JSONB => {
            let (version, text) = bytes.split_first()?;
            if *version != 1 {
                return None;
            }
            ScalarValue::from(std::str::from_utf8(text).ok()?)
        }
        // The binary form of texts is their text.
        _ => ScalarValue::from(std::str::from_utf8(bytes).ok()?),
    })
}

/// A number of any size: whole ones as integers, others as decimals.
fn numeric(text: &str) -> Option<ScalarValue> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return Some(ScalarValue::Int64(Some(number)));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(ScalarValue::UInt64(Some(number)));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i8::try_from(fraction.len()).ok().filter(|scale| *scale <= 38)?;
    Some(ScalarValue::Decimal128(Some(digits), 38, scale))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_their_type_and_never_turned_into_null() {
        let table = [
            ("42", sql_type::INT8, Some(ScalarValue::Int64(Some(42)))),
            ("x", sql_type::INT8, None),
            ("t", sql_type::BOOL, Some(ScalarValue::Boolean(Some(true)))),
            ("1.5", sql_type::FLOAT8, Some(ScalarValue::Float64(Some(1.5)))),
            ("18446744073709551615", sql_type::NUMERIC, Some(ScalarValue::UInt64(Some(u64::MAX)))),
            ("-0.50", sql_type::NUMERIC, Some(ScalarValue::Decimal128(Some(-50), 38, 2))),
            ("1e9", sql_type::NUMERIC, None),
            ("2026-01-05T12:00:00Z", sql_type::TIMESTAMPTZ, Some(noon())),
            ("2026-01-05 12:00:00+00", sql_type::TIMESTAMPTZ, Some(noon())),
            ("yesterday", sql_type::TIMESTAMPTZ, None),
            (" as is ", sql_type::TEXT, Some(ScalarValue::from(" as is "))),
            ("\\x00ff", sql_type::BYTEA, Some(ScalarValue::Binary(Some(vec![0, 255])))),
            ("\\xf", sql_type::BYTEA, None),
        ];
        for (given, sql, expected) in table {
            assert_eq!(text(given.as_bytes(), sql), expected, "{given} as {}", sql.name);
        }
    }

    fn noon() -> ScalarValue {
        ScalarValue::TimestampNanosecond(Some(1_767_614_400_000_000_000), Some("UTC".into()))
    }

    #[test]
    fn binary_values_have_their_exact_length() {
        assert_eq!(binary(&[0, 0, 0, 7], sql_type::INT4), Some(ScalarValue::Int32(Some(7))));
        assert_eq!(binary(&[0, 0, 7], sql_type::INT4), None);
        let us: i64 = 1_767_614_400_000_000 - 946_684_800_000_000;
        assert_eq!(binary(&us.to_be_bytes(), sql_type::TIMESTAMPTZ), Some(noon()));
        assert_eq!(binary(&i64::MAX.to_be_bytes(), sql_type::TIMESTAMPTZ), None);
        assert_eq!(binary(b"\x01{}", sql_type::JSONB), Some(ScalarValue::from("{}")));
        assert_eq!(binary(&[0xff], sql_type::TEXT), None);
    }
}
