//! The route `/v1/encode`, which encodes records.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::source::http::body::parse::{ParsedRequest, ReceivedRequest, aside, parse_body};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::response::ResponseOptions;
use crate::source::http::routes::{HttpState, QueryParams};
use crate::source::http::wal::group_commit::CommitOutcome;

pub(super) fn accepted(answer: CommitOutcome) -> Result<(u64, u32, bool), ErrorResponse> {
    match answer {
        CommitOutcome::Accepted {
            first,
            rows,
            duplicate,
        } => Ok((first, rows, duplicate)),
        CommitOutcome::KeyReused => {
            let message = "this Idempotency-Key was used for a request with another body, source \
                           or type; use a different key for each request";
            Err(ErrorResponse::unprocessable(message))
        }
        CommitOutcome::BacklogFull => {
            let message = "the backlog of records that are not committed is full (limits.backlog)";
            Err(ErrorResponse::later(
                StatusCode::TOO_MANY_REQUESTS,
                message,
                5,
            ))
        }
        CommitOutcome::Failed => {
            let message = "the records cannot be made durable because the disk is full or fails";
            Err(ErrorResponse::later(
                StatusCode::INSUFFICIENT_STORAGE,
                message,
                30,
            ))
        }
    }
}

/// Processes the records immediately, and responds with their results.
pub(super) async fn infer(
    shared: Arc<HttpState>,
    query: QueryParams,
    arrived: ReceivedRequest,
) -> Result<Response, ErrorResponse> {
    if query.ack.is_some() {
        return Err(ErrorResponse::bad(
            "`ack` is not supported by /v1/encode, which does not store records",
        ));
    }
    let options = Arc::new(ResponseOptions::new(
        query.columns.as_deref(),
        &arrived.head.accept,
    ));
    let parsing = Arc::clone(&shared);
    let parsed =
        aside(move || parse_body(&parsing.columns, &parsing.limits, parsing.owner, arrived));
    let ParsedRequest {
        records,
        rejected,
        held,
        charge,
        ..
    } = parsed.await?;
    options.check(records.num_rows())?;
    let wait: Duration = shared.limits.response_timeout.0;
    let answered = shared
        .inference
        .encode(records, held, charge, Arc::clone(&options));
    let encoded = tokio::time::timeout(wait, answered).await.map_err(|_| {
        ErrorResponse::later(
            StatusCode::SERVICE_UNAVAILABLE,
            "the records were not encoded within limits.response_timeout",
            5,
        )
    })??;
    aside(move || options.write(encoded, &rejected))
        .await
        .map(IntoResponse::into_response)
}
