//! What clients of PostgreSQL ask about the server, its tables and names. Answers are those of a server whose tables belong to one
//! role and can be read by everybody who may log in; what Beeacon does not have (comments, sizes, defaults) is null.

use std::sync::Arc;

use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ScalarUDF;

use super::{Plain, at, texts};
use crate::sql_type;
use crate::system;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![
        Plain::function("version", 0..=0, DataType::Utf8, |_, rows| same(rows, &system::version())),
        Plain::function("pg_get_userbyid", 1..=1, DataType::Utf8, |_, rows| same(rows, system::OWNER)),
        Plain::function("pg_encoding_to_char", 1..=1, DataType::Utf8, |_, rows| same(rows, "UTF8")),
        Plain::function("pg_backend_pid", 0..=0, DataType::Int64, |_, rows| {
            Ok(Arc::new(Int64Array::from(vec![i64::from(std::process::id()); rows])))
        }),
        Plain::function("pg_my_temp_schema", 0..=0, DataType::Int64, |_, rows| {
            Ok(Arc::new(Int64Array::from(vec![0; rows])))
        }),
        Plain::function("format_type", 2..=2, DataType::Utf8, |arguments, _| {
            let names = numbers(arguments, 0)?.into_iter().map(|oid| oid.and_then(type_name));
            Ok(Arc::new(names.collect::<StringArray>()))
        }),
        Plain::function("beeacon_regclass_name", 1..=1, DataType::Utf8, |arguments, _| {
            let names = numbers(arguments, 0)?.into_iter().map(|oid| {
                let oid = oid?;
                Some(system::relation_name(oid).map_or_else(|| oid.to_string(), str::to_owned))
            });
            Ok(Arc::new(names.collect::<StringArray>()))
        }),
        Plain::function("quote_ident", 1..=1, DataType::Utf8, |arguments, rows| {
            let names = texts(arguments, 0)?;
            Ok(Arc::new((0..rows).map(|row| at(&names, row).map(quoted)).collect::<StringArray>()))
        }),
        Plain::function("quote_literal", 1..=1, DataType::Utf8, |arguments, rows| {
            let values = texts(arguments, 0)?;
            let quote = |value: &str| format!("'{}'", value.replace('\'', "''"));
            Ok(Arc::new((0..rows).map(|row| at(&values, row).map(quote)).collect::<StringArray>()))
        }),
        Plain::function("parse_ident", 1..=2, list(), |arguments, rows| {
            let names = texts(arguments, 0)?;
            let mut parts = ListBuilder::new(StringBuilder::new());
            for row in 0..rows {
                match at(&names, row) {
                    None => parts.append(false),
                    Some(name) => {
                        parsed(name)?.iter().for_each(|part| parts.values().append_value(part));
                        parts.append(true);
                    }
                }
            }
            Ok(Arc::new(parts.finish()))
        }),
        Plain::function("current_schemas", 1..=1, list(), |_, rows| {
            let mut names = ListBuilder::new(StringBuilder::new());
            for _ in 0..rows {
                names.values().append_value(system::PUBLIC);
                names.append(true);
            }
            Ok(Arc::new(names.finish()))
        }),
        Plain::function("array_upper", 2..=2, DataType::Int64, |arguments, _| {
            bounds(arguments, |length| length)
        }),
        Plain::function("array_lower", 2..=2, DataType::Int64, |arguments, _| bounds(arguments, |_| 1)),
    ];
    all.extend(YES.map(|(name, most)| {
        Plain::function(name, 1..=most, DataType::Boolean, |_, rows| {
            Ok(Arc::new(BooleanArray::from(vec![true; rows])))
        })
    }));
    all.extend(NO.map(|(name, most)| {
        Plain::function(name, 0..=most, DataType::Boolean, |_, rows| {
            Ok(Arc::new(BooleanArray::from(vec![false; rows])))
        })
    }));
    all.extend(NOTHING.map(|(name, most)| {
        Plain::function(name, 1..=most, DataType::Utf8, |_, rows| Ok(Arc::new(StringArray::new_null(rows))))
    }));
    all.extend(SIZES.map(|(name, most)| {
        Plain::function(name, 1..=most, DataType::Int64, |_, rows| Ok(Arc::new(Int64Array::new_null(rows))))
    }));
    all
}

/// Everything can be seen and read by who may log in.
const YES: [(&str, usize); 8] = [
    ("pg_table_is_visible", 1),
    ("pg_type_is_visible", 1),
    ("pg_function_is_visible", 1),
    ("has_table_privilege", 3),
    ("has_schema_privilege", 3),
    ("has_database_privilege", 3),
    ("has_column_privilege", 4),
    ("has_any_column_privilege", 3),
];

