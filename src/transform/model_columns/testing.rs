//! Helpers for the tests of these transforms: batches of tensors, and models from
//! `tests/models`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Batch;
use crate::batch::reject::{Reject, RejectCollector};
use crate::error::config_error::ConfigError;
use crate::model::testing::open;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::parse_options;
use crate::tensor::{TensorShape, fixed_column, variable_column, variable_field, vector_field};
use crate::transform::model_columns::field_like;
use crate::transform::testing::of;
use crate::transform::{TransformConfig, TransformPlan};

/// Creates a batch with one tensor column, `x`.
pub(crate) fn tensors(shape: &[usize], values: &[f32]) -> Batch {
    let shape = TensorShape::Fixed(shape.to_vec());
    let field = field_like(&vector_field("x", 1), &shape, "x").unwrap();
    of([(
        field,
        fixed_column(shape.len().unwrap(), values.to_vec()).unwrap(),
    )])
}

/// Creates a batch with one column of images of different sizes, `x`, with the values
/// `value(row, index)`.
pub(crate) fn images(shapes: &[[usize; 3]], value: impl Fn(usize, usize) -> f32) -> Batch {
    let shapes: Vec<Vec<usize>> = shapes.iter().map(|shape| shape.to_vec()).collect();
    let row = |(row, shape): (usize, &Vec<usize>)| {
        (0..shape.iter().product())
            .map(|at| value(row, at))
            .collect()
    };
    let values: Vec<Vec<f32>> = shapes.iter().enumerate().map(row).collect();
    of([(
        variable_field("x", 3).unwrap(),
        variable_column(3, values.concat(), &shapes).unwrap(),
    )])
}

pub(crate) fn plan<C: TransformConfig>(
    model: &str,
    options: &str,
    batch: &Batch,
) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
    let mut config: serde_json::Value = serde_json::from_str(options).unwrap();
    config["model"] = "tested".into();
    let model = open(model).unwrap_or_else(|faults| panic!("{faults:?}"));
    let models = BTreeMap::from([("tested".to_owned(), Some(Arc::new(model)))]);
    parse_options::<C>(config)?.plan(
        &batch.records.schema(),
        &PlanContext::new(models, PipelineLimits::default()),
    )
}

/// Plans and applies a transform, and checks that the schema of the output is the planned one.
pub(crate) fn run<C: TransformConfig>(
    model: &str,
    options: &str,
    batch: Batch,
) -> (Batch, Vec<Reject>) {
    let plan = plan::<C>(model, options, &batch).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut rejects = RejectCollector::default();
    let out = plan.build().unwrap().apply(batch, &mut rejects).unwrap();
    assert_eq!(out.records.schema(), plan.schema());
    assert_eq!(out.records.num_rows(), out.row_ordinals.len());
    (out, rejects.into_vec())
}

/// The faults of a plan, one per line, without the path of the folder of the test models.
pub(crate) fn faults<C: TransformConfig>(model: &str, options: &str, batch: &Batch) -> String {
    let faults = plan::<C>(model, options, batch).err().unwrap_or_default();
    let folder = format!("{}/tests/models/", env!("CARGO_MANIFEST_DIR"));
    let line =
        |fault: ConfigError| format!("{}: {}", fault.key, fault.message.replace(&folder, ""));
    faults.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The values of a column.
pub(crate) fn column(batch: &Batch, name: &str) -> Vec<f32> {
    let column = batch.records.column_by_name(name).unwrap();
    let floats = column.as_any().downcast_ref::<arrow::array::Float32Array>();
    floats.map_or_else(
        || crate::tensor::fixed_values(column).unwrap().to_vec(),
        |floats| floats.values().to_vec(),
    )
}
