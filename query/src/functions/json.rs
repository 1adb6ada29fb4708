//! JSON in text: `json_get(message, 'user', 'id')` and its kin, and `->`, `->>`.
//!
//! A path is made of keys and of places in arrays, counted from 0, negative ones from the end. What is not JSON, and a path
//! that leads nowhere, give null: a log is rarely JSON on every line. `->` on a map, such as `labels`, is its element.
//!
//! | function | gives |
//! | --- | --- |
//! | `json_get(text, path…)`, `->` | the value as JSON text |
//! | `json_as_text(text, path…)`, `->>` | the value as text, without the quotes of JSON; null for JSON's null |
//! | `json_get_str` | text, null for other values |
//! | `json_get_int`, `json_get_float`, `json_get_bool` | a number or boolean, null for other values |
//! | `json_length(text, path…)` | members of an object or array |
//! | `json_contains(text, path…)` | whether there is something |
//! | `json_text(value)`, `labels::text` | a map or list as JSON text, anything else as text |

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::expr_fn::get_field;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

use super::{Plain, at, texts};
use crate::encode::json_texts;

/// The longest path, in steps. JSON deeper than its parser's 128 levels is no JSON here.
const PATH_STEPS_MAX: usize = 16;

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let path = 2..=1 + PATH_STEPS_MAX;
    let whole = 1..=1 + PATH_STEPS_MAX;
    vec![
        Plain::function("json_get", path.clone(), DataType::Utf8, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, |value| Some(value.to_string()))?.collect::<StringArray>()))
        }),
        Plain::function("json_as_text", path.clone(), DataType::Utf8, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, as_text)?.collect::<StringArray>()))
        }),
        Plain::function("json_get_str", path.clone(), DataType::Utf8, |arguments, rows| {
            let text = |value: Value| value.as_str().map(str::to_owned);
            Ok(Arc::new(each(arguments, rows, text)?.collect::<StringArray>()))
        }),
        Plain::function("json_get_int", path.clone(), DataType::Int64, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, |value| value.as_i64())?.collect::<Int64Array>()))
        }),
        Plain::function("json_get_float", path.clone(), DataType::Float64, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, |value| value.as_f64())?.collect::<Float64Array>()))
        }),
        Plain::function("json_get_bool", path.clone(), DataType::Boolean, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, |value| value.as_bool())?.collect::<BooleanArray>()))
        }),
        Plain::function("json_text", 1..=1, DataType::Utf8, |arguments, _| {
            let value =
                arguments.first().ok_or_else(|| DataFusionError::Plan("an argument is missing".into()))?;
            if !value.data_type().is_nested() {
                return cast(value, &DataType::Utf8).map_err(Into::into);
            }
            let field = Arc::new(Field::new("value", value.data_type().clone(), true));
            Ok(Arc::new(json_texts(&field, value)?))
        }),
        Plain::function("json_length", whole, DataType::Int64, |arguments, rows| {
            Ok(Arc::new(each(arguments, rows, length)?.collect::<Int64Array>()))
        }),
        Plain::function("json_contains", path, DataType::Boolean, |arguments, rows| {
            let found = each(arguments, rows, |_| Some(()))?.map(|found| Some(found.is_some()));
            Ok(Arc::new(found.collect::<BooleanArray>()))
        }),
    ]
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

fn length(value: Value) -> Option<i64> {
    match value {
        Value::Array(items) => i64::try_from(items.len()).ok(),
        Value::Object(members) => i64::try_from(members.len()).ok(),
        _ => None,
    }
}

/// What the path leads to, row by row, made into something else.
fn each<T>(
    arguments: &[ArrayRef],
    rows: usize,
    make: impl Fn(Value) -> Option<T>,
) -> Result<impl Iterator<Item = Option<T>>> {
    let lines = texts(arguments, 0)?;
    let path = (1..arguments.len()).map(|index| texts(arguments, index)).collect::<Result<Vec<_>>>()?;
    Ok((0..rows).map(move |row| {
        let line = at(&lines, row)?.trim_start();
        // Most lines are no JSON, and then the first character says so.
        if !line.starts_with(['{', '[']) {
            return None;
        }
        let mut value: Value = serde_json::from_str(line).ok()?;
        for step in &path {
            value = taken(value, at(step, row)?)?;
        }
        make(value)
    }))
}

fn taken(value: Value, step: &str) -> Option<Value> {
    match value {
        Value::Object(mut members) => members.remove(step),
        Value::Array(mut items) => {
            let place: i64 = step.parse().ok()?;
            let place = if place < 0 { place.checked_add(i64::try_from(items.len()).ok()?)? } else { place };
            let place = usize::try_from(place).ok()?;
            (place < items.len()).then(|| items.swap_remove(place))
        }
        _ => None,
    }
}

/// Plans `->` and `->>`.
#[derive(Debug)]
pub(crate) struct Arrows;

impl ExprPlanner for Arrows {
    fn plan_binary_op(
        &self,
        expression: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expression.op {
            BinaryOperator::Arrow => "json_get",
            BinaryOperator::LongArrow => "json_as_text",
            _ => return Ok(PlannerResult::Original(expression)),
        };
        if let (Ok(DataType::Map(..) | DataType::Struct(_)), Expr::Literal(ScalarValue::Utf8(Some(key)), _)) =
            (expression.left.get_type(schema), &expression.right)
        {
            return Ok(PlannerResult::Planned(get_field(expression.left, key.as_str())));
        }
        let Some(function) = super::all().iter().find(|known| known.name() == function) else {
            return Ok(PlannerResult::Original(expression));
        };
        let arguments = vec![expression.left, expression.right];
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), arguments))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(line: &str, path: &[&str]) -> Option<String> {
        let mut arguments: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![line]))];
        arguments.extend(path.iter().map(|step| Arc::new(StringArray::from(vec![*step])) as ArrayRef));
        each(&arguments, 1, |value| Some(value.to_string())).unwrap().next().unwrap()
    }

    #[test]
    fn a_path_goes_through_objects_and_arrays_and_what_is_not_json_is_null() {
        let line = r#"{"user":{"id":7,"tags":["a","b"]},"ok":true,"none":null}"#;
        assert_eq!(get(line, &["user", "id"]).as_deref(), Some("7"));
        assert_eq!(get(line, &["user", "tags", "-1"]).as_deref(), Some("\"b\""));
        assert_eq!(get(line, &["user", "tags", "2"]), None);
        assert_eq!(get(line, &["none"]).as_deref(), Some("null"));
        assert_eq!(get("plain text", &["a"]), None);
        assert_eq!(get("{broken", &["a"]), None);
        assert_eq!(get(&"[".repeat(10_000), &["0"]), None, "too deep is no JSON");
    }
}
