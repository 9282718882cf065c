//! The transform `features`: scales numeric columns and combines them into one vector column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clamp_warning::ClampWarning;
use super::feature_column::{BLOCK, FeatureColumn};
use super::rows::{RejectedRows, append, find};
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::model::{FeatureInput, FeatureScale, Scaling};
use crate::plan_context::PlanContext;
use crate::tensor::{all_finite, fixed_column, fixed_values, vector_field};

/// Options of `features`: the columns and their scaling, or the model whose card contains both.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct FeaturesConfig {
    /// The columns, in the order of the vector: numbers, booleans (1 and 0), or lists, of which all
    /// values are used. Not required if the model card lists them. For a model that was trained on a
    /// list column, another list column can be named.
    #[schemars(extend("x-changes-rows" = true))]
    pub columns: Vec<String>,
    /// The model from whose card the columns and the scaling are taken.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// The scaling of the values, if no model defines it: `none`, `standard` (with `mean` and
    /// `std`) or `min_max` (with `min` and `max`). Default: none.
    #[schemars(extend("x-changes-rows" = true))]
    pub scaling: Option<ScalingMethod>,
    /// For `standard`: the mean that is subtracted, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub mean: Vec<f64>,
    /// For `standard`: the standard deviation by which values are divided, one number per value of
    /// the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub std: Vec<f64>,
    /// For `min_max`: the value that becomes 0, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub min: Vec<f64>,
    /// For `min_max`: the value that becomes 1, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub max: Vec<f64>,
    /// The number of values of the vector; required only for a column of lists without a fixed
    /// length, if there is no scaling.
    #[schemars(extend("x-changes-rows" = true))]
    pub width: Option<usize>,
    /// The name of the vector column. Default: features.
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
    /// Whether to keep the columns that are used. Default: false.
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            columns: vec![],
            model: None,
            scaling: None,
            mean: vec![],
            std: vec![],
            min: vec![],
            max: vec![],
            width: None,
            to: "features".to_owned(),
            keep: false,
        }
    }
}

/// The methods of scaling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingMethod {
    /// Values are not scaled.
    #[default]
    None,
    /// `(value - mean) / std`.
    Standard,
    /// `(value - min) / (max - min)`; values outside the range are not clipped to 0..1.
    MinMax,
}

impl TransformConfig for FeaturesConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = self.check_unused_options();
        let mut clamped = None;
        let selected = match &self.model {
            None => FeatureInput {
                columns: self.columns.clone(),
                scaling: self.scaling(&mut faults),
            },
            Some(name) => {
                let model = context
                    .model(name)
                    .map_err(|more| faults.iter().cloned().chain(more).collect::<Vec<_>>())?;
                clamped = ClampWarning::new(&model);
                let declared = model
                    .feature_input()
                    .ok_or_else(|| format!("the model `{name}` does not take feature records"));
                let selected = declared.and_then(|features| self.for_model(features));
                selected.map_err(|message| vec![ConfigError::new("model", message)])?
            }
        };
        let planned = FeaturesTransform::new(self, input, selected, &mut faults);
        match planned {
            Some(mut planned) if faults.is_empty() => {
                planned.clamped = clamped;
                self.width = Some(planned.width);
                if self.model.is_none() {
                    self.scaling.get_or_insert_default();
                }
                Ok(Box::new(planned))
            }
            _ => Err(faults),
        }
    }
}

impl FeaturesConfig {
    /// Returns the faults of options that have no effect with the other options.
    fn check_unused_options(&self) -> Vec<ConfigError> {
        let method = self.scaling.unwrap_or_default();
        let lists = [
            ("mean", &self.mean, ScalingMethod::Standard),
            ("std", &self.std, ScalingMethod::Standard),
            ("min", &self.min, ScalingMethod::MinMax),
            ("max", &self.max, ScalingMethod::MinMax),
        ];
        let unused = lists
            .into_iter()
            .filter(|(_, list, owner)| !list.is_empty() && *owner != method);
        let mut faults: Vec<ConfigError> = unused
            .map(|(key, _, owner)| {
                let owner = if owner == ScalingMethod::Standard {
                    "standard"
                } else {
                    "min_max"
                };
                ConfigError::new(key, format!("has no effect without scaling = \"{owner}\""))
            })
            .collect();
        if self.model.is_some() && self.scaling.is_some() {
            faults.push(ConfigError::new(
                "scaling",
                "the model already defines the scaling of its input; leave this out",
            ));
        }
        faults
    }

