//! The route `/v1/records`, which journals records.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::source::http::body::parse::{
    ParsedRequest, ReceivedRequest, aside, encoded, parse_body,
};
use crate::source::http::body::rejected_lines::TruncatedList;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::routes::{HttpState, QueryParams};
use crate::source::http::wal::record;

/// Adds a list to a response: its first entries, and its length unless it is empty.
fn add_list<T: Serialize>(response: &mut Value, name: &str, list: &TruncatedList<T>) {
    response[name] = json!(list.first);
    if list.count > 0 {
        response[format!("{name}_records")] = json!(list.count);
    }
}

/// Journals the records of a request and responds once they are durable, or with `ack=committed`
/// once every sink has committed them.
pub(super) async fn ingest(
    shared: Arc<HttpState>,
    query: QueryParams,
    arrived: ReceivedRequest,
) -> Result<Response, ErrorResponse> {
    let committed = match query.ack.as_deref() {
        None | Some("journalled") => false,
        Some("committed") => true,
        Some(other) => {
            let message =
                format!("`ack={other}` is not supported; expected `journalled` or `committed`");
            return Err(ErrorResponse::bad(message));
        }
    };
    let parsing = Arc::clone(&shared);
    let parsed = aside(move || {
        let HttpState {
            columns,
            limits,
            owner,
            ..
        } = &*parsing;
        let ParsedRequest {
            records,
            attempt,
            rejected,
            held,
            mut charge,
        } = parse_body(columns, limits, owner, arrived)?;
        let rows = u32::try_from(records.num_rows()).map_err(ErrorResponse::failed)?;
        let mut payload = encoded(&records, held, &mut charge)?;
        drop(records);
        if let Some(attempt) = &attempt {
            record::seal(&mut payload, &attempt.request);
        }
        charge.set(payload.capacity() as u64)?;
        Ok((payload, rows, attempt, rejected, charge))
    });
    let (payload, rows, attempt, rejected, charge) = parsed.await?;
    if rows == 0 {
        let mut answer = json!({ "error": "no record of the request is valid" });
        add_list(&mut answer, "invalid", &rejected);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response());
    }
    let (first, rows, duplicate) = shared.journalled(payload, rows, attempt, charge).await?;
    let mut response = json!({ "first": first, "records": rows });
    add_list(&mut response, "invalid", &rejected);
    if duplicate {
        response["duplicate"] = json!(true);
    }
    if !committed {
        return Ok((StatusCode::ACCEPTED, Json(response)).into_response());
    }
    if let Some(outcome) = shared
        .ack_waiters
        .wait(&shared.wal, first, first + u64::from(rows))
    {
        match tokio::time::timeout(shared.limits.response_timeout.0, outcome).await {
            Ok(Ok(outcome)) => {
                add_list(&mut response, "rejected", &outcome.rejected);
                add_list(&mut response, "dropped", &outcome.filtered);
            }
            Ok(Err(_)) | Err(_) => {
                response["error"] = json!("the records are journaled, but not committed yet");
                return Ok((StatusCode::GATEWAY_TIMEOUT, Json(response)).into_response());
            }
        }
    }
    response["committed"] = json!(true);
    Ok((StatusCode::OK, Json(response)).into_response())
}
