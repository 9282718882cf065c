//! The transform `filter`: keeps the records that satisfy a comparison on a column.

pub(crate) mod comparison;

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::find;
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::plan_context::PlanContext;
use crate::transform::filter::comparison::{ComparisonBound, ComparisonOperator, literal, number};

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
    #[schemars(extend("x-changes-rows" = true, "x-threshold" = true))]
    pub above: Option<Value>,
    /// Keep values greater than or equal to this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true, "x-threshold" = true))]
    pub at_least: Option<Value>,
    /// Keep values less than this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true, "x-threshold" = true))]
    pub below: Option<Value>,
    /// Keep values less than or equal to this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "number")]
    #[schemars(extend("x-changes-rows" = true, "x-threshold" = true))]
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
mod tests;
