//! Unit tests of the module `inference`.

#![allow(clippy::unwrap_used)]

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::source::batch_limits::BatchLimits;
use crate::source::http::body::memory_reservation::MemoryPool;
use crate::source::origin::origin_fields;

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
