//! The transform `features`: chooses numeric columns, scales them, puts them into one vector
//! column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::feature_column::{BLOCK, FeatureColumn};
use super::rows::{RejectedRows, append, find};
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::{ConfigError, StageError};
use crate::model::{FeatureInput, Scaling};
use crate::plan_context::PlanContext;
use crate::tensor::{all_finite, fixed_column, fixed_values, vector_field};

/// The options: the columns and their scaling, or the model whose card knows both.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct FeaturesConfig {
    /// The columns, in the order of the vector: numbers, truth values (1 and 0), or lists, which
    /// give all their values. Not needed where the model's card names them.
    #[schemars(extend("x-changes-rows" = true))]
    pub columns: Vec<String>,
    /// Take columns and scaling from this model's card.
    // Its digest stands for it.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// How values are scaled, where no model says: `none`, `standard` (with `mean` and `std`) or
    /// `min_max` (with `min` and `max`).
    #[schemars(extend("x-changes-rows" = true))]
    pub scaling: Option<ScalingMethod>,
    /// For `standard`: subtracted, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub mean: Vec<f64>,
    /// For `standard`: divided by, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub std: Vec<f64>,
    /// For `min_max`: what becomes 0, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub min: Vec<f64>,
    /// For `min_max`: what becomes 1, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub max: Vec<f64>,
    /// Values of the whole vector; needed only for a column of lists whose length is not fixed,
    /// without scaling.
    #[schemars(extend("x-changes-rows" = true))]
    pub width: Option<usize>,
    /// The name of the vector column.
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
    /// Keep the columns that were used.
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

/// Methods of scaling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScalingMethod {
    /// Values stay as they are.
    #[default]
    None,
    /// `(value - mean) / std`.
    Standard,
    /// `(value - min) / (max - min)`; values outside the range leave 0..1.
    MinMax,
}