    /// The scaling as written. If no fault is added, its lists are valid and have equal lengths.
    fn scaling(&self, faults: &mut Vec<ConfigError>) -> Scaling {
        let (low, high) = match self.scaling.unwrap_or_default() {
            ScalingMethod::None => return Scaling::None,
            ScalingMethod::Standard => (("mean", &self.mean), ("std", &self.std)),
            ScalingMethod::MinMax => (("min", &self.min), ("max", &self.max)),
        };
        if low.1.len() != high.1.len() || low.1.is_empty() {
            let lengths = format!("met {} and {}", low.1.len(), high.1.len());
            let message = format!(
                "`{}` and `{}` require one number per value; {lengths}",
                low.0, high.0
            );
            faults.push(ConfigError::new(low.0, message));
        }
        for (key, list) in [low, high] {
            if list.iter().any(|value| !value.is_finite()) {
                faults.push(ConfigError::new(key, "holds a number that is not finite"));
            }
        }
        let (lows, highs) = (low.1.clone(), high.1.clone());
        if low.0 == "mean" {
            if highs.iter().any(|&std| std <= 0.0) {
                faults.push(ConfigError::new(
                    "std",
                    "must be above 0; for a column that never changes, write 1",
                ));
            }
            return Scaling::Standard {
                mean: lows,
                std: highs,
            };
        }
        if lows.iter().zip(&highs).any(|(min, max)| max <= min) {
            faults.push(ConfigError::new(
                "max",
                "must be above `min`; for a column that never changes, write min + 1",
            ));
        }
        Scaling::MinMax {
            min: lows,
            max: highs,
        }
    }

    /// The input of the model, with the columns of the options if the model does not list columns.
    fn for_model(&self, input: &FeatureInput) -> Result<FeatureInput, String> {
        match (input.columns.is_empty(), self.columns.is_empty()) {
            (false, true) => Ok(input.clone()),
            (true, _) => Ok(FeatureInput {
                columns: self.columns.clone(),
                scaling: input.scaling.clone(),
            }),
            // The list column may have another name than in the training.
            (false, false) if input.columns.iter().all(|name| is_element(name)) => {
                Ok(FeatureInput {
                    columns: self.columns.clone(),
                    scaling: input.scaling.clone(),
                })
            }
            (false, false) => {
                Err("the model card lists the columns; leave out `columns` or `model`".to_owned())
            }
        }
    }
}

#[derive(Clone)]
struct FeaturesTransform {
    columns: Vec<FeatureColumn>,
    width: usize,
    scaling: Scaling,
    /// The indices of the columns that are kept.
    kept: Vec<usize>,
    schema: SchemaRef,
    /// Set if values outside of 0..1 are reported, because the model clamps them.
    clamped: Option<ClampWarning>,
}

impl FeaturesTransform {
    fn new(
        config: &FeaturesConfig,
        input: &Schema,
        selected: FeatureInput,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let key = if selected.columns == config.columns {
            "columns"
        } else {
            "model"
        };
        if selected.columns.is_empty() {
            faults.push(ConfigError::new(
                key,
                "no column is selected; list the numeric columns of the vector",
            ));
            return None;
        }
        let width = config.width.or_else(|| scaled_values(&selected.scaling));
        let columns = resolve(input, key, &selected.columns, width, faults)?;
        let found = columns.iter().map(|column| column.len).sum();
        if let Some(declared) = config.width.filter(|&declared| declared != found) {
            faults.push(ConfigError::new(
                "width",
                format!("is {declared}, but the number of values in the columns is {found}"),
            ));
        }
        if let Some(scaled) = scaled_values(&selected.scaling).filter(|&scaled| scaled != found) {
            faults.push(ConfigError::new(
                key,
                format!(
                    "the number of values in the columns is {found}, but that of the scaling is \
                     {scaled}"
                ),
            ));
        }
        let used = |index: &usize| columns.iter().any(|column| column.index == *index);
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|index| config.keep || !used(index))
            .collect();
        let stays = Schema::new(
            kept.iter()
                .map(|&index| input.field(index).clone())
                .collect::<Vec<Field>>(),
        );
        let schema = faults.record(append(&stays, "to", vector_field(&config.to, found)))?;
        Some(Self {
            columns,
            width: found,
            scaling: selected.scaling,
            kept,
            schema,
            clamped: None,
        })
    }
}

