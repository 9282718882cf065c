//! The body of a response, which ends with an error if no bytes arrive in time.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use object_store::PutPayload;
use object_store::client::{HttpError, HttpRequest, HttpRequestBody, HttpResponseBody};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::storage::cloud::http::{
    BUFFER_TIMEOUTS, MAX_SHORT_RESPONSE, SYSTEM_BUFFER, failed, timed_out,
};

/// Size in bytes of the pieces in which a body is sent, so that its progress is visible.
const PIECE: usize = 64 << 10;

/// The number of bytes of a request's body that were sent, and the time of the last one.
#[derive(Debug)]
pub(super) struct SendProgress(Mutex<(u64, Instant)>);

impl SendProgress {
    pub(super) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn add(&self, bytes: usize) {
        let mut sent = self.0.lock();
        *sent = (sent.0 + bytes as u64, Instant::now());
    }

    /// The time at which the request fails if no further byte is sent.
    fn deadline(&self, timeout: Duration) -> Instant {
        let (bytes, last) = *self.0.lock();
        let buffered =
            u32::try_from(bytes.min(SYSTEM_BUFFER) * BUFFER_TIMEOUTS / (SYSTEM_BUFFER >> 10))
                .unwrap_or(u32::MAX);
        last + timeout + timeout * buffered / 1024
    }

    /// Waits for the response while the body makes progress, and for `timeout` after its end.
    pub(super) async fn limit<T>(
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
    pub(super) bytes: Bytes,
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
pub(super) async fn with_progress(
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
pub(super) struct TimedBody {
    pub(super) body: HttpResponseBody,
    pub(super) timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Maximum number of bytes that may follow.
    left: u64,
}

impl TimedBody {
    pub(super) fn new(body: HttpResponseBody, timeout: Duration, left: u64) -> Self {
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
