//! Test helpers that plan a source and read it to its end.

#![allow(clippy::unwrap_used)]

use arrow::array::RecordBatch;
use serde_json::Value;
use tokio_stream::StreamExt;

use super::*;
use crate::batch::SourceBatch;
use crate::batch::reject::Reject;
use crate::coverage::ResumeState;
use crate::error::config_error::ConfigError;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::source::batch_size::BatchSize;
use crate::source::{Source, SourceConfig};

pub(crate) fn plan<C: SourceConfig>(
    options: Value,
    records: u32,
) -> Result<Box<dyn Source>, Vec<ConfigError>> {
    let limits = PipelineLimits {
        record_bytes: crate::units::ByteSize(1 << 20),
        ..PipelineLimits::default()
    };
    let context = PlanContext::new(std::collections::BTreeMap::new(), limits);
    let size = BatchSize {
        records: std::num::NonZeroU32::new(records),
        ..BatchSize::default()
    };
    crate::registry::parse_options::<C>(options)?.plan("in", size, &context)
}

pub(crate) fn drain(
    source: Box<dyn Source>,
    resume: &ResumeState,
) -> Result<Vec<SourceBatch>, StageError> {
    let mut batches = source.open(resume)?.batches;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let mut all = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            assert_eq!(
                batch.batch.row_ordinals.len(),
                batch.batch.records.num_rows()
            );
            all.push(batch);
        }
        Ok(all)
    })
}

pub(crate) fn read<C: SourceConfig>(options: Value, records: u32) -> Vec<SourceBatch> {
    drain(
        plan::<C>(options, records).unwrap(),
        &ResumeState::default(),
    )
    .unwrap()
}

/// Concatenates the records of the batches.
pub(crate) fn records(batches: &[SourceBatch]) -> RecordBatch {
    let schema = batches[0].batch.records.schema();
    arrow::compute::concat_batches(&schema, batches.iter().map(|batch| &batch.batch.records))
        .unwrap()
}

/// Returns the row, the code and the original of every reject.
pub(crate) fn rejects(batches: &[SourceBatch]) -> Vec<(u64, &'static str, Option<String>)> {
    let of = |batch: &SourceBatch| {
        let provenance = batch.batch.provenance.clone();
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let show = move |reject: &Reject| {
            (
                provenance.row(reject.ordinal).unwrap().1,
                reject.code.as_str(),
                reject.record.as_ref().map(text),
            )
        };
        batch.rejects.iter().map(show).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

/// The state in which one sink has committed these batches.
pub(crate) fn progress_of(batches: &[SourceBatch]) -> ResumeState {
    let mut coverage = crate::coverage::Coverage::default();
    batches
        .iter()
        .for_each(|batch| coverage.insert(&batch.batch.provenance));
    ResumeState {
        sinks: std::sync::Arc::new(vec![coverage]),
        state: None,
    }
}