/// The number of values of a scaling; `None` without scaling.
fn scaled_values(scaling: &Scaling) -> Option<usize> {
    match scaling {
        Scaling::None => None,
        Scaling::Standard { mean: values, .. } | Scaling::MinMax { min: values, .. } => {
            Some(values.len())
        }
    }
}

/// Finds the columns and their positions in the vector. One column of lists of unknown length takes
/// the rest of `width`.
pub(super) fn resolve(
    input: &Schema,
    key: &str,
    names: &[String],
    width: Option<usize>,
    faults: &mut Vec<ConfigError>,
) -> Option<Vec<FeatureColumn>> {
    let before = faults.len();
    let mut found: Vec<(&str, usize, Option<usize>, bool)> = Vec::new();
    for (name, elements) in requested(names, input) {
        match find(input, key, name) {
            Err(fault) => faults.push(fault),
            Ok((index, _)) if found.iter().any(|(_, earlier, ..)| *earlier == index) => {
                faults.push(ConfigError::new(
                    key,
                    format!("column `{name}` is listed twice"),
                ));
            }
            Ok((index, field)) => match values_per_row(field.data_type()) {
                Ok((len, list))
                    if elements.is_none_or(|count| list && len.unwrap_or(count) == count) =>
                {
                    found.push((name, index, len.or(elements), list));
                }
                Ok(_) => faults.push(ConfigError::new(
                    key,
                    format!(
                        "column `{name}` holds {}, not lists of {} numbers",
                        field.data_type(),
                        elements.unwrap_or_default()
                    ),
                )),
                Err(met) => faults.push(ConfigError::new(
                    key,
                    format!("column `{name}` holds {met}, not numbers"),
                )),
            },
        }
    }
    let fixed: usize = found.iter().filter_map(|(_, _, len, _)| *len).sum();
    let variable: Vec<&str> = found
        .iter()
        .filter(|(_, _, len, _)| len.is_none())
        .map(|(name, ..)| *name)
        .collect();
    let rest = match (variable.as_slice(), width) {
        ([], _) => 0,
        ([_], Some(width)) if width > fixed => width - fixed,
        _ => {
            let message = format!(
                "lists without a fixed length: {}; set `width`, for one such column only",
                variable.join(", ")
            );
            faults.push(ConfigError::new(key, message));
            0
        }
    };
    let mut start = 0;
    let mut columns = Vec::with_capacity(found.len());
    for (name, index, len, list) in found {
        let len = len.unwrap_or(rest);
        columns.push(FeatureColumn {
            name: name.to_owned(),
            index,
            start,
            len,
            list,
        });
        start += len;
    }
    if i32::try_from(start).is_err() {
        faults.push(ConfigError::new(
            key,
            format!(
                "{start} values exceed the maximum of a vector, {}",
                i32::MAX
            ),
        ));
    }
    (faults.len() == before).then_some(columns)
}

/// The names of the values of a list column, in order, as a model card lists them.
pub(crate) fn element_names(column: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |index| format!("{column}[{index}]"))
}

/// The columns of the input that hold the values with these names. The names of all values of a
/// list denote its column, which is returned with their number.
fn requested<'a>(names: &'a [String], input: &Schema) -> Vec<(&'a str, Option<usize>)> {
    let mut columns = Vec::new();
    let mut rest = names;
    while let [first, ..] = rest {
        let list = first.strip_suffix("[0]").filter(|list| {
            input.column_with_name(first).is_none() && input.column_with_name(list).is_some()
        });
        let count = list.map(|list| {
            let elements = element_names(list, rest.len());
            rest.iter()
                .zip(elements)
                .take_while(|(name, element)| *name == element)
                .count()
        });
        columns.push((list.unwrap_or(first), count));
        rest = &rest[count.unwrap_or(1)..];
    }
    columns
}

/// Whether a name is that of a value of a list column.
fn is_element(name: &str) -> bool {
    let index = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['));
    index.is_some_and(|(_, index)| index.parse::<usize>().is_ok())
}

/// The number of values of a row of this type, if it is fixed, and whether the column holds lists.
fn values_per_row(column: &DataType) -> Result<(Option<usize>, bool), &DataType> {
    let number = |kind: &DataType| kind.is_numeric() || kind == &DataType::Boolean;
    match column {
        DataType::FixedSizeList(item, len) if number(item.data_type()) && *len > 0 => {
            Ok((usize::try_from(*len).ok(), true))
        }
        DataType::List(item) | DataType::LargeList(item) if number(item.data_type()) => {
            Ok((None, true))
        }
        scalar if number(scalar) => Ok((Some(1), false)),
        other => Err(other),
    }
}

impl TransformPlan for FeaturesTransform {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }

    fn summary(&self) -> String {
        let scaling = match self.scaling {
            Scaling::None => "not scaled",
            Scaling::Standard { .. } => "standardized",
            Scaling::MinMax { .. } => "scaled to 0..1",
        };
        format!(
            "{} values of {} columns, {scaling}",
            self.width,
            self.columns.len()
        )
    }
}

