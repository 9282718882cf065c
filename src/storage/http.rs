//! The HTTP client of stores, which limits the inactivity of transfers, buffers short responses and
//! makes failed requests retryable.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{ClientConfigKey, ClientOptions, PutPayload};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::listed_keys;

/// Default of `AWS_READ_TIMEOUT`: the time without a transferred byte after which a request fails.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(30);
/// Size in bytes of the system's send buffer. A sender sees no progress while it is transferred.
const SYSTEM_BUFFER: u64 = 4 << 20;
/// Time limit for a full system buffer as a multiple of the inactivity timeout: 17 KB/s by default.
const BUFFER_TIMEOUTS: u64 = 8;
/// Size in bytes of the pieces in which a body is sent, so that its progress is visible.
const PIECE: usize = 64 << 10;
/// Maximum size in bytes of a short response: more than the longest listing of 1,000 keys.
const MAX_SHORT_RESPONSE: u64 = 64 << 20;

/// Builds the HTTP clients of stores.
#[derive(Debug)]
pub(super) struct StoreHttpConnector;

impl HttpConnector for StoreHttpConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let written = options.get_config_value(&ClientConfigKey::ReadTimeout);
        let timeout = written.map_or(Ok(INACTIVITY_TIMEOUT), |written| {
            humantime::parse_duration(&written).map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: format!(
                    "AWS_READ_TIMEOUT is `{written}`: {error}; expected a duration such as 30s"
                )
                .into(),
            })
        })?;
        // These timeouts of the library limit the duration of a transfer, regardless of its size
        // and of the speed of the network.
        let options = options.clone().with_read_timeout_disabled();
        let is_bounded = std::env::var_os("AWS_TIMEOUT").is_some();
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
            .is_some_and(|query| query.contains("list-type="));
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
            let listed = listed_keys::separate(&bytes).map_err(failed)?;
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
/// [`super::S3Path::put_if_absent`] resolves.
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

/// The number of bytes of a request's body that were sent, and the time of the last one.
#[derive(Debug)]
struct SendProgress(Mutex<(u64, Instant)>);

impl SendProgress {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: usize) {
        let mut sent = self.lock();
        *sent = (sent.0 + bytes as u64, Instant::now());
    }

    /// The time at which the request fails if no further byte is sent.
    fn deadline(&self, timeout: Duration) -> Instant {
        let (bytes, last) = *self.lock();
        let buffered =
            u32::try_from(bytes.min(SYSTEM_BUFFER) * BUFFER_TIMEOUTS / (SYSTEM_BUFFER >> 10))
                .unwrap_or(u32::MAX);
        last + timeout + timeout * buffered / 1024
    }

    /// Waits for the response while the body makes progress, and for `timeout` after its end.
    async fn limit<T>(
        &self,
        response: impl Future<Output = Result<T, HttpError>>,
        timeout: Duration,
    ) -> Result<T, HttpError> {
        let mut response = pin!(response);
        loop {
            tokio::select! {
                result = &mut response => return result,
                () = sleep_until(self.deadline(timeout)) => {
                    if self.deadline(timeout) <= Instant::now() {
                        return Err(timed_out(timeout));
                    }
                }
            }
        }
    }
}

/// A piece of a body. The HTTP client drops it when it is sent, which counts it as progress.
struct BodyPiece {
    bytes: Bytes,
    sent: Arc<SendProgress>,
}

impl AsRef<[u8]> for BodyPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BodyPiece {
    fn drop(&mut self) {
        self.sent.add(self.bytes.len());
    }
}

/// The same request with a body that reports its progress to `sent`.
async fn with_progress(
    request: HttpRequest,
    sent: &Arc<SendProgress>,
) -> Result<HttpRequest, HttpError> {
    // A body in one buffer is short.
    if request.body().as_bytes().is_some() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let mut pieces = Vec::new();
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let Ok(mut bytes) = frame?.into_data() else {
            continue;
        };
        while !bytes.is_empty() {
            let piece = BodyPiece {
                bytes: bytes.split_to(PIECE.min(bytes.len())),
                sent: Arc::clone(sent),
            };
            pieces.push(Bytes::from_owner(piece));
        }
    }
    Ok(HttpRequest::from_parts(
        parts,
        HttpRequestBody::from(pieces.into_iter().collect::<PutPayload>()),
    ))
}

/// The body of a response, which fails if no byte arrives within `timeout`.
#[derive(Debug)]
struct TimedBody {
    body: HttpResponseBody,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Maximum number of bytes that may follow.
    left: u64,
}

impl TimedBody {
    fn new(body: HttpResponseBody, timeout: Duration, left: u64) -> Self {
        Self {
            body,
            timeout,
            timer: Box::pin(sleep(timeout)),
            left,
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self
                .timer
                .as_mut()
                .poll(context)
                .map(|()| Some(Err(timed_out(self.timeout))));
        };
        let end = Instant::now() + self.timeout;
        self.timer.as_mut().reset(end);
        let bytes = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
            .map_or(0, Bytes::len);
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Poll::Ready(frame)
            }
            None => Poll::Ready(Some(Err(failed(format!(
                "the response is longer than {MAX_SHORT_RESPONSE} bytes"
            ))))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
