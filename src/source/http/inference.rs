//! Records that are encoded at once: those of several requests together, as many as come while
//! workers are busy.

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

/// Requests that wait to be put together.
const WAITING: usize = 1024;

/// Where requests hand in what is to be encoded.
#[derive(Clone)]
pub(super) struct InferenceClient {
    wishes: mpsc::Sender<PendingInference>,
}

struct PendingInference {
    records: RecordBatch,
    sum: InferenceResult,
    wanted: Arc<ResponseOptions>,
    reply: oneshot::Sender<Result<InferenceResult, ErrorResponse>>,
}

/// What came of the records of a request.
pub(super) struct InferenceResult {
    /// Records that were handed in.
    pub(super) total: usize,
    /// The columns that are wanted of those that came through, and the place of each in the
    /// request.
    pub(super) parts: Vec<(RecordBatch, Vec<usize>)>,
    /// Those that were refused; `row` is the place in the request.
    pub(super) rejected: Vec<RejectedRecord>,
    /// Bytes that all of this takes.
    pub(super) held: u64,
    pub(super) charge: MemoryReservation,
}

/// Records are held as they came, put together with others, and cut into batches.
const COPIES: u64 = 3;
/// Bytes that the answer takes for each record, besides its values.
const PER_RECORD: u64 = 96;
/// Bytes of a record that was refused, besides what is said of it.
const PER_REJECT: u64 = 128;

impl InferenceClient {
    /// Puts requests together, and asks through `asks`.
    pub(super) fn start(
        shape: BatchShape,
        stage: &str,
        asks: mpsc::Sender<InferenceRequest>,
    ) -> Self {
        let (wishes, mut heard) = mpsc::channel::<PendingInference>(WAITING);
        let split = Split::new(format!("{stage}/encode"));
        tokio::spawn(async move {
            while let Some(first) = heard.recv().await {
                // Nothing is waited for: who comes while workers are busy goes together.
                let Ok(place) = asks.reserve().await else {
                    return;
                };
                let mut group = vec![first];
                let mut records = group[0].records.num_rows();
                while records < shape.most()
                    && let Ok(wish) = heard.try_recv()
                {
                    records += wish.records.num_rows();
                    group.push(wish);
                }
                drop(place);
                encode_group(&shape, &split, group, &asks).await;
            }
        });
        Self { wishes }
    }

    /// Carries records (`source`, then the columns) through the graph; they take `held` bytes of
    /// the charge.
    ///
    /// # Errors
    /// When the run ends, a stage fails, or there is no memory for what comes of them.
    pub(super) async fn encode(
        &self,
        records: RecordBatch,
        held: u64,
        mut charge: MemoryReservation,
        wanted: Arc<ResponseOptions>,
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
        self.wishes
            .send(PendingInference {
                records,
                sum,
                wanted,
                reply,
            })
            .await
            .map_err(|_| ErrorResponse::ending())?;
        encoded
            .await
            .unwrap_or_else(|_| Err(ErrorResponse::ending()))
    }
}

/// Sends what was put together on its way; each request hears of its own in the background.
async fn encode_group(
    shape: &BatchShape,
    split: &Arc<Split>,
    group: Vec<PendingInference>,
    asks: &mpsc::Sender<InferenceRequest>,
) {
    let batches = match catch_panic(|| batches(shape, split, &group)) {
        Ok(batches) => batches,
        // The records of one request must not fail the others.
        Err(_) if group.len() > 1 => {
            for wish in group {
                Box::pin(encode_group(shape, split, vec![wish], asks)).await;
            }
            return;
        }
        Err((_, reason)) => {
            // Who asked may have gone; here and below.
            group
                .into_iter()
                .for_each(|wish| drop(wish.reply.send(Err(ErrorResponse::failed(&reason)))));
            return;
        }
    };
    // Answers are taken as they come: only the columns that are wanted are kept.
    let (sender, answers) = mpsc::unbounded_channel();
    tokio::spawn(gather(group, answers));
    let mut start = 0;
    for batch in batches {
        let len = usize::try_from(batch.batch.provenance.len()).unwrap_or(usize::MAX);
        let (reply, answer) = oneshot::channel();
        if asks.send(InferenceRequest { batch, reply }).await.is_err()
            || sender.send((start, answer)).is_err()
        {
            return;
        }
        start += len;
    }
}

/// The answer for a batch, which begins at a record of all.
type PendingReply = (usize, oneshot::Receiver<Result<InferenceResponse, String>>);

/// Takes the answers for a group, and hands each request its own.
async fn gather(
    mut group: Vec<PendingInference>,
    mut answers: mpsc::UnboundedReceiver<PendingReply>,
) {
    let records: usize = group.iter().map(|wish| wish.sum.total).sum();
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
                failed = Some(|reason| ErrorResponse::failed(reason));
            }
            Err(_) => failed = Some(|_| ErrorResponse::ending()),
        }
    }
    // What was not asked any more was not answered.
    if ends < records && failed.is_none() {
        failed = Some(|_| ErrorResponse::ending());
    }
    for (wish, refusal) in group.into_iter().zip(refused) {
        let refusal = refusal.or_else(|| failed.map(|failed| failed(&reason)));
        drop(wish.reply.send(refusal.map_or(Ok(wish.sum), Err)));
    }
}

/// The records of all requests, in batches of the size that the source's may have.
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
        group.iter().map(|wish| &wish.records),
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
    let wrong = || "the records have other columns than the source".to_owned();
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

/// What came of a batch that begins at the record `start` of all, handed to each request by its own
/// records.
fn share(
    group: &mut [PendingInference],
    refused: &mut [Option<ErrorResponse>],
    start: usize,
    answered: &InferenceResponse,
) {
    let mut from = 0;
    for (wish, refused) in group.iter_mut().zip(refused) {
        let to = from + wish.sum.total;
        // A request that is refused keeps nothing, and others go on.
        if refused.is_none()
            && let Err(refusal) = wish.take(from..to, start, answered)
        {
            wish.sum.parts.clear();
            wish.sum.rejected.clear();
            *refused = Some(refusal);
        }
        from = to;
    }
}

impl PendingInference {
    /// Takes what came of its own records, those of `own` among all.
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
            let records = answered
                .batch
                .records
                .project(&self.wanted.places(answered.batch.records.schema_ref())?);
            let records = records
                .map_err(ErrorResponse::failed)?
                .slice(first, last - first);
            *held = held.saturating_add(arrow_bytes(&records, 0..records.num_rows()));
            charge.set(*held)?;
            let places = origin[first..last]
                .iter()
                .map(|&ordinal| start + ordinal as usize - own.start)
                .collect();
            parts.push((records, places));
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
    fn wish(
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
                wanted: Arc::new(ResponseOptions::new(None, "")),
                reply,
            },
            answer,
        )
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_put_together_fails_alone() {
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
        let (asks, mut asked) = mpsc::channel(8);
        let (sound, bad) = (
            || wish(Arc::new(Float64Array::from(vec![1.0]))),
            wish(Arc::new(StringArray::from(vec!["no number"]))),
        );
        let ((one, _kept), (two, refused), (three, _also)) = (sound(), bad, sound());
        encode_group(
            &shape,
            &Split::new("in/encode"),
            vec![one, two, three],
            &asks,
        )
        .await;
        drop(asks);
        let mut rows = 0;
        while let Some(ask) = asked.recv().await {
            rows += ask.batch.batch.records.num_rows();
        }
        assert_eq!(rows, 2);
        assert_eq!(refused.await.unwrap().err().unwrap().status.as_u16(), 500);
    }
}
