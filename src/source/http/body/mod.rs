//! Reads request bodies within limits on size and time, and reserves memory before it is allocated.

pub(crate) mod arrow;
pub(crate) mod budget;
pub(crate) mod cast_size;
pub(crate) mod column_type;
pub(crate) mod columns;
pub(crate) mod content_encoding;
pub(crate) mod decoded;
pub(crate) mod json_images;
pub(crate) mod json_lines;
pub(crate) mod media_type;
pub(crate) mod memory_reservation;
pub(crate) mod metered;
pub(crate) mod multipart;
pub(crate) mod parse;
pub(crate) mod rejected_lines;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, TRANSFER_ENCODING,
};
use axum::http::{HeaderMap, StatusCode};
use tokio_stream::StreamExt;

use crate::source::http::body::budget::NAME;
use crate::source::http::body::content_encoding::ContentEncoding;
use crate::source::http::body::media_type::MediaType;
use crate::source::http::body::memory_reservation::{MemoryPool, MemoryReservation};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::limits::HttpLimits;

/// Headers of a request that concern its body and the response.
pub(crate) struct RequestHead {
    pub(crate) media: MediaType,
    /// The header as the client sent it.
    pub(crate) content_type: String,
    pub(crate) encoding: ContentEncoding,
    /// The `Idempotency-Key`.
    pub(crate) key: Option<String>,
    pub(crate) accept: String,
    /// The declared length of the body.
    length: Option<u64>,
}

impl RequestHead {
    /// Reads the headers.
    ///
    /// # Errors
    /// Returns 400 for a header that is not text, 415 for a type or encoding that is not supported,
    /// 417 for an expectation other than `100-continue`, and 501 for a transfer coding other than
    /// `chunked`.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let texts = |name: HeaderName| -> Result<String, ErrorResponse> {
            let values = headers
                .get_all(&name)
                .into_iter()
                .map(|value| value.to_str());
            let values = values.collect::<Result<Vec<_>, _>>();
            values
                .map(|values| values.join(", "))
                .map_err(|_| ErrorResponse::bad(format!("the header `{name}` is not text")))
        };
        let content_type = texts(CONTENT_TYPE)?;
        let key =
            Some(texts(HeaderName::from_static("idempotency-key"))?).filter(|key| !key.is_empty());
        if key.is_none() && headers.contains_key("idempotency-key") {
            return Err(bad_name("Idempotency-Key"));
        }
        check_name("Idempotency-Key", key.as_deref())?;
        check_only(
            EXPECT,
            "100-continue",
            StatusCode::EXPECTATION_FAILED,
            &texts(EXPECT)?,
        )?;
        check_only(
            TRANSFER_ENCODING,
            "chunked",
            StatusCode::NOT_IMPLEMENTED,
            &texts(TRANSFER_ENCODING)?,
        )?;
        Ok(Self {
            media: MediaType::parse(&content_type)?,
            encoding: ContentEncoding::parse(&texts(CONTENT_ENCODING)?)?,
            content_type,
            key,
            accept: texts(ACCEPT)?,
            length: headers
                .get(CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok()),
        })
    }
}

/// Checks a header with one supported value: other values would be ignored silently.
fn check_only(
    name: HeaderName,
    expected: &str,
    status: StatusCode,
    found: &str,
) -> Result<(), ErrorResponse> {
    if found.is_empty() || found.trim().eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(ErrorResponse::new(
        status,
        format!("`{name}: {found}` is not supported; expected {expected} or no such header"),
    ))
}

fn bad_name(what: &str) -> ErrorResponse {
    ErrorResponse::bad(format!("`{what}` must have 1 to {NAME} bytes"))
}

/// Checks the length of a name that a client chose.
///
/// # Errors
/// Returns 400 if it is empty or too long.
pub(crate) fn check_name(what: &str, name: Option<&str>) -> Result<(), ErrorResponse> {
    match name {
        Some(name) if name.is_empty() || name.len() > NAME => Err(bad_name(what)),
        _ => Ok(()),
    }
}

/// Reads a body; returns it with its memory reservation.
///
/// # Errors
/// Returns 413 if it is too large, 429 if no memory is available, and 408 if it takes too long.
pub(crate) async fn read(
    head: &RequestHead,
    body: Body,
    limits: &HttpLimits,
    memory: &MemoryPool,
) -> Result<(Vec<u8>, MemoryReservation), ErrorResponse> {
    let most = limits.request.0;
    if head.length.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    let timeout = limits.timeout.0;
    let most = head.length.unwrap_or(most);
    tokio::time::timeout(timeout, read_all(body, most, memory))
        .await
        .map_err(|_| {
            let message = format!(
                "the body did not arrive within {} seconds (limits.timeout)",
                timeout.as_secs_f64()
            );
            ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, message)
        })?
}

/// Memory is reserved as bytes arrive, so that a slow client holds at most twice the bytes that it
/// has sent.
async fn read_all(
    body: Body,
    most: u64,
    memory: &MemoryPool,
) -> Result<(Vec<u8>, MemoryReservation), ErrorResponse> {
    let (mut bytes, mut charge) = (Vec::new(), memory.charge());
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ErrorResponse::bad(error.to_string()))?;
        let length = bytes.len() + chunk.len();
        if length as u64 > most {
            return Err(too_large(most));
        }
        if length > bytes.capacity() {
            let capacity = (2 * bytes.capacity())
                .max(length)
                .min(usize::try_from(most).unwrap_or(usize::MAX));
            charge.set(capacity as u64)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, charge))
}

fn too_large(most: u64) -> ErrorResponse {
    ErrorResponse::too_large(format!(
        "the body has more than {most} bytes (limits.request)"
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn unsupported_transfer_codings_and_expectations_are_refused() {
        let status = |name: HeaderName, value: &'static str| {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (name, HeaderValue::from_static(value)),
            ];
            RequestHead::parse(&HeaderMap::from_iter(headers))
                .err()
                .map(|refusal| refusal.status)
        };
        assert_eq!(status(TRANSFER_ENCODING, "Chunked"), None);
        assert_eq!(status(EXPECT, "100-continue"), None);
        assert_eq!(
            status(TRANSFER_ENCODING, "gzip, chunked"),
            Some(StatusCode::NOT_IMPLEMENTED)
        );
        assert_eq!(
            status(EXPECT, "202-accepted"),
            Some(StatusCode::EXPECTATION_FAILED)
        );
    }
}
