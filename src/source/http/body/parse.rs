//! Parses the body of a request into records.

use arrow::array::RecordBatch;

use crate::source::batch_limits::arrow_bytes;
use crate::source::http::body::RequestHead;
use crate::source::http::body::budget::{BodyBudget, name_bytes};
use crate::source::http::body::columns::{RequestColumns, with_source};
use crate::source::http::body::media_type::{MediaType, essence};
use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::body::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::idempotency::RequestAttempt;
use crate::source::http::limits::HttpLimits;
use crate::source::http::wal::record;
use crate::source::table::file_source::read_end::catch_panic;

/// A request whose body has arrived.
pub(crate) struct ReceivedRequest {
    /// The value of the column `source`.
    pub(crate) source: String,
    pub(crate) head: RequestHead,
    pub(crate) body: Vec<u8>,
    /// The reserved memory, which is released on drop.
    pub(crate) charge: MemoryReservation,
}

/// The parsed records of a request.
pub(crate) struct ParsedRequest {
    /// The column `source`, followed by the other columns.
    pub(crate) records: RecordBatch,
    pub(crate) attempt: Option<RequestAttempt>,
    pub(crate) rejected: TruncatedList<RejectedLine>,
    /// Size of the records in bytes.
    pub(crate) held: u64,
    pub(crate) charge: MemoryReservation,
}

/// Decodes and parses a body that `owner` sent.
///
/// # Errors
/// Returns the reason why no record can be accepted.
pub(crate) fn parse_body(
    columns: &RequestColumns,
    limits: &HttpLimits,
    owner: &str,
    arrived: ReceivedRequest,
) -> Result<ParsedRequest, ErrorResponse> {
    let ReceivedRequest {
        source,
        head,
        body,
        mut charge,
    } = arrived;
    let body = head.encoding.decode(body, limits.request.0, &mut charge)?;
    let kind = essence(&head.content_type);
    let attempt = |content: &[u8]| {
        head.key
            .as_ref()
            .map(|key| RequestAttempt::new(owner, key, &kind, &source, content))
    };
    // Clients generate a new boundary for each attempt, so forms are compared by their records.
    let is_form = matches!(head.media, MediaType::Multipart(_));
    let of_body = if is_form { None } else { attempt(&body) };
    let parsed = columns.parse(
        &head.media,
        body,
        BodyBudget::new(limits, &source, &mut charge),
    )?;
    let names = match &parsed.sources {
        Some(_) => 0,
        None => name_bytes(&source).saturating_mul(parsed.columns.num_rows() as u64),
    };
    let held = parsed.held.saturating_add(names);
    charge.set(held)?;
    let records = with_source(&parsed, &source).map_err(ErrorResponse::failed)?;
    let of_form = if is_form && head.key.is_some() {
        attempt(&encoded(&records, held, &mut charge)?)
    } else {
        None
    };
    Ok(ParsedRequest {
        records,
        attempt: of_body.or(of_form),
        rejected: parsed.rejected,
        held,
        charge,
    })
}

/// Serializes records as the payload of a frame. The charge covers both, and the bytes that are
/// copied between them.
pub(crate) fn encoded(
    records: &RecordBatch,
    held: u64,
    charge: &mut MemoryReservation,
) -> Result<Vec<u8>, ErrorResponse> {
    let bytes = arrow_bytes(records, 0..records.num_rows());
    charge.set(held.saturating_add(bytes.saturating_mul(2)))?;
    record::encode(records).map_err(ErrorResponse::failed)
}

/// Runs blocking work on another thread, so that it does not delay other tasks.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorResponse> + Send + 'static,
) -> Result<T, ErrorResponse> {
    let done = tokio::task::spawn_blocking(move || guarded_work(work)).await;
    done.unwrap_or_else(|_| Err(ErrorResponse::unprocessable("the body cannot be parsed")))
}

/// Converts a panic of a parser into an error of the body.
fn guarded_work<T>(work: impl FnOnce() -> Result<T, ErrorResponse>) -> Result<T, ErrorResponse> {
    let mut outcome = None;
    match catch_panic(|| {
        outcome = Some(work());
        Ok::<(), String>(())
    }) {
        Ok(()) => {
            outcome.unwrap_or_else(|| Err(ErrorResponse::failed("the parser returned no result")))
        }
        Err((_, reason)) => Err(ErrorResponse::unprocessable(reason)),
    }
}
