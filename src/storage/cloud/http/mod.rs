//! The HTTP client of stores, which limits the inactivity of transfers, buffers short responses and
//! makes failed requests retryable.

pub(crate) mod body;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientConfigKey, ClientOptions};

use super::listed_keys;
use crate::storage::cloud::http::body::{SendProgress, TimedBody, with_progress};

/// Default of `AWS_READ_TIMEOUT` and its equivalents: the time without a transferred byte after which a request fails.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(30);
/// Size in bytes of the system's send buffer. A sender sees no progress while it is transferred.
const SYSTEM_BUFFER: u64 = 4 << 20;
/// Time limit for a full system buffer as a multiple of the inactivity timeout: 17 KB/s by default.
const BUFFER_TIMEOUTS: u64 = 8;
/// Maximum size in bytes of a short response: more than the longest listing of 1,000 keys.
const MAX_SHORT_RESPONSE: u64 = 64 << 20;

/// Parameters of the requests for listings, of S3 and GCS, and of Azure.
const LISTING: [&str; 2] = ["list-type=2", "comp=list"];

/// Builds the HTTP clients of stores.
#[derive(Debug)]
pub(super) struct StoreHttpConnector {
    /// Prefix of the environment variables of the store: `AWS`.
    pub(super) prefix: &'static str,
}

impl HttpConnector for StoreHttpConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let written = options.get_config_value(&ClientConfigKey::ReadTimeout);
        let timeout = written.map_or(Ok(INACTIVITY_TIMEOUT), |written| {
            humantime::parse_duration(&written).map_err(|error| object_store::Error::Generic {
                store: self.prefix,
                source: format!(
                    "{}_READ_TIMEOUT is `{written}`: {error}; expected a duration such as 30s",
                    self.prefix
                )
                .into(),
            })
        })?;
        // These timeouts of the library limit the duration of a transfer, regardless of its size
        // and of the speed of the network.
        let options = options.clone().with_read_timeout_disabled();
        let is_bounded = std::env::var_os(format!("{}_TIMEOUT", self.prefix)).is_some();
        let options = if is_bounded {
            options
        } else {
            options.with_timeout_disabled()
        };
        Ok(HttpClient::new(StoreHttpClient {
            client: ReqwestConnector::default().connect(&options)?,
            timeout,
        }))
    }
}

#[derive(Debug)]
struct StoreHttpClient {
    client: HttpClient,
    timeout: Duration,
}

impl HttpService for StoreHttpClient {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.respond(request).await.map_err(retryable) })
    }
}

impl StoreHttpClient {
    async fn respond(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| LISTING.contains(&part)));
        let reads_object = request.method() == Method::GET && !is_listing;
        let sent = Arc::new(SendProgress::new());
        let request = with_progress(request, &sent).await?;
        let response = sent
            .limit(self.client.execute(request), self.timeout)
            .await?;
        let (mut parts, body) = response.into_parts();
        let is_success = parts.status.is_success();
        let is_short = !(reads_object && is_success);
        let body = TimedBody::new(
            body,
            self.timeout,
            if is_short {
                MAX_SHORT_RESPONSE
            } else {
                u64::MAX
            },
        );
        let body = HttpResponseBody::new(body);
        if !is_short {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let mut bytes = body.bytes().await?;
        // The response to a completion starts before the result is known, so that an error can
        // follow the status 200.
        if is_transient(parts.status.as_u16(), &bytes) || (is_success && is_error(&bytes)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Err(failed(format!(
                "the store responded with {}: {text}",
                parts.status
            )));
        }
        if is_listing && is_success {
            let listed =
                listed_keys::separate(&bytes).map_err(|error| failed(error.to_string()))?;
            bytes = listed.listing;
            parts.extensions.insert(listed.unusable);
        }
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// Whether the same request may succeed later.
fn is_transient(status: u16, body: &[u8]) -> bool {
    const STALLED: &[u8] = b"<Code>RequestTimeout</Code>";
    match status {
        // Unsupported requests and versions of HTTP stay unsupported.
        501 | 505 => false,
        408 | 429 | 500.. => true,
        400 => body.windows(STALLED.len()).any(|part| part == STALLED),
        _ => false,
    }
}

/// Whether the root element of the XML text is `Error`.
fn is_error(text: &[u8]) -> bool {
    let root = text
        .windows(2)
        .position(|pair| pair[0] == b'<' && pair[1] != b'?');
    root.is_some_and(|at| text[at..].starts_with(b"<Error>"))
}

/// Marks the error as one after which the library repeats the request. Every request is idempotent:
/// it reads, removes or replaces an object, or creates one under a condition that
/// [`crate::storage::ObjectPath`] resolves.
fn retryable(error: HttpError) -> HttpError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut causes = Vec::new();
    while let Some(current) = cause {
        if current
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_builder)
        {
            return HttpError::new(
                HttpErrorKind::Unknown,
                TransportFailure(current.to_string()),
            );
        }
        causes.push(current.to_string());
        cause = current.source();
    }
    // The first message is that of the library, which repeats the second.
    let text = causes.into_iter().skip(1).collect::<Vec<_>>().join(": ");
    HttpError::new(HttpErrorKind::Request, TransportFailure(text))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TransportFailure(String);

fn failed(text: String) -> HttpError {
    HttpError::new(HttpErrorKind::Request, TransportFailure(text))
}

fn timed_out(timeout: Duration) -> HttpError {
    failed(format!(
        "no byte was transferred for {}",
        humantime::format_duration(timeout)
    ))
}