/// What this server is not.
const NO: [(&str, usize); 3] =
    [("pg_is_in_recovery", 0), ("pg_is_other_temp_schema", 1), ("pg_relation_is_publishable", 1)];

/// What tables and columns here never have.
const NOTHING: [(&str, usize); 14] = [
    ("pg_tablespace_location", 1),
    ("pg_get_statisticsobjdef_columns", 1),
    ("obj_description", 2),
    ("col_description", 2),
    ("shobj_description", 2),
    ("pg_get_expr", 3),
    ("pg_get_constraintdef", 2),
    ("pg_get_indexdef", 3),
    ("pg_get_viewdef", 2),
    ("pg_get_partkeydef", 1),
    ("pg_get_function_result", 1),
    ("pg_get_function_arguments", 1),
    ("pg_get_serial_sequence", 2),
    ("pg_size_pretty", 1),
];

const SIZES: [(&str, usize); 4] =
    [("pg_table_size", 1), ("pg_relation_size", 2), ("pg_total_relation_size", 1), ("pg_database_size", 1)];

fn list() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
}

fn same(rows: usize, text: &str) -> Result<ArrayRef> {
    Ok(Arc::new(StringArray::from(vec![text; rows])))
}

fn numbers(arguments: &[ArrayRef], index: usize) -> Result<Vec<Option<i64>>> {
    let argument =
        arguments.get(index).ok_or_else(|| DataFusionError::Plan("an argument is missing".into()))?;
    let numbers = cast(argument, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().iter().collect())
}

fn type_name(oid: i64) -> Option<String> {
    let oid = u32::try_from(oid).ok()?;
    if let Some(known) = sql_type::by_oid(oid) {
        return Some(known.sql_name.to_owned());
    }
    let item = sql_type::ALL.iter().find(|known| known.array_oid == oid && oid > 0);
    Some(item.map_or_else(|| "???".to_owned(), |known| format!("{}[]", known.sql_name)))
}

/// The bounds of arrays' first dimension; empty ones have none.
fn bounds(arguments: &[ArrayRef], of: fn(i64) -> i64) -> Result<ArrayRef> {
    let dimensions = numbers(arguments, 1)?;
    let misfit = || DataFusionError::Plan("array_lower and array_upper take an array and a dimension".into());
    let arrays = arguments.first().ok_or_else(misfit)?;
    let lists = arrays.as_list_opt::<i32>().ok_or_else(misfit)?;
    let bounds = lists.iter().zip(dimensions).map(|(items, dimension)| {
        let length = i64::try_from(items?.len()).ok()?;
        (length > 0 && dimension == Some(1)).then(|| of(length))
    });
    Ok(Arc::new(bounds.collect::<Int64Array>()))
}

/// A name as SQL needs it: quoted unless it is lower case and no keyword would be mistaken for it.
pub(crate) fn quoted(name: &str) -> String {
    let first = name.chars().next();
    let plain = first.is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The parts of a name such as `public."Odd name"`.
fn parsed(name: &str) -> Result<Vec<String>> {
    let misfit = || DataFusionError::Execution("the text is not a valid identifier".into());
    let mut parts = Vec::new();
    let mut rest = name.trim();
    loop {
        let part = if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next() {
                    None => return Err(misfit()),
                    Some((_, '"')) if characters.next_if(|(_, c)| *c == '"').is_some() => part.push('"'),
                    Some((index, '"')) => break index,
                    Some((_, c)) => part.push(c),
                }
            };
            rest = quoted.get(end + 1..).unwrap_or_default();
            part
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            rest = after;
            let part = part.trim().to_lowercase();
            if part.is_empty() || !part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                return Err(misfit());
            }
            part
        };
        parts.push(part);
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => return Ok(parts),
            None => return Err(misfit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_taken_apart_as_postgresql_does() {
        assert_eq!(quoted("logs"), "logs");
        assert_eq!(quoted("Odd \"name\""), "\"Odd \"\"name\"\"\"");
        assert_eq!(quoted("1a"), "\"1a\"");
        assert_eq!(parsed("public.Logs").unwrap(), ["public", "logs"]);
        assert_eq!(parsed(r#" public . "Odd ""na.me""" "#).unwrap(), ["public", "Odd \"na.me\""]);
        for wrong in ["", "a.", "a..b", "\"open", "a b", "a;b"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn types_have_the_names_of_sql() {
        assert_eq!(type_name(1184).as_deref(), Some("timestamp with time zone"));
        assert_eq!(type_name(1009).as_deref(), Some("text[]"));
        assert_eq!(type_name(4).as_deref(), Some("???"));
    }
}
