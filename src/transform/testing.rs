//! Helpers for the tests of transforms: batches from columns, plans from JSON, and faults as text.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};

use super::{TransformConfig, TransformPlan};
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::batch::reject::{Reject, RejectCollector};
use crate::error::config_error::ConfigError;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::parse_options;

/// A context without models.
pub(super) fn context() -> PlanContext {
    PlanContext::new(BTreeMap::new(), PipelineLimits::default())
}

/// Creates a batch of nullable columns without metadata.
pub(super) fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Batch {
    of(columns.map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column)))
}

/// Creates a batch of columns with the given fields.
pub(super) fn of<const N: usize>(columns: [(Field, ArrayRef); N]) -> Batch {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let rows = records.num_rows() as u64;
    Batch::new(records, Provenance::rows(Split::new("test"), 0..rows))
}

/// The rows `from..to` of a batch, with unchanged provenance.
pub(super) fn part(batch: &Batch, from: usize, to: usize) -> Batch {
    Batch {
        records: batch.records.slice(from, to - from),
        row_ordinals: batch.row_ordinals[from..to].to_vec(),
        provenance: Arc::clone(&batch.provenance),
    }
}

pub(super) fn floats(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

pub(super) fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Plans a transform from options as JSON.
pub(super) fn plan<C: TransformConfig>(
    options: &str,
    batch: &Batch,
) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
    parse_options::<C>(serde_json::from_str(options).unwrap())?
        .plan(&batch.records.schema(), &context())
}

/// Plans and applies a transform, and checks that the schema of the output is the planned one.
pub(super) fn run<C: TransformConfig>(options: &str, batch: Batch) -> (Batch, Vec<Reject>) {
    let plan = plan::<C>(options, &batch).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut rejects = RejectCollector::default();
    let out = plan.build().unwrap().apply(batch, &mut rejects).unwrap();
    assert_eq!(out.records.schema(), plan.schema());
    assert_eq!(out.records.num_rows(), out.row_ordinals.len());
    (out, rejects.into_vec())
}

/// The faults of a plan, one per line.
pub(super) fn faults<C: TransformConfig>(options: &str, batch: &Batch) -> String {
    let faults = plan::<C>(options, batch).err().unwrap_or_default();
    let line = |fault: ConfigError| match fault.key.as_str() {
        "" => format!("(stage): {}", fault.message),
        key => format!("{key}: {}", fault.message),
    };
    faults.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The rejects, one per line.
pub(super) fn reasons(rejects: &[Reject]) -> String {
    let line = |reject: &Reject| {
        format!(
            "{}: {}: {}",
            reject.ordinal,
            reject.code.as_str(),
            reject.reason
        )
    };
    rejects.iter().map(line).collect::<Vec<_>>().join("\n")
}
