//! Comparisons of a column with a bound.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, Scalar, StringArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

pub(super) fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number" })
}

pub(super) fn literal(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["number", "string", "boolean"] })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComparisonOperator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equals,
    NotEquals,
}

impl ComparisonOperator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::AtLeast => "at_least",
            Self::Below => "below",
            Self::AtMost => "at_most",
            Self::Equals => "equals",
            Self::NotEquals => "not_equals",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Equals => "equal to",
            Self::NotEquals => "not equal to",
            Self::Above | Self::Below => self.name(),
        }
    }

    fn orders(self) -> bool {
        !matches!(self, Self::Equals | Self::NotEquals)
    }

    pub(super) fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            Self::Equals => value == bound,
            Self::NotEquals => value != bound,
        }
    }
}

/// The bound of a comparison, in the type of the column.
#[derive(Clone)]
pub(super) enum ComparisonBound {
    /// Floating-point values are compared according to IEEE 754. Arrow's kernels instead use a
    /// total order of NaN and -0.0.
    Float(f64),
    /// All other values are compared exactly.
    Exact(Scalar<ArrayRef>),
}

impl ComparisonBound {
    /// Converts the value to the type of the column, so that 0.1 equals the 0.1 in a column of
    /// float32.
    pub(super) fn new(
        column: &DataType,
        operator: ComparisonOperator,
        value: &Value,
    ) -> Result<Self, String> {
        let column = match column {
            DataType::Dictionary(_, values) => values.as_ref(),
            plain => plain,
        };
        let literal = array_of(column, value).ok_or_else(|| mismatch(column, operator, value))?;
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let cast_to = |array: &ArrayRef, to: &DataType| {
            cast_with_options(array, to, &strict).map_err(|_| {
                format!("{value} is out of range for the type of the column, {column}")
            })
        };
        let literal = cast_to(&literal, column)?;
        if operator.orders() && !column.is_numeric() {
            return Err(format!(
                "the column holds {column}, but `{}` compares numbers",
                operator.name()
            ));
        }
        if column.is_floating() {
            return Ok(Self::Float(
                cast_to(&literal, &DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .value(0),
            ));
        }
        Ok(Self::Exact(Scalar::new(literal)))
    }
}

/// Converts the value to an array of one value; `None` if the type of the column does not match the
/// value.
fn array_of(column: &DataType, value: &Value) -> Option<ArrayRef> {
    match value {
        Value::Bool(flag) if column == &DataType::Boolean => {
            Some(Arc::new(BooleanArray::from(vec![*flag])))
        }
        Value::String(text) if column.is_string() => {
            Some(Arc::new(StringArray::from(vec![text.as_str()])))
        }
        Value::Number(number) if column.is_numeric() => {
            if let Some(integer) = number.as_i64() {
                return Some(Arc::new(Int64Array::from(vec![integer])));
            }
            if let Some(integer) = number.as_u64() {
                return Some(Arc::new(UInt64Array::from(vec![integer])));
            }
            let fraction = number
                .as_f64()
                .filter(|fraction| !column.is_integer() || fraction.fract() == 0.0)?;
            Some(Arc::new(Float64Array::from(vec![fraction])))
        }
        _ => None,
    }
}

fn mismatch(column: &DataType, operator: ComparisonOperator, value: &Value) -> String {
    let hint = match column {
        DataType::Boolean => "compare it with true or false",
        _ if column.is_integer() => "compare it with an integer",
        _ if column.is_numeric() => "compare it with a number",
        _ if column.is_string() => "compare it with a string",
        _ => {
            return format!(
                "the column holds {column}, but only numbers, strings and booleans can be compared"
            );
        }
    };
    format!(
        "the column holds {column}, but `{}` is {value}; {hint}",
        operator.name()
    )
}
