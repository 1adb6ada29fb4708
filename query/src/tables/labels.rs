//! `labels` as SQL users see them: a map made from the stored JSON object.
//!
//! Labels are stored once per container and batch, as a dictionary of JSON objects. The map is made once per dictionary value
//! and only in queries that use it.

use std::sync::{Arc, LazyLock};

use beeacon_record::schema;
use datafusion::arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use datafusion::arrow::array::{ArrayRef, AsArray, MapArray, StringArray};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int32Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(LabelsMap::new())));

/// The function that turns the stored column into a map.
pub(crate) fn labels_map() -> Arc<ScalarUDF> {
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LabelsMap {
    signature: Signature,
}

impl LabelsMap {
    fn new() -> Self {
        LabelsMap { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for LabelsMap {
    fn name(&self) -> &str {
        "labels_map"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(schema::attributes())
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), schema::attributes(), false)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let [labels] = <[ColumnarValue; 1]>::try_from(arguments.args)
            .map_err(|_| DataFusionError::Internal("labels_map takes one argument".into()))?;
        Ok(ColumnarValue::Array(maps(&labels.into_array(rows)?)?))
    }
}

fn maps(labels: &ArrayRef) -> Result<ArrayRef> {
    if let Some(dictionary) = labels.as_dictionary_opt::<Int32Type>() {
        let values = cast(dictionary.values(), &DataType::Utf8)?;
        return Ok(take(&parsed(values.as_string())?, dictionary.keys(), None)?);
    }
    let values = cast(labels, &DataType::Utf8)?;
    Ok(Arc::new(parsed(values.as_string())?))
}

/// One map per text; what is not a JSON object is an empty map, and values that are not text are shown as JSON.
fn parsed(texts: &StringArray) -> Result<MapArray> {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        .with_keys_field(Field::new("keys", DataType::Utf8, false))
        .with_values_field(Field::new("values", DataType::Utf8, false));
    for text in texts {
        let object: serde_json::Map<String, serde_json::Value> =
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for (key, value) in object {
            builder.keys().append_value(key);
            match value {
                serde_json::Value::String(value) => builder.values().append_value(value),
                other => builder.values().append_value(other.to_string()),
            }
        }
        builder.append(true)?;
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{DictionaryArray, Int32Array};

    use super::*;

    #[test]
    fn a_map_is_made_per_row_from_the_dictionary_and_bad_json_is_empty() {
        let values = StringArray::from(vec![r#"{"a":"1","b":2}"#, "nonsense", "{}"]);
        let keys = Int32Array::from(vec![1, 0, 0, 2]);
        let labels: ArrayRef = Arc::new(DictionaryArray::try_new(keys, Arc::new(values)).unwrap());
        let maps = maps(&labels).unwrap();
        assert_eq!(maps.data_type(), &schema::attributes());
        let maps = maps.as_map();
        assert_eq!((0..4).map(|row| maps.value_length(row)).collect::<Vec<_>>(), [0, 2, 2, 0]);
        assert_eq!(maps.values().as_string::<i32>().value(1), "2");
    }
}
