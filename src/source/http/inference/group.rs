//! Combines requests into batches, and divides the results.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use tokio::sync::{mpsc, oneshot};

use crate::batch::SourceBatch;
use crate::batch::provenance::Split;
use crate::source::batch_limits::arrow_bytes;
use crate::source::http::ack_waiters::RejectedRecord;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::inference_result::{InferenceResult, PER_REJECT};
use crate::source::http::response::ResponseOptions;
use crate::source::http::wal::reader::{BatchShape, feature_batches};
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::{InferenceRequest, InferenceResponse};

pub(super) struct PendingInference {
    pub(super) records: RecordBatch,
    pub(super) sum: InferenceResult,
    pub(super) options: Arc<ResponseOptions>,
    pub(super) reply: oneshot::Sender<Result<InferenceResult, ErrorResponse>>,
}

/// Sends combined requests to the workers; each request receives its results in the background.
pub(super) async fn encode_group(
    shape: &BatchShape,
    split: &Arc<Split>,
    group: Vec<PendingInference>,
    workers: &mpsc::Sender<InferenceRequest>,
) {
    let batches = match catch_panic(|| batches(shape, split, &group)) {
        Ok(batches) => batches,
        // The records of one request must not fail the others.
        Err(_) if group.len() > 1 => {
            for request in group {
                Box::pin(encode_group(shape, split, vec![request], workers)).await;
            }
            return;
        }
        Err((_, reason)) => {
            // The clients may have disconnected, here and below.
            group
                .into_iter()
                .for_each(|request| drop(request.reply.send(Err(ErrorResponse::failed(&reason)))));
            return;
        }
    };
    // Results are taken as they arrive, and only the requested columns are kept.
    let (sender, answers) = mpsc::unbounded_channel();
    tokio::spawn(gather(group, answers));
    let mut start = 0;
    for batch in batches {
        let len = usize::try_from(batch.batch.provenance.len()).unwrap_or(usize::MAX);
        let (reply, answer) = oneshot::channel();
        if workers
            .send(InferenceRequest { batch, reply })
            .await
            .is_err()
            || sender.send((start, answer)).is_err()
        {
            return;
        }
        start += len;
    }
}

/// The pending results of a batch, with the position of its first record among all.
type PendingReply = (usize, oneshot::Receiver<Result<InferenceResponse, String>>);

/// Collects the results of a group, and sends each request its own.
async fn gather(
    mut group: Vec<PendingInference>,
    mut answers: mpsc::UnboundedReceiver<PendingReply>,
) {
    let records: usize = group.iter().map(|request| request.sum.total).sum();
    let (mut refused, mut ends): (Vec<Option<ErrorResponse>>, usize) =
        (group.iter().map(|_| None).collect(), 0);
    let mut failed: Option<fn(&str) -> ErrorResponse> = None;
    let mut reason = String::new();
    while let Some((start, answer)) = answers.recv().await {
        match answer.await {
            Ok(Ok(answered)) => {
                ends =
                    start + usize::try_from(answered.batch.provenance.len()).unwrap_or(usize::MAX);
                share(&mut group, &mut refused, start, &answered);
            }
            Ok(Err(what)) => {
                reason = what;
                failed = Some(|message| ErrorResponse::failed(message));
            }
            Err(_) => failed = Some(|_| ErrorResponse::ending()),
        }
    }
    // Records that were not sent have no results.
    if ends < records && failed.is_none() {
        failed = Some(|_| ErrorResponse::ending());
    }
    for (request, refusal) in group.into_iter().zip(refused) {
        let refusal = refusal.or_else(|| failed.map(|failed| failed(&reason)));
        drop(request.reply.send(refusal.map_or(Ok(request.sum), Err)));
    }
}

/// The records of all requests, in batches within the limits of the source.
pub(super) fn batches(
    shape: &BatchShape,
    split: &Arc<Split>,
    group: &[PendingInference],
) -> Result<Vec<SourceBatch>, String> {
    let Some(first) = group.first() else {
        return Ok(Vec::new());
    };
    let all = concat_batches(
        &first.records.schema(),
        group.iter().map(|request| &request.records),
    );
    let all = all.map_err(|error| error.to_string())?;
    match shape {
        BatchShape::Images(batch_config) => image_batches(batch_config, split, &all),
        BatchShape::Features { schema, cut } => {
            feature_batches(schema, *cut, split, &[(0, all)]).map_err(|error| error.to_string())
        }
    }
}

fn image_batches(
    batch_config: &ImageBatchConfig,
    split: &Arc<Split>,
    all: &RecordBatch,
) -> Result<Vec<SourceBatch>, String> {
    let wrong = || "the columns of the records differ from those of the source".to_owned();
    let source = all
        .columns()
        .first()
        .and_then(|column| column.as_string_opt::<i32>())
        .ok_or_else(wrong)?;
    let image = all
        .columns()
        .get(1)
        .and_then(|column| column.as_binary_opt::<i32>())
        .ok_or_else(wrong)?;
    let images: Vec<(&str, &[u8])> = (0..all.num_rows())
        .map(|at| (source.value(at), image.value(at)))
        .collect();
    batch_config
        .batches(split, &images)
        .map_err(|error| error.to_string())
}

/// Distributes the results of a batch, whose first record has the position `start` among all, to
/// the requests.
fn share(
    group: &mut [PendingInference],
    refusals: &mut [Option<ErrorResponse>],
    start: usize,
    answered: &InferenceResponse,
) {
    let mut from = 0;
    for (request, refused) in group.iter_mut().zip(refusals) {
        let to = from + request.sum.total;
        // A refused request keeps no results; the others continue.
        if refused.is_none()
            && let Err(refusal) = request.take(from..to, start, answered)
        {
            request.sum.parts.clear();
            request.sum.rejected.clear();
            *refused = Some(refusal);
        }
        from = to;
    }
}

impl PendingInference {
    /// Takes the results of its own records, which have the positions `own` among all.
    fn take(
        &mut self,
        own: Range<usize>,
        start: usize,
        answered: &InferenceResponse,
    ) -> Result<(), ErrorResponse> {
        let InferenceResult {
            parts,
            rejected,
            held,
            charge,
            ..
        } = &mut self.sum;
        let origin = &answered.batch.row_ordinals;
        let first = origin.partition_point(|&ordinal| start + (ordinal as usize) < own.start);
        let last = origin.partition_point(|&ordinal| start + (ordinal as usize) < own.end);
        if first < last {
            let records = answered.batch.records.project(
                &self
                    .options
                    .column_indices(answered.batch.records.schema_ref())?,
            );
            let records = records
                .map_err(ErrorResponse::failed)?
                .slice(first, last - first);
            *held = held.saturating_add(arrow_bytes(&records, 0..records.num_rows()));
            charge.set(*held)?;
            let rows = origin[first..last]
                .iter()
                .map(|&ordinal| start + ordinal as usize - own.start)
                .collect();
            parts.push((records, rows));
        }
        for (stage, reject) in &answered.rejected {
            let at = start + reject.ordinal as usize;
            if own.contains(&at) {
                *held += PER_REJECT + (stage.len() + reject.reason.len()) as u64;
                charge.set(*held)?;
                let (stage, code, reason) = (
                    stage.to_string(),
                    reject.code.as_str(),
                    reject.reason.clone(),
                );
                rejected.push(RejectedRecord {
                    row: (at - own.start) as u64,
                    stage,
                    code,
                    reason,
                });
            }
        }
        Ok(())
    }
}