impl Transform for FeaturesTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let mut incomplete = RejectedRows::default();
        for column in &self.columns {
            column.check(batch.records.column(column.index), &mut incomplete);
        }
        let batch = incomplete.remove_from(batch, rejects)?;
        let vectors = match self.reused_column(&batch.records) {
            Some(vectors) => vectors,
            None => fixed_column(self.width, self.gather(&batch.records)?)?,
        };
        let values = fixed_values(&vectors).unwrap_or_default();
        let infinite = if all_finite(values) {
            RejectedRows::default()
        } else {
            non_finite(&self.columns, self.width, values)
        };
        if let Some(clamped) = &self.clamped {
            clamped.check(values, self.width);
        }
        let columns = self
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)))
            .chain([vectors]);
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
        infinite.remove_from(batch.with_records(records), rejects)
    }
}

impl FeaturesTransform {
    /// Returns a column that already equals the vector, without a copy of its values; `None` if
    /// there is no such column.
    fn reused_column(&self, records: &RecordBatch) -> Option<ArrayRef> {
        let ([only], Scaling::None) = (self.columns.as_slice(), &self.scaling) else {
            return None;
        };
        let list = records.column(only.index).as_fixed_size_list_opt()?;
        let DataType::FixedSizeList(item, len) = self.schema.fields().last()?.data_type() else {
            return None;
        };
        if list.value_type() != DataType::Float32 || list.values().null_count() > 0 {
            return None;
        }
        let vectors =
            FixedSizeListArray::try_new(Arc::clone(item), *len, Arc::clone(list.values()), None)
                .ok()?;
        Some(Arc::new(vectors))
    }

    /// Computes the vectors, row by row, from columns without nulls.
    fn gather(&self, records: &RecordBatch) -> Result<Vec<f32>, StageError> {
        let scales: Vec<FeatureScale> = (0..self.width)
            .map(|index| self.scaling.feature(index))
            .collect();
        let values = self
            .columns
            .iter()
            .map(|column| column.values(records.column(column.index)));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if let ([only], [values]) = (self.columns.as_slice(), values.as_slice()) {
            return Ok(only.scaled(values, &scales));
        }
        let mut vectors = vec![0.0; records.num_rows() * self.width];
        for (block, block_vectors) in vectors.chunks_mut(BLOCK * self.width).enumerate() {
            for (column, column_values) in self.columns.iter().zip(&values) {
                let column_scales = &scales[column.start..column.start + column.len];
                column.write(
                    column_values,
                    column_scales,
                    block * BLOCK,
                    self.width,
                    block_vectors,
                );
            }
        }
        Ok(vectors)
    }
}

