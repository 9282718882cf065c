//! Immediate encoding of records: the records of several requests are combined while the workers
//! are busy.

pub(crate) mod group;

use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use crate::batch::provenance::Split;
use crate::source::InferenceRequest;
use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::inference::group::{PendingInference, encode_group};
use crate::source::http::inference_result::{COPIES, InferenceResult, PER_RECORD};
use crate::source::http::response::ResponseOptions;
use crate::source::http::wal::reader::BatchShape;

/// Maximum number of requests that wait to be combined.
const WAITING: usize = 1024;

/// The handle through which requests submit records to encode.
#[derive(Clone)]
pub(super) struct InferenceClient {
    requests: mpsc::Sender<PendingInference>,
}

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

#[cfg(test)]
mod tests;
