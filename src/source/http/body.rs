//! Bodies as they arrive: within bounds of size and time, their memory reserved before it is taken.

use axum::body::Body;
use axum::http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, TRANSFER_ENCODING,
};
use axum::http::{HeaderMap, StatusCode};
use tokio_stream::StreamExt;

use crate::source::http::columns::NAME;
use crate::source::http::content_encoding::ContentEncoding;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::limits::HttpLimits;
use crate::source::http::media_type::MediaType;
use crate::source::http::memory_reservation::{MemoryPool, MemoryReservation};

/// What the headers of a request say about its body, and about the answer.
pub(super) struct RequestHead {
    pub(super) media: MediaType,
    /// As the client wrote it.
    pub(super) content_type: String,
    pub(super) encoding: ContentEncoding,
    /// The `Idempotency-Key`.
    pub(super) key: Option<String>,
    pub(super) accept: String,
    /// The length that the client declares.
    length: Option<u64>,
}

impl RequestHead {
    /// Reads the headers.
    ///
    /// # Errors
    /// 400 for one that is not text, 415 for a type or an encoding that is not supported, 417 for
    /// another expectation than `100-continue`, 501 for another transfer coding than `chunked`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
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
            media: MediaType::of(&content_type)?,
            encoding: ContentEncoding::of(&texts(CONTENT_ENCODING)?)?,
            content_type,
            key,
            accept: texts(ACCEPT)?,
            length: headers
                .get(CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok()),
        })
    }
}

/// Checks a header that has one value or none: what it asks for beside that would be left undone.
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
    ErrorResponse::bad(format!("`{what}` has 1 to {NAME} bytes"))
}

/// Checks the length of what a client names something.
///
/// # Errors
/// 400 where it is empty or too long.
pub(super) fn check_name(what: &str, name: Option<&str>) -> Result<(), ErrorResponse> {
    match name {
        Some(name) if name.is_empty() || name.len() > NAME => Err(bad_name(what)),
        _ => Ok(()),
    }
}

/// Reads a body, and what it has reserved.
///
/// # Errors
/// 413 where it is too large, 429 where there is no memory for it, 408 where it takes too long.
pub(super) async fn read(
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
                "the request did not arrive within {} seconds",
                timeout.as_secs_f64()
            );
            ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, message)
        })?
}

/// Memory is reserved as bytes arrive, so that who sends slowly holds no more than twice what it
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
    fn other_codings_and_expectations_are_refused() {
        let status = |name: HeaderName, value: &'static str| {
            let headers = [(CONTENT_TYPE, "application/json"), (name, value)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
            RequestHead::of(&HeaderMap::from_iter(headers))
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