/// Rejects the vectors that contain NaN or infinity, and names the column of the value.
pub(super) fn non_finite<T: Copy + Into<f64>>(
    columns: &[FeatureColumn],
    width: usize,
    vectors: &[T],
) -> RejectedRows {
    let mut rejected = RejectedRows::default();
    for (row, vector) in vectors.chunks_exact(width).enumerate() {
        let Some(index) = vector.iter().position(|&value| !value.into().is_finite()) else {
            continue;
        };
        let column = columns.iter().rfind(|column| column.start <= index);
        let name = column.map_or("", |column| column.name.as_str());
        let value: f64 = vector[index].into();
        let reason =
            format!("`{name}` is not a finite number (value {index} of the vector is {value})");
        rejected.add(row, (RejectCode::NotFinite, reason));
    }
    rejected
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{BooleanArray, Float32Array, Int64Array, LargeListArray, ListArray};
    use arrow::datatypes::{Float32Type, Int32Type};
    use expect_test::{Expect, expect};

    use super::super::testing::{batch, faults, floats, of, part, reasons, run, strings};
    use super::*;

    fn vectors(batch: &Batch) -> &[f32] {
        fixed_values(batch.records.column_by_name("features").unwrap()).unwrap()
    }

    fn mixed() -> Batch {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            Some(vec![Some(3), Some(4)]),
            Some(vec![Some(5), Some(6)]),
        ]);
        batch([
            ("name", strings(&["a", "b", "c"])),
            ("n", Arc::new(Int64Array::from(vec![10, 20, 30]))),
            (
                "flag",
                Arc::new(BooleanArray::from(vec![true, false, true])),
            ),
            ("list", Arc::new(lists)),
        ])
    }

    #[test]
    fn numbers_booleans_and_lists_follow_the_order_of_options() {
        let (out, rejects) =
            run::<FeaturesConfig>(r#"{"columns": ["flag", "list", "n"], "width": 4}"#, mixed());
        assert_eq!(
            vectors(&out),
            [
                1.0, 1.0, 2.0, 10.0, 0.0, 3.0, 4.0, 20.0, 1.0, 5.0, 6.0, 30.0
            ]
        );
        let names: Vec<_> = out
            .records
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(names, ["name", "features"]);
        assert!(rejects.is_empty());
        let (kept, _) =
            run::<FeaturesConfig>(r#"{"columns": ["n"], "keep": true, "to": "v"}"#, mixed());
        assert_eq!(kept.records.num_columns(), 5);
    }

    #[test]
    fn scaling_is_computed_in_float64() {
        let input = batch([
            ("a", floats(&[1e9 + 1.0, 1e9 - 1.0])),
            ("b", floats(&[5.0, 7.0])),
        ]);
        let standard =
            r#"{"columns": ["a", "b"], "scaling": "standard", "mean": [1e9, 5], "std": [2, 4]}"#;
        assert_eq!(
            vectors(&run::<FeaturesConfig>(standard, input.clone()).0),
            [0.5, 0.0, -0.5, 0.5]
        );
        let min_max = r#"{"columns": ["b", "a"], "scaling": "min_max",
            "min": [5, 999999999], "max": [6, 1000000001]}"#;
        assert_eq!(
            vectors(&run::<FeaturesConfig>(min_max, input).0),
            [0.0, 1.0, 2.0, 0.0]
        );
    }

    #[test]
    fn vector_column_is_reused_without_copy() {
        let column = fixed_column(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let input = of([(vector_field("x", 2), column)]);
        let before = fixed_values(input.records.column(0)).unwrap().as_ptr();
        let (out, _) = run::<FeaturesConfig>(r#"{"columns": ["x"]}"#, input);
        assert_eq!(vectors(&out).as_ptr(), before);
        assert_eq!(vectors(&out), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn records_with_missing_values_are_rejected_by_column() {
        let lists = LargeListArray::from_iter_primitive::<Float32Type, _, _>([
            Some(vec![Some(1.0), Some(2.0)]),
            None,
            Some(vec![Some(3.0)]),
            Some(vec![Some(4.0), None]),
            Some(vec![Some(5.0), Some(6.0)]),
            Some(vec![Some(7.0), Some(f32::NAN)]),
            Some(vec![Some(8.0), Some(9.0)]),
        ]);
        let x = Float32Array::from(vec![
            None,
            Some(0.0),
            Some(0.0),
            Some(0.0),
            Some(1e38),
            Some(0.0),
            Some(0.5),
        ]);
        let input = batch([("x", Arc::new(x)), ("list", Arc::new(lists))]);
        let scaling = r#""scaling": "standard", "mean": [0, 0, 0], "std": [0.01, 1, 1]"#;
        let (out, rejects) = run::<FeaturesConfig>(
            &format!(r#"{{"columns": ["x", "list"], {scaling}}}"#),
            input,
        );
        assert_eq!(vectors(&out), [50.0, 8.0, 9.0]);
        assert_eq!(out.row_ordinals, [6]);
        expect![[r#"
            0: missing: `x` is null
            1: missing: `list` is null
            2: mismatch: `list` has 1 values, not 2
            3: missing: `list` holds a null
            4: not_finite: `x` is not a finite number (value 0 of the vector is inf)
            5: not_finite: `list` is not a finite number (value 2 of the vector is NaN)"#]]
        .assert_eq(&reasons(&rejects));
    }

    #[test]
    fn vector_column_rejects_records_with_nulls_or_infinity() {
        let item = Arc::new(Field::new("element", DataType::Float32, true));
        let values = Float32Array::from(vec![
            Some(1.0),
            Some(2.0),
            None,
            Some(4.0),
            Some(f32::INFINITY),
            Some(6.0),
        ]);
        let column = FixedSizeListArray::try_new(item, 2, Arc::new(values), None).unwrap();
        let (out, rejects) =
            run::<FeaturesConfig>(r#"{"columns": ["x"]}"#, batch([("x", Arc::new(column))]));
        assert_eq!(
            (vectors(&out), out.row_ordinals.as_slice()),
            (&[1.0, 2.0][..], &[0][..])
        );
        expect![[r#"
            1: missing: `x` holds a null
            2: not_finite: `x` is not a finite number (value 0 of the vector is inf)"#]]
        .assert_eq(&reasons(&rejects));
    }

    #[test]
    fn empty_batch_has_the_planned_schema() {
        for options in [
            r#"{"columns": ["n", "list"], "width": 3}"#,
            r#"{"columns": ["n"]}"#,
        ] {
            let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 0, 0));
            assert_eq!(out.records.num_rows(), 0);
        }
    }

    #[test]
    fn slice_of_a_batch_has_the_vectors_of_its_rows() {
        let options = r#"{"columns": ["list", "n"], "width": 3}"#;
        let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 1, 3));
        assert_eq!(vectors(&out), [3.0, 4.0, 20.0, 5.0, 6.0, 30.0]);
    }

    #[test]
    fn model_card_defines_columns_and_scaling() {
        let scaling = Scaling::Standard {
            mean: vec![20.0],
            std: vec![10.0],
        };
        let card = FeatureInput {
            columns: vec!["n".to_owned()],
            scaling,
        };
        let selected = FeaturesConfig::default().for_model(&card).unwrap();
        let mut faults = Vec::new();
        let plan = FeaturesTransform::new(
            &FeaturesConfig::default(),
            &mixed().records.schema(),
            selected,
            &mut faults,
        )
        .unwrap();
        let out = plan
            .build()
            .unwrap()
            .apply(mixed(), &mut RejectCollector::default())
            .unwrap();
        assert_eq!((vectors(&out), faults), (&[-1.0, 0.0, 1.0][..], vec![]));
        let both = FeaturesConfig {
            columns: vec!["n".to_owned()],
            ..FeaturesConfig::default()
        };
        assert_eq!(
            both.for_model(&card).unwrap_err(),
            "the model card lists the columns; leave out `columns` or `model`"
        );
        let bare = FeatureInput {
            columns: vec![],
            ..card
        };
        assert_eq!(both.for_model(&bare).unwrap().columns, ["n"]);
    }

    #[test]
    fn missing_column_of_the_model_is_a_fault_at_model() {
        let card = FeatureInput {
            columns: vec!["duration".to_owned()],
            scaling: Scaling::None,
        };
        let mut faults = Vec::new();
        FeaturesTransform::new(
            &FeaturesConfig::default(),
            &mixed().records.schema(),
            card,
            &mut faults,
        );
        let expected = ConfigError::new(
            "model",
            "no column `duration`; the input has: name, n, flag, list",
        );
        assert_eq!(faults, [expected]);
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |options: &str, expected: Expect| {
            expected.assert_eq(&faults::<FeaturesConfig>(options, &mixed()))
        };
        check(
            "{}",
            expect!["columns: no column is selected; list the numeric columns of the vector"],
        );
        check(
            r#"{"columns": ["name", "m", "n", "n", "list"], "mean": [1], "to": "n"}"#,
            expect![[r#"
            mean: has no effect without scaling = "standard"
            columns: column `name` holds Utf8, not numbers
            columns: no column `m`; the input has: name, n, flag, list
            columns: column `n` is listed twice
            columns: lists without a fixed length: list; set `width`, for one such column only"#]],
        );
        check(
            r#"{"columns": ["n"], "scaling": "standard", "mean": [1, 2], "std": [0]}"#,
            expect![[r#"
                mean: `mean` and `std` require one number per value; met 2 and 1
                std: must be above 0; for a column that never changes, write 1
                columns: the number of values in the columns is 1, but that of the scaling is 2"#]],
        );
        check(
            r#"{"columns": ["n", "flag"], "scaling": "min_max", "min": [0], "max": [0],
                "width": 3, "to": "name"}"#,
            expect![[r#"
                max: must be above `min`; for a column that never changes, write min + 1
                width: is 3, but the number of values in the columns is 2
                columns: the number of values in the columns is 2, but that of the scaling is 1
                to: the input already has a column `name`; choose another name"#]],
        );
        check(
            r#"{"model": "kdd", "scaling": "none"}"#,
            expect![[r#"
                scaling: the model already defines the scaling of its input; leave this out
                model: no model `kdd`: the pipeline declares none; add [models.kdd]"#]],
        );
    }
}
