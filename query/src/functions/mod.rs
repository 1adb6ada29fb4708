//! Functions that SQL users of logs and clients of PostgreSQL expect and DataFusion does not have.
//!
//! - [`keywords`]: the words of SQL, which `pg_get_keywords()` gives;
//! - [`json`]: `json_get…`, `->` and `->>` over text, maps and lists;
//! - [`logfmt`]: `logfmt(message, key)`;
//! - [`catalog`]: what clients of PostgreSQL ask about the server and its tables.
//!
//! `time_bucket` is not among them: it is rewritten to `date_bin`, which files are pruned by (see `dialect`).

pub(crate) mod catalog;
pub(crate) mod json;
pub(crate) mod keywords;
pub(crate) mod logfmt;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What a function does: its arguments as arrays of equal length, and that length.
type Body = fn(&[ArrayRef], usize) -> Result<ArrayRef>;

/// A scalar function whose result has one type whatever it is given.
pub(crate) struct Plain {
    name: &'static str,
    signature: Signature,
    result: DataType,
    body: Body,
}

impl Plain {
    pub(crate) fn function(
        name: &'static str,
        arguments: std::ops::RangeInclusive<usize>,
        result: DataType,
        body: Body,
    ) -> Arc<ScalarUDF> {
        let counts = arguments.map(|count| match count {
            0 => datafusion::logical_expr::TypeSignature::Nullary,
            count => datafusion::logical_expr::TypeSignature::Any(count),
        });
        let signature = Signature::one_of(counts.collect(), Volatility::Stable);
        Arc::new(ScalarUDF::from(Plain { name, signature, result, body }))
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plain").field(&self.name).finish()
    }
}

// Names are unique, so they stand for the functions.
impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Plain {}

impl Hash for Plain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        // A call with literals only is computed once.
        let literal = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let length = if literal { 1 } else { rows };
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let result = (self.body)(&arrays, length)?;
        if literal {
            return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// An argument as text, whatever it was.
pub(crate) fn texts(arguments: &[ArrayRef], index: usize) -> Result<StringArray> {
    let argument =
        arguments.get(index).ok_or_else(|| DataFusionError::Plan("an argument is missing".into()))?;
    let cast = cast(argument, &DataType::Utf8)?;
    Ok(cast.as_string::<i32>().clone())
}

/// The value of a row, if there is one.
pub(crate) fn at(texts: &StringArray, row: usize) -> Option<&str> {
    (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row))
}

/// Every function of this module.
pub(crate) fn all() -> &'static [Arc<ScalarUDF>] {
    static ALL: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
        let mut all = catalog::functions();
        all.extend(json::functions());
        all.extend(logfmt::functions());
        all
    });
    &ALL
}
