//! Runs a source to its end, for the tests of formats.

#![allow(clippy::unwrap_used)]

use arrow::array::RecordBatch;
use serde_json::Value;
use tokio_stream::StreamExt;

use super::*;
use crate::batch::Reject;
use crate::context::{Context, Limits};
use crate::error::Fault;
use crate::source::{BatchSize, SourceConfig};

pub(crate) fn plan<C: SourceConfig>(options: Value, records: u32) -> Result<Box<dyn Source>, Vec<Fault>> {
    let limits = Limits { record_bytes: crate::units::Bytes(1 << 20), ..Limits::default() };
    let context = Context::new(std::collections::BTreeMap::new(), limits);
    let size = BatchSize { records: std::num::NonZeroU32::new(records), ..BatchSize::default() };
    crate::kind::options::<C>(options)?.plan("in", size, &context)
}

pub(crate) fn drain(source: Box<dyn Source>, progress: &Progress) -> Result<Vec<SourceBatch>, StageError> {
    let mut batches = source.open(progress)?.batches;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move {
        let mut all = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            assert_eq!(batch.batch.origin.len(), batch.batch.records.num_rows());
            all.push(batch);
        }
        Ok(all)
    })
}

pub(crate) fn read<C: SourceConfig>(options: Value, records: u32) -> Vec<SourceBatch> {
    drain(plan::<C>(options, records).unwrap(), &Progress::default()).unwrap()
}

/// All records of the batches in one.
pub(crate) fn records(batches: &[SourceBatch]) -> RecordBatch {
    let schema = batches[0].batch.records.schema();
    arrow::compute::concat_batches(&schema, batches.iter().map(|batch| &batch.batch.records)).unwrap()
}

/// Row, code, and bytes of every reject.
pub(crate) fn rejects(batches: &[SourceBatch]) -> Vec<(u64, &'static str, Option<String>)> {
    let of = |batch: &SourceBatch| {
        let provenance = batch.batch.provenance.clone();
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let show = move |reject: &Reject| {
            (provenance.row(reject.ordinal).unwrap().1, reject.code.as_str(), reject.record.as_ref().map(text))
        };
        batch.rejects.iter().map(show).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

/// Progress where one sink has what these batches stand for.
pub(crate) fn progress_of(batches: &[SourceBatch]) -> Progress {
    let mut coverage = crate::coverage::Coverage::default();
    batches.iter().for_each(|batch| coverage.insert(&batch.batch.provenance));
    Progress { sinks: std::sync::Arc::new(vec![coverage]), state: None }
}
