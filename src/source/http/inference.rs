//! Immediate encoding of records: the records of several requests are combined while the workers
//! are busy.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use tokio::sync::{mpsc, oneshot};

use crate::batch::{SourceBatch, Split};
use crate::source::batch_limits::arrow_bytes;
use crate::source::file_source::catch_panic;
use crate::source::http::ack_waiters::RejectedRecord;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::memory_reservation::MemoryReservation;
use crate::source::http::response::ResponseOptions;
use crate::source::http::wal_reader::{BatchShape, feature_batches};
use crate::source::image_batcher::ImageBatchConfig;
use crate::source::{InferenceRequest, InferenceResponse};

/// Maximum number of requests that wait to be combined.
const WAITING: usize = 1024;

/// The handle through which requests submit records to encode.
#[derive(Clone)]
pub(super) struct InferenceClient {
    requests: mpsc::Sender<PendingInference>,
}

struct PendingInference {
    records: RecordBatch,
    sum: InferenceResult,
    options: Arc<ResponseOptions>,
    reply: oneshot::Sender<Result<InferenceResult, ErrorResponse>>,
}

/// The results of a request's records.
pub(super) struct InferenceResult {
    /// Number of submitted records.
    pub(super) total: usize,
    /// The requested columns of the records that passed the graph, with the position of each record
    /// in the request.
    pub(super) parts: Vec<(RecordBatch, Vec<usize>)>,
    /// Rejected records; `row` is the position in the request.
    pub(super) rejected: Vec<RejectedRecord>,
    /// Size of all results in bytes.
    pub(super) held: u64,
    pub(super) charge: MemoryReservation,
}

/// Number of copies of the records in memory: as received, combined with others, and cut into
/// batches.
const COPIES: u64 = 3;
/// Bytes of the response for each record, in addition to its values.
const PER_RECORD: u64 = 96;
/// Bytes of a rejected record, in addition to its stage and reason.
const PER_REJECT: u64 = 128;

impl InferenceClient {
    /// Starts the task that combines requests and sends them to `workers`.
    pub(super) fn start(
        shape: BatchShape,
        stage: &str,
        workers: mpsc::Sender<InferenceRequest>,
    ) -> Self {
        let (requests, mut submitted) = mpsc::channel::<PendingInference>(WAITING);
        let split = Split::new(format!("{stage}/encode"));
        tokio::spawn(async move {
            while let Some(first) = submitted.recv().await {
                // Requests that arrive while the workers are busy are combined; nothing else delays
                // them.
                let Ok(slot) = workers.reserve().await else {
                    return;
                };
                let mut group = vec![first];
                let mut records = group[0].records.num_rows();
                while records < shape.max_records()
                    && let Ok(request) = submitted.try_recv()
                {
                    records += request.records.num_rows();
                    group.push(request);
                }
                drop(slot);
                encode_group(&shape, &split, group, &workers).await;
            }
        });
        Self { requests }
    }

    /// Processes records (`source`, then the columns) in the graph; they use `held` bytes of the
    /// charge.
    ///
    /// # Errors
    /// Returns an error if the run ends, a stage fails, or no memory is available for the results.
    pub(super) async fn encode(
        &self,
        records: RecordBatch,
        held: u64,
        mut charge: MemoryReservation,
        options: Arc<ResponseOptions>,
    ) -> Result<InferenceResult, ErrorResponse> {
        let total = records.num_rows();
        let held = held
            .saturating_mul(COPIES)
            .saturating_add(PER_RECORD * total as u64);
        charge.set(held)?;
        let (reply, encoded) = oneshot::channel();
        let sum = InferenceResult {
            total,
            parts: Vec::new(),
            rejected: Vec::new(),
            held,
            charge,
        };
        self.requests
            .send(PendingInference {
                records,
                sum,
                options,
                reply,
            })
            .await
            .map_err(|_| ErrorResponse::ending())?;
        encoded
            .await
            .unwrap_or_else(|_| Err(ErrorResponse::ending()))
    }
}

/// Sends combined requests to the workers; each request receives its results in the background.
async fn encode_group(
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
fn batches(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::source::batch_limits::BatchLimits;
    use crate::source::http::memory_reservation::MemoryPool;
    use crate::source::origin_fields;

    /// A request with one record of a column.
    fn request(
        column: ArrayRef,
    ) -> (
        PendingInference,
        oneshot::Receiver<Result<InferenceResult, ErrorResponse>>,
    ) {
        let source: ArrayRef = Arc::new(StringArray::from(vec!["me"]));
        let records = RecordBatch::try_from_iter([("source", source), ("x", column)]).unwrap();
        let (reply, answer) = oneshot::channel();
        let charge = MemoryPool::new(1 << 20).charge();
        let sum = InferenceResult {
            total: 1,
            parts: Vec::new(),
            rejected: Vec::new(),
            held: 0,
            charge,
        };
        (
            PendingInference {
                records,
                sum,
                options: Arc::new(ResponseOptions::new(None, "")),
                reply,
            },
            answer,
        )
    }

    #[tokio::test]
    async fn request_with_other_columns_fails_alone() {
        let fields = origin_fields()
            .into_iter()
            .chain([Field::new("x", DataType::Float64, false)]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let shape = BatchShape::Features {
            schema,
            cut: BatchLimits {
                records: 8,
                bytes: 1 << 20,
                soft_max_records: 8,
            },
        };
        let (workers, mut received) = mpsc::channel(8);
        let (valid, invalid) = (
            || request(Arc::new(Float64Array::from(vec![1.0]))),
            request(Arc::new(StringArray::from(vec!["not a number"]))),
        );
        let ((one, _kept), (two, refused), (three, _also)) = (valid(), invalid, valid());
        encode_group(
            &shape,
            &Split::new("in/encode"),
            vec![one, two, three],
            &workers,
        )
        .await;
        drop(workers);
        let mut rows = 0;
        while let Some(request) = received.recv().await {
            rows += request.batch.batch.records.num_rows();
        }
        assert_eq!(rows, 2);
        assert_eq!(refused.await.unwrap().err().unwrap().status.as_u16(), 500);
    }
}
