//! The activity of a connection: when it last transferred a byte, and whether it waits for its
//! client.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;

/// The activity of a connection.
pub(super) struct ConnectionActivity {
    /// Counts the transfers of all connections of a listener.
    steps: Arc<AtomicU64>,
    /// The number of this connection's last transfer.
    last: AtomicU64,
    /// Whether a request is being processed, so that the connection does not wait for its client.
    working: AtomicBool,
    /// Number of requests whose heads have arrived.
    requests: AtomicU64,
    evicted: AtomicBool,
    eviction: Notify,
}

impl ConnectionActivity {
    pub(super) fn new(steps: &Arc<AtomicU64>) -> Arc<Self> {
        let activity = Self {
            steps: Arc::clone(steps),
            last: AtomicU64::new(0),
            working: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            eviction: Notify::new(),
        };
        activity.record_transfer();
        Arc::new(activity)
    }

    /// Records that bytes were read or written.
    pub(super) fn record_transfer(&self) {
        self.last.store(self.steps.fetch_add(1, Relaxed), Relaxed);
    }

    /// The number of the last transfer: of two connections, the one with the smaller number has
    /// been idle for longer.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }

    /// Whether a request is being processed.
    pub(super) fn is_working(&self) -> bool {
        self.working.load(Relaxed)
    }

    /// Number of requests whose heads have arrived.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Whether the connection is about to be closed in favor of another one.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Closes the connection in favor of another one.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Relaxed);
        self.eviction.notify_one();
    }

    /// Resolves when the connection is to be closed in favor of another one.
    pub(super) async fn eviction(&self) {
        self.eviction.notified().await;
    }
}

/// Passes the requests of one connection to a router, and records when one is being processed.
pub(super) struct ActivityService {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) activity: Arc<ConnectionActivity>,
}

type ActivityResponse = Result<Response<OutgoingBody>, std::convert::Infallible>;

impl Service<Request<Incoming>> for ActivityService {
    type Response = Response<OutgoingBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = ActivityResponse> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let activity = Arc::clone(&self.activity);
        activity.requests.fetch_add(1, Relaxed);
        activity.working.store(true, Relaxed);
        let arriving = |body| ActivityBody {
            body,
            waits: false,
            activity: Arc::clone(&self.activity),
        };
        let request = request.map(|body| Body::new(arriving(body)));
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // From now on, the connection waits only for its client.
            activity.record_transfer();
            activity.working.store(false, Relaxed);
            Ok(answer.map(|body| OutgoingBody {
                body,
                rest: Bytes::new(),
            }))
        })
    }
}

/// The body of a request. While its next bytes are awaited, the request does not count as being
/// processed.
struct ActivityBody {
    body: Incoming,
    waits: bool,
    activity: Arc<ConnectionActivity>,
}

impl HttpBody for ActivityBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.waits = frame.is_pending();
        self.activity.working.store(!self.waits, Relaxed);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ActivityBody {
    fn drop(&mut self) {
        // A handler that has waited long enough continues without the rest.
        if self.waits {
            self.activity.working.store(true, Relaxed);
        }
    }
}

/// Bytes that are passed on at a time. Bytes that the client has not read stay in this body, so
/// that they are accounted for.
const PIECE: usize = 64 << 10;

/// The body of a response.
pub(super) struct OutgoingBody {
    body: Body,
    /// Bytes that are not yet passed on.
    rest: Bytes,
}

impl HttpBody for OutgoingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx))
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}