impl TransformConfig for FeaturesConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = self.unused();
        let chosen = match &self.model {
            None => FeatureInput {
                columns: self.columns.clone(),
                scaling: self.scaling(&mut faults),
            },
            Some(name) => {
                let model = context
                    .model(name)
                    .map_err(|more| faults.iter().cloned().chain(more).collect::<Vec<_>>())?;
                let taken = model
                    .feature_input()
                    .ok_or_else(|| format!("model `{name}` takes no feature records"));
                let chosen = taken.and_then(|input| self.for_model(input));
                chosen.map_err(|message| vec![ConfigError::new("model", message)])?
            }
        };
        let planned = FeaturesTransform::new(self, input, chosen, &mut faults);
        match planned {
            Some(planned) if faults.is_empty() => {
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
    /// Faults for options that the others leave without effect.
    fn unused(&self) -> Vec<ConfigError> {
        let method = self.scaling.unwrap_or_default();
        let lists = [
            ("mean", &self.mean, ScalingMethod::Standard),
            ("std", &self.std, ScalingMethod::Standard),
            ("min", &self.min, ScalingMethod::MinMax),
            ("max", &self.max, ScalingMethod::MinMax),
        ];
        let idle = lists
            .into_iter()
            .filter(|(_, list, owner)| !list.is_empty() && *owner != method);
        let mut faults: Vec<ConfigError> = idle
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
                "the model says already how its input is scaled; leave this out",
            ));
        }
        faults
    }

    /// The scaling as written; its lists are sound and of equal length where no fault is added.
    fn scaling(&self, faults: &mut Vec<ConfigError>) -> Scaling {
        let (low, high) = match self.scaling.unwrap_or_default() {
            ScalingMethod::None => return Scaling::None,
            ScalingMethod::Standard => (("mean", &self.mean), ("std", &self.std)),
            ScalingMethod::MinMax => (("min", &self.min), ("max", &self.max)),
        };
        if low.1.len() != high.1.len() || low.1.is_empty() {
            let lengths = format!("met {} and {}", low.1.len(), high.1.len());
            let message = format!(
                "`{}` and `{}` need one number per value; {lengths}",
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

    /// The model's input, with the columns of the options where the model does not name its own.
    fn for_model(&self, input: &FeatureInput) -> Result<FeatureInput, String> {
        match (input.columns.is_empty(), self.columns.is_empty()) {
            (false, true) => Ok(input.clone()),
            (true, _) => Ok(FeatureInput {
                columns: self.columns.clone(),
                scaling: input.scaling.clone(),
            }),
            (false, false) => Err(
                "the model's card names its columns; leave `columns` out, or the model".to_owned(),
            ),
        }
    }
}

#[derive(Clone)]
struct FeaturesTransform {
    columns: Vec<FeatureColumn>,
    width: usize,
    scaling: Scaling,
    /// Places of the columns that stay.
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl FeaturesTransform {
    fn new(
        config: &FeaturesConfig,
        input: &Schema,
        chosen: FeatureInput,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let key = if chosen.columns == config.columns {
            "columns"
        } else {
            "model"
        };
        if chosen.columns.is_empty() {
            faults.push(ConfigError::new(
                key,
                "no column is chosen; list the numeric columns that make up the vector",
            ));
            return None;
        }
        let width = config.width.or_else(|| scaled_values(&chosen.scaling));
        let columns = resolve(input, key, &chosen.columns, width, faults)?;
        let found = columns.iter().map(|column| column.len).sum();
        if let Some(width) = config.width.filter(|&width| width != found) {
            faults.push(ConfigError::new(
                "width",
                format!("is {width}, but the columns hold {found} values"),
            ));
        }
        if let Some(scaled) = scaled_values(&chosen.scaling).filter(|&scaled| scaled != found) {
            faults.push(ConfigError::new(
                key,
                format!("the columns hold {found} values, but the scaling is for {scaled}"),
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
        let schema = append(&stays, "to", vector_field(&config.to, found))
            .map_err(|fault| faults.push(fault))
            .ok()?;
        Some(Self {
            columns,
            width: found,
            scaling: chosen.scaling,
            kept,
            schema,
        })
    }
}

/// How many values a scaling is for, where it says.
fn scaled_values(scaling: &Scaling) -> Option<usize> {
    match scaling {
        Scaling::None => None,
        Scaling::Standard { mean: values, .. } | Scaling::MinMax { min: values, .. } => {
            Some(values.len())
        }
    }
}

/// The columns with their places in the vector; one list of unknown length takes what the others
/// leave of `width`.
fn resolve(
    input: &Schema,
    key: &str,
    names: &[String],
    width: Option<usize>,
    faults: &mut Vec<ConfigError>,
) -> Option<Vec<FeatureColumn>> {
    let before = faults.len();
    let mut found: Vec<(&str, usize, Option<usize>, bool)> = Vec::new();
    for name in names {
        match find(input, key, name) {
            Err(fault) => faults.push(fault),
            Ok((index, _)) if found.iter().any(|(_, earlier, ..)| *earlier == index) => {
                faults.push(ConfigError::new(
                    key,
                    format!("column `{name}` is chosen twice"),
                ));
            }
            Ok((index, field)) => match length(field.data_type()) {
                Ok((len, list)) => found.push((name, index, len, list)),
                Err(met) => faults.push(ConfigError::new(
                    key,
                    format!("column `{name}` holds {met}, not numbers"),
                )),
            },
        }
    }
    let fixed: usize = found.iter().filter_map(|(_, _, len, _)| *len).sum();
    let open: Vec<&str> = found
        .iter()
        .filter(|(_, _, len, _)| len.is_none())
        .map(|(name, ..)| *name)
        .collect();
    let rest = match (open.as_slice(), width) {
        ([], _) => 0,
        ([_], Some(width)) if width > fixed => width - fixed,
        _ => {
            let message = format!(
                "lists of no fixed length: {}; give `width`, for one such column",
                open.join(", ")
            );
            faults.push(ConfigError::new(key, message));
            0
        }
    };
    let mut start = 0;
    let columns = found.into_iter().map(|(name, index, len, list)| {
        let column = FeatureColumn {
            name: name.to_owned(),
            index,
            start,
            len: len.unwrap_or(rest),
            list,
        };
        start += column.len;
        column
    });
    let columns = columns.collect();
    if i32::try_from(start).is_err() {
        faults.push(ConfigError::new(
            key,
            format!("{start} values are more than a vector can hold"),
        ));
    }
    (faults.len() == before).then_some(columns)
}

/// How many values a column of this type gives, where that is fixed, and whether it holds lists.
fn length(column: &DataType) -> Result<(Option<usize>, bool), &DataType> {
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
            Scaling::None => "as they are",
            Scaling::Standard { .. } => "standardised",
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
        let vectors = match self.whole(&batch.records) {
            Some(vectors) => vectors,
            None => fixed_column(self.width, self.gather(&batch.records)?)?,
        };
        let infinite = self.not_finite(fixed_values(&vectors).unwrap_or_default());
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
    /// The one column that is the vector already, without a copy of its values.
    fn whole(&self, records: &RecordBatch) -> Option<ArrayRef> {
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

    /// The vectors, row after row, from columns without nulls.
    fn gather(&self, records: &RecordBatch) -> Result<Vec<f32>, StageError> {
        let affine: Vec<(f64, f64)> = (0..self.width)
            .map(|place| self.scaling.affine(place))
            .collect();
        let values = self
            .columns
            .iter()
            .map(|column| column.values(records.column(column.index)));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if let ([only], [values]) = (self.columns.as_slice(), values.as_slice()) {
            return Ok(only.scaled(values, &affine));
        }
        let mut vectors = vec![0.0; records.num_rows() * self.width];
        for (block, vectors) in vectors.chunks_mut(BLOCK * self.width).enumerate() {
            for (column, values) in self.columns.iter().zip(&values) {
                let affine = &affine[column.start..column.start + column.len];
                column.write(values, affine, block * BLOCK, self.width, vectors);
            }
        }
        Ok(vectors)
    }

    /// Refuses the vectors that hold NaN or infinity, with the column that they came from.
    fn not_finite(&self, vectors: &[f32]) -> RejectedRows {
        let mut refused = RejectedRows::default();
        if all_finite(vectors) {
            return refused;
        }
        for (row, vector) in vectors.chunks_exact(self.width).enumerate() {
            let Some(place) = vector.iter().position(|value| !value.is_finite()) else {
                continue;
            };
            let column = self.columns.iter().rfind(|column| column.start <= place);
            let name = column.map_or("", |column| column.name.as_str());
            let reason = format!(
                "`{name}` is not a finite number (value {place} of the vector is {})",
                vector[place]
            );
            refused.add(row, (RejectCode::NotFinite, reason));
        }
        refused
    }
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
    fn numbers_truth_values_and_lists_stand_in_the_vector_in_the_order_of_the_options() {
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
        let (out, _) =
            run::<FeaturesConfig>(r#"{"columns": ["n"], "keep": true, "to": "v"}"#, mixed());
        assert_eq!(out.records.num_columns(), 5);
    }

    #[test]
    fn scaling_counts_in_float64_before_it_rounds() {
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
        let min_max = r#"{"columns": ["b", "a"], "scaling": "min_max", "min": [5, 999999999], "max": [6, 1000000001]}"#;
        assert_eq!(
            vectors(&run::<FeaturesConfig>(min_max, input).0),
            [0.0, 1.0, 2.0, 0.0]
        );
    }

    #[test]
    fn a_vector_column_passes_without_a_copy_of_its_values() {
        let column = fixed_column(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let input = of([(vector_field("x", 2), column)]);
        let before = fixed_values(input.records.column(0)).unwrap().as_ptr();
        let (out, _) = run::<FeaturesConfig>(r#"{"columns": ["x"]}"#, input);
        assert_eq!(vectors(&out).as_ptr(), before);
        assert_eq!(vectors(&out), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn records_that_lack_a_value_are_refused_with_the_column_that_lacks_it() {
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
    fn a_vector_column_with_nulls_or_nan_loses_just_those_records() {
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
        assert_eq!(rejects.len(), 2);
    }

    #[test]
    fn a_batch_without_rows_comes_out_in_the_planned_schema() {
        for options in [
            r#"{"columns": ["n", "list"], "width": 3}"#,
            r#"{"columns": ["n"]}"#,
        ] {
            let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 0, 0));
            assert_eq!(out.records.num_rows(), 0);
        }
    }

    #[test]
    fn slices_of_a_batch_give_the_same_vectors() {
        let options = r#"{"columns": ["list", "n"], "width": 3}"#;
        let (out, _) = run::<FeaturesConfig>(options, part(&mixed(), 1, 3));
        assert_eq!(vectors(&out), [3.0, 4.0, 20.0, 5.0, 6.0, 30.0]);
    }

    #[test]
    fn the_models_card_names_columns_and_scaling() {
        let scaling = Scaling::Standard {
            mean: vec![20.0],
            std: vec![10.0],
        };
        let card = FeatureInput {
            columns: vec!["n".to_owned()],
            scaling,
        };
        let chosen = FeaturesConfig::default().for_model(&card).unwrap();
        let mut faults = Vec::new();
        let plan = FeaturesTransform::new(
            &FeaturesConfig::default(),
            &mixed().records.schema(),
            chosen,
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
        assert!(both.for_model(&card).is_err());
        let bare = FeatureInput {
            columns: vec![],
            ..card
        };
        assert_eq!(both.for_model(&bare).unwrap().columns, ["n"]);
    }

    #[test]
    fn a_column_that_the_model_needs_and_the_input_lacks_is_a_fault_of_the_model() {
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
    fn every_fault_is_named() {
        let check = |options: &str, expected: Expect| {
            expected.assert_eq(&faults::<FeaturesConfig>(options, &mixed()))
        };
        check(
            "{}",
            expect![
                "columns: no column is chosen; list the numeric columns that make up the vector"
            ],
        );
        check(
            r#"{"columns": ["name", "m", "n", "n", "list"], "mean": [1], "to": "n"}"#,
            expect![[r#"
                mean: has no effect without scaling = "standard"
                columns: column `name` holds Utf8, not numbers
                columns: no column `m`; the input has: name, n, flag, list
                columns: column `n` is chosen twice
                columns: lists of no fixed length: list; give `width`, for one such column"#]],
        );
        check(
            r#"{"columns": ["n"], "scaling": "standard", "mean": [1, 2], "std": [0]}"#,
            expect![[r#"
                mean: `mean` and `std` need one number per value; met 2 and 1
                std: must be above 0; for a column that never changes, write 1
                columns: the columns hold 1 values, but the scaling is for 2"#]],
        );
        check(
            r#"{"columns": ["n", "flag"], "scaling": "min_max", "min": [0], "max": [0], "width": 3, "to": "name"}"#,
            expect![[r#"
                max: must be above `min`; for a column that never changes, write min + 1
                width: is 3, but the columns hold 2 values
                columns: the columns hold 2 values, but the scaling is for 1
                to: the input has a column `name` already; choose another name"#]],
        );
        check(
            r#"{"model": "kdd", "scaling": "none"}"#,
            expect![[r#"
                scaling: the model says already how its input is scaled; leave this out
                model: no model `kdd`: the pipeline declares none; add [models.kdd]"#]],
        );
    }
}
