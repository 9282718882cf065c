//! The transform `filter`: keeps the records that satisfy a comparison on a column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, Scalar, StringArray, UInt64Array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::find;
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::plan_context::PlanContext;

/// Options of `filter`: a column, and exactly one comparison. Records that do not satisfy it, or
/// whose value is null, are dropped, not rejected.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct FilterConfig {
    /// The column to compare, which holds numbers, strings or booleans.
    #[schemars(extend("x-changes-rows" = true))]
    pub column: String,
    /// Keep values greater than this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true))]
    pub above: Option<Value>,
    /// Keep values greater than or equal to this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true))]
    pub at_least: Option<Value>,
    /// Keep values less than this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true))]
    pub below: Option<Value>,
    /// Keep values less than or equal to this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true))]
    pub at_most: Option<Value>,
    /// Keep values equal to this number, string or boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "literal")]
    #[schemars(extend("x-changes-rows" = true))]
    pub equals: Option<Value>,
    /// Keep values other than this number, string or boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "literal")]
    #[schemars(extend("x-changes-rows" = true))]
    pub not_equals: Option<Value>,
}

fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number" })
}

fn literal(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["number", "string", "boolean"] })
}

impl TransformConfig for FilterConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        let column = faults.record(find(input, "column", &self.column));
        let comparison = faults.record(self.comparison());
        let (Some((index, field)), Some((operator, value))) = (column, comparison) else {
            return Err(faults);
        };
        let bound = ComparisonBound::new(field.data_type(), operator, &value);
        let bound = bound.map_err(|message| vec![ConfigError::new(operator.name(), message)])?;
        let summary = format!(
            "keeps records where {} is {} {value}",
            self.column,
            operator.description()
        );
        Ok(Box::new(FilterTransform {
            index,
            operator,
            bound,
            schema: Arc::clone(input),
            summary,
        }))
    }
}

