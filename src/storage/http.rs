//! The HTTP client of stores: it times transfers by standstill, reads short answers as a whole, and
//! lets every request be repeated.

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

/// How long no byte may move before a request counts as failed, where `AWS_READ_TIMEOUT` does not
/// set it.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Bytes that the system takes from a sender before the network does. While they are on their way,
/// a sender sees no progress.
const SYSTEM_BUFFER: u64 = 4 << 20;
/// A full system buffer is sent within so many times the standstill: by default at 17 KB/s.
const BUFFER_TIMES: u64 = 8;
/// A body is sent in pieces of this size, so that its progress is seen.
const PIECE: usize = 64 << 10;
/// Bytes of a short answer: more than the longest listing of a thousand keys.
const SHORT_ANSWER: u64 = 64 << 20;

/// Makes the HTTP clients of stores.
#[derive(Debug)]
pub(super) struct StoreHttpConnector;

impl HttpConnector for StoreHttpConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let written = options.get_config_value(&ClientConfigKey::ReadTimeout);
        let standstill = written.map_or(Ok(STANDSTILL), |written| {
            humantime::parse_duration(&written).map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: format!(
                    "AWS_READ_TIMEOUT is `{written}`: {error}; write a time such as 30s"
                )
                .into(),
            })
        })?;
        // These limits of the library hold for a whole transfer, however large it is and however
        // slow the network.
        let options = options.clone().with_read_timeout_disabled();
        let is_bounded = std::env::var_os("AWS_TIMEOUT").is_some();
        let options = if is_bounded {
            options
        } else {
            options.with_timeout_disabled()
        };
        Ok(HttpClient::new(StoreHttpClient {
            client: ReqwestConnector::default().connect(&options)?,
            standstill,
        }))
    }
}

#[derive(Debug)]
struct StoreHttpClient {
    client: HttpClient,
    standstill: Duration,
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
        Box::pin(async move { self.answer(request).await.map_err(repeatable) })
    }
}

impl StoreHttpClient {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("list-type="));
        let reads_object = request.method() == Method::GET && !is_listing;
        let sent = Arc::new(SendProgress::new());
        let request = followed(request, &sent).await?;
        let answer = sent
            .time(self.client.execute(request), self.standstill)
            .await?;
        let (mut parts, body) = answer.into_parts();
        let is_success = parts.status.is_success();
        let is_short = !(reads_object && is_success);
        let body = TimedBody::new(
            body,
            self.standstill,
            if is_short { SHORT_ANSWER } else { u64::MAX },
        );
        let body = HttpResponseBody::new(body);
        if !is_short {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let mut bytes = body.bytes().await?;
        // A completion answers before it is done, so that its error comes under the status 200.
        if is_passing(parts.status.as_u16(), &bytes) || (is_success && is_error(&bytes)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Err(failed(format!(
                "the store answered {}: {text}",
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

/// Whether an answer says that the same request may succeed later.
fn is_passing(status: u16, body: &[u8]) -> bool {
    const STALLED: &[u8] = b"<Code>RequestTimeout</Code>";
    match status {
        // What a store does not implement, it does not implement later.
        501 | 505 => false,
        408 | 429 | 500.. => true,
        400 => body.windows(STALLED.len()).any(|part| part == STALLED),
        _ => false,
    }
}

/// Whether the text is an error in XML.
fn is_error(text: &[u8]) -> bool {
    let root = text
        .windows(2)
        .position(|pair| pair[0] == b'<' && pair[1] != b'?');
    root.is_some_and(|at| text[at..].starts_with(b"<Error>"))
}

/// An error that the library answers with another attempt. Each request may be made again: it
/// reads, removes, writes a whole object, or creates one under a condition that
/// [`super::S3Path::put_if_absent`] resolves.
fn repeatable(error: HttpError) -> HttpError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut causes = Vec::new();
    while let Some(error) = cause {
        if error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_builder)
        {
            return HttpError::new(HttpErrorKind::Unknown, TransportFailure(error.to_string()));
        }
        causes.push(error.to_string());
        cause = error.source();
    }
    // The first is the library's own, which repeats the second.
    let text = causes.into_iter().skip(1).collect::<Vec<_>>().join(": ");
    HttpError::new(HttpErrorKind::Request, TransportFailure(text))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TransportFailure(String);

fn failed(text: String) -> HttpError {
    HttpError::new(HttpErrorKind::Request, TransportFailure(text))
}

fn stood_still(standstill: Duration) -> HttpError {
    failed(format!(
        "no byte has moved for {}",
        humantime::format_duration(standstill)
    ))
}

/// How much of a request's body was sent, and when the last of it was.
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

    /// When the request counts as failed, unless something moves before.
    fn end(&self, standstill: Duration) -> Instant {
        let (bytes, last) = *self.lock();
        let buffered =
            u32::try_from(bytes.min(SYSTEM_BUFFER) * BUFFER_TIMES / (SYSTEM_BUFFER >> 10))
                .unwrap_or(u32::MAX);
        last + standstill + standstill * buffered / 1024
    }

    /// Waits for the answer as long as the body is sent, and then for the standstill.
    async fn time<T>(
        &self,
        answer: impl Future<Output = Result<T, HttpError>>,
        standstill: Duration,
    ) -> Result<T, HttpError> {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = sleep_until(self.end(standstill)) => {
                    if self.end(standstill) <= Instant::now() {
                        return Err(stood_still(standstill));
                    }
                }
            }
        }
    }
}

/// A piece of a body. Whoever sends it drops it when it is sent.
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

/// The same request, with a body that reports to `sent`.
async fn followed(
    request: HttpRequest,
    sent: &Arc<SendProgress>,
) -> Result<HttpRequest, HttpError> {
    // What is one piece in memory is short.
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

/// The body of an answer, of which some byte comes within the standstill.
#[derive(Debug)]
struct TimedBody {
    body: HttpResponseBody,
    standstill: Duration,
    timer: Pin<Box<Sleep>>,
    /// Bytes that may still come.
    left: u64,
}

impl TimedBody {
    fn new(body: HttpResponseBody, standstill: Duration, left: u64) -> Self {
        Self {
            body,
            standstill,
            timer: Box::pin(sleep(standstill)),
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
                .map(|()| Some(Err(stood_still(self.standstill))));
        };
        let end = Instant::now() + self.standstill;
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
                "the answer is longer than {SHORT_ANSWER} bytes"
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