impl FilterConfig {
    fn comparison(&self) -> Result<(ComparisonOperator, Value), ConfigError> {
        let written = [
            (ComparisonOperator::Above, &self.above),
            (ComparisonOperator::AtLeast, &self.at_least),
            (ComparisonOperator::Below, &self.below),
            (ComparisonOperator::AtMost, &self.at_most),
            (ComparisonOperator::Equals, &self.equals),
            (ComparisonOperator::NotEquals, &self.not_equals),
        ];
        let known = written
            .each_ref()
            .map(|(operator, _)| operator.name())
            .join(", ");
        let mut met = written
            .into_iter()
            .filter_map(|(operator, value)| Some((operator, value.clone()?)));
        match (met.next(), met.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(ConfigError::new(
                "",
                format!("a comparison is missing; set one of {known}"),
            )),
            (Some(_), Some((second, _))) => Err(ConfigError::new(
                second.name(),
                "is a second comparison; a filter has exactly one, so add another filter stage",
            )),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ComparisonOperator {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equals,
    NotEquals,
}

impl ComparisonOperator {
    fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::AtLeast => "at_least",
            Self::Below => "below",
            Self::AtMost => "at_most",
            Self::Equals => "equals",
            Self::NotEquals => "not_equals",
        }
    }

    fn description(self) -> &'static str {
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

    fn holds(self, value: f64, bound: f64) -> bool {
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
enum ComparisonBound {
    /// Floating-point values are compared according to IEEE 754. Arrow's kernels instead use a
    /// total order of NaN and -0.0.
    Float(f64),
    /// All other values are compared exactly.
    Exact(Scalar<ArrayRef>),
}

impl ComparisonBound {
    /// Converts the value to the type of the column, so that 0.1 equals the 0.1 in a column of
    /// float32.
    fn new(column: &DataType, operator: ComparisonOperator, value: &Value) -> Result<Self, String> {
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

#[derive(Clone)]
struct FilterTransform {
    index: usize,
    operator: ComparisonOperator,
    bound: ComparisonBound,
    schema: SchemaRef,
    summary: String,
}

impl TransformPlan for FilterTransform {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }
}

impl Transform for FilterTransform {
    fn apply(&mut self, batch: Batch, _rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let column = batch.records.column(self.index);
        let mask = match &self.bound {
            ComparisonBound::Float(bound) => {
                let values = cast(column, &DataType::Float64)?;
                BooleanArray::from_unary(values.as_primitive::<Float64Type>(), |v| {
                    self.operator.holds(v, *bound)
                })
            }
            ComparisonBound::Exact(bound) => match self.operator {
                ComparisonOperator::Above => cmp::gt(column, bound)?,
                ComparisonOperator::AtLeast => cmp::gt_eq(column, bound)?,
                ComparisonOperator::Below => cmp::lt(column, bound)?,
                ComparisonOperator::AtMost => cmp::lt_eq(column, bound)?,
                ComparisonOperator::Equals => cmp::eq(column, bound)?,
                ComparisonOperator::NotEquals => cmp::neq(column, bound)?,
            },
        };
        Ok(batch.filter(&mask)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{Array, DictionaryArray, Float32Array, Int8Array, LargeStringArray};
    use arrow::datatypes::Int32Type;
    use expect_test::{Expect, expect};

    use super::super::testing::{batch, faults, floats, part, run, strings};
    use super::*;

    /// The ordinals of the records that satisfy the comparison.
    fn kept(column: ArrayRef, comparison: &str) -> Vec<u32> {
        let (out, rejects) = run::<FilterConfig>(
            &format!(r#"{{"column": "x", {comparison}}}"#),
            batch([("x", column)]),
        );
        assert!(rejects.is_empty(), "a filter does not reject records");
        out.row_ordinals
    }

    #[test]
    fn each_comparison_keeps_the_records_that_satisfy_it() {
        let x = || floats(&[1.0, 2.0, 3.0]);
        assert_eq!(kept(x(), r#""above": 2"#), [2]);
        assert_eq!(kept(x(), r#""at_least": 2.0"#), [1, 2]);
        assert_eq!(kept(x(), r#""below": 2"#), [0]);
        assert_eq!(kept(x(), r#""at_most": 2"#), [0, 1]);
        assert_eq!(kept(x(), r#""equals": 2"#), [1]);
        assert_eq!(kept(x(), r#""not_equals": 2"#), [0, 2]);
    }

    #[test]
    fn strings_booleans_and_integers_are_compared_exactly() {
        assert_eq!(
            kept(strings(&["tcp", "udp", "tcp"]), r#""equals": "tcp""#),
            [0, 2]
        );
        assert_eq!(
            kept(
                Arc::new(LargeStringArray::from(vec!["a", "b"])),
                r#""not_equals": "a""#
            ),
            [1]
        );
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        assert_eq!(kept(Arc::new(words), r#""equals": "a""#), [0, 2]);
        assert_eq!(
            kept(
                Arc::new(BooleanArray::from(vec![true, false])),
                r#""equals": false"#
            ),
            [1]
        );
        let ids = Int64Array::from(vec![9_007_199_254_740_993, 9_007_199_254_740_992]);
        assert_eq!(kept(Arc::new(ids), r#""equals": 9007199254740993"#), [0]);
        assert_eq!(
            kept(
                Arc::new(UInt64Array::from(vec![u64::MAX, 1])),
                r#""above": 18446744073709551614"#
            ),
            [0]
        );
    }

    #[test]
    fn number_is_rounded_to_the_type_of_the_column() {
        let x: ArrayRef = Arc::new(Float32Array::from(vec![0.1, 0.2]));
        assert_eq!(kept(Arc::clone(&x), r#""equals": 0.1"#), [0]);
        assert_eq!(kept(x, r#""above": 0.1"#), [1]);
    }

    #[test]
    fn nulls_are_dropped_and_nan_satisfies_only_not_equals() {
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0)]));
        assert_eq!(kept(Arc::clone(&x), r#""above": -1"#), [2]);
        assert_eq!(kept(Arc::clone(&x), r#""at_least": 0"#), [2]);
        assert_eq!(kept(x, r#""not_equals": 5"#), [0, 2]);
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        assert_eq!(kept(words, r#""not_equals": "b""#), [0]);
    }

    #[test]
    fn empty_batch_stays_empty() {
        let empty = part(&batch([("x", floats(&[1.0]))]), 0, 0);
        let (out, _) = run::<FilterConfig>(r#"{"column": "x", "above": 0}"#, empty);
        assert_eq!(out.records.column(0).len(), 0);
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let int8: ArrayRef = Arc::new(Int8Array::from(vec![1]));
        let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let time: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![1]));
        let input = batch([
            ("error", floats(&[1.0])),
            ("n", int8),
            ("name", strings(&["a"])),
            ("ok", flag),
            ("t", time),
        ]);
        let check = |options: &str, expected: Expect| {
            expected.assert_eq(&faults::<FilterConfig>(options, &input))
        };
        check(
            r#"{"column": "eror"}"#,
            expect![
                "column: no column `eror` (did you mean `error`?); the input has: error, n, name, \
                 ok, t\n\
                 (stage): a comparison is missing; set one of above, at_least, below, at_most, \
                 equals, not_equals"
            ],
        );
        check(
            r#"{"column": "n", "above": 1, "below": 5}"#,
            expect![
                "below: is a second comparison; a filter has exactly one, so add another filter \
                 stage"
            ],
        );
        check(
            r#"{"column": "n", "above": 1.5}"#,
            expect!["above: the column holds Int8, but `above` is 1.5; compare it with an integer"],
        );
        check(
            r#"{"column": "n", "equals": 300}"#,
            expect!["equals: 300 is out of range for the type of the column, Int8"],
        );
        check(
            r#"{"column": "name", "above": "a"}"#,
            expect!["above: the column holds Utf8, but `above` compares numbers"],
        );
        check(
            r#"{"column": "ok", "equals": 1}"#,
            expect![
                "equals: the column holds Boolean, but `equals` is 1; compare it with true or false"
            ],
        );
        check(
            r#"{"column": "error", "above": "high"}"#,
            expect![
                "above: the column holds Float64, but `above` is \"high\"; compare it with a number"
            ],
        );
        check(
            r#"{"column": "t", "equals": 1}"#,
            expect![
                "equals: the column holds Date32, but only numbers, strings and booleans can be \
                 compared"
            ],
        );
    }
}
