//! What clients may ask: that records are taken, or encoded at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::StreamExt;

use crate::batch::Split;
use crate::metrics::Metrics;
use crate::server::{Access, UntilTaken};
use crate::source::http::columns::{Columns, Media, Records, with_source};
use crate::source::http::commit::{Answer, Request};
use crate::source::http::encode::{Encoder, Unanswered, Wanted};
use crate::source::http::fates::Waiters;
use crate::source::http::frame::{self, Key};
use crate::source::http::journal::Journal;
use crate::source::http::limits::{Limits, Rate};

/// What all requests share.
pub(super) struct Shared {
    pub(super) stage: String,
    pub(super) split: Arc<Split>,
    pub(super) columns: Columns,
    pub(super) limits: Limits,
    pub(super) access: Arc<Access>,
    pub(super) rate: Option<Rate>,
    pub(super) places: Arc<Semaphore>,
    /// Bytes of bodies, in units of [`UNIT`].
    pub(super) memory: Arc<Semaphore>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) journal: Arc<Journal>,
    pub(super) waiters: Waiters,
    pub(super) encoder: Encoder,
    pub(super) ends: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// Bodies are counted in units of 4 KiB.
pub(super) const UNIT: u64 = 4 << 10;
/// Characters of a name that a client gives to its records, and of a key.
const NAME: usize = 256;

/// What can be asked, and the description of it.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/records", post(records))
        .route("/v1/encode", post(encode))
        .route("/openapi.json", get(openapi))
        .route("/healthz", get(healthz))
        .with_state(shared)
}

/// Whether requests are taken, for those who send them here; no token is necessary.
async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    if *shared.ends.borrow() { ending().into_response() } else { "ok\n".into_response() }
}

/// The answer to a request that the page of another site may have made.
pub(super) fn forbidden(reason: String) -> Response {
    Refusal::new(StatusCode::FORBIDDEN, reason).into_response()
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// What the records' column `source` says.
    source: Option<String>,
    /// `journalled` (the default) or `committed`.
    ack: Option<String>,
    /// Columns to answer with, separated by commas.
    columns: Option<String>,
}

/// An answer that says what is wrong.
struct Refusal {
    status: StatusCode,
    message: String,
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    /// The client may try again after so many seconds.
    fn later(status: StatusCode, message: impl Into<String>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(status, message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

type Asking = Result<Query<Asked>, axum::extract::rejection::QueryRejection>;

async fn records(State(shared): State<Arc<Shared>>, asked: Asking, headers: HeaderMap, body: Body) -> Response {
    shared.answer("records", asked, &headers, body, take).await
}

async fn encode(State(shared): State<Arc<Shared>>, asked: Asking, headers: HeaderMap, body: Body) -> Response {
    shared.answer("encode", asked, &headers, body, encode_now).await
}

/// A request whose body has arrived.
struct Arrived {
    asked: Asked,
    media: Media,
    body: Vec<u8>,
    key: Option<String>,
    accept: String,
    /// Its body counts until it is let go of.
    held: Vec<OwnedSemaphorePermit>,
}

impl Shared {
    /// Lets a request in or not, reads its body, has `work` answer it, and counts.
    async fn answer<F>(
        self: Arc<Self>,
        route: &'static str,
        asked: Asking,
        headers: &HeaderMap,
        body: Body,
        work: impl FnOnce(Arc<Self>, Arrived) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Refusal>>,
    {
        let begun = Instant::now();
        let in_flight = self.metrics.http.in_flight.with_label_values(&[&self.stage]);
        in_flight.inc();
        let answered = match self.admit(headers) {
            Err(refusal) => {
                discard(body).await;
                Err(refusal)
            }
            Ok(()) => match self.receive(asked, headers, body).await.and_then(|arrived| Ok((self.place()?, arrived))) {
                Err(refusal) => Err(refusal),
                Ok((_place, arrived)) => work(Arc::clone(&self), arrived).await,
            },
        };
        let response = answered.unwrap_or_else(IntoResponse::into_response);
        in_flight.dec();
        let (stage, code) = (self.stage.as_str(), response.status().as_u16().to_string());
        self.metrics.http.requests.with_label_values(&[stage, route, &code]).inc();
        self.metrics.http.request_seconds.with_label_values(&[stage, route]).observe(begun.elapsed().as_secs_f64());
        response
    }

    /// Who asks, and how often.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !self.access.admits(authorization) {
            let message = "expected the header `Authorization: Bearer TOKEN` with the token of this source";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, message));
        }
        if *self.ends.borrow() {
            return Err(ending());
        }
        if self.rate.as_ref().is_some_and(|rate| !rate.passes()) {
            return Err(Refusal::later(StatusCode::TOO_MANY_REQUESTS, "more requests per second than limits.rate", 1));
        }
        Ok(())
    }

    /// A place among the requests that are answered. Those whose bodies arrive have none, or clients that send slowly would take
    /// all: connections and memory bound them.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Refusal::later(StatusCode::TOO_MANY_REQUESTS, "as many requests as limits.requests are being answered", 1)
        })
    }

    /// Reads the body, within bounds of size and time.
    async fn receive(&self, asked: Asking, headers: &HeaderMap, body: Body) -> Result<Arrived, Refusal> {
        let Query(asked) = asked.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let text = |name: &str| headers.get(name).map(HeaderValue::to_str).transpose();
        let unreadable = |_| Refusal::new(StatusCode::BAD_REQUEST, "a header is no text");
        let content_type = text(CONTENT_TYPE.as_str()).map_err(unreadable)?.unwrap_or_default();
        let key = text("idempotency-key").map_err(unreadable)?.map(str::to_owned);
        let accept = text("accept").map_err(unreadable)?.unwrap_or_default().to_owned();
        let media = Media::of(content_type).ok_or_else(|| {
            let message = format!(
                "`Content-Type: {content_type}` is not understood; expected image/*, application/x-ndjson, or \
                 application/vnd.apache.arrow.stream"
            );
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        })?;
        for (what, text) in [("source", asked.source.as_deref()), ("Idempotency-Key", key.as_deref())] {
            if text.is_some_and(|text| text.is_empty() || text.len() > NAME) {
                let message = format!("`{what}` has 1 to {NAME} bytes");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
            }
        }
        let most = self.limits.request.0;
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > most) {
            return Err(too_large(most));
        }
        let timeout = self.limits.timeout.0;
        let read = tokio::time::timeout(timeout, self.read(body, most)).await;
        let (body, held) = read.map_err(|_| {
            let message = format!("the request did not arrive within {} seconds", timeout.as_secs_f64());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
        })??;
        Ok(Arrived { asked, media, body, key, accept, held })
    }

    /// Memory is counted as bytes arrive, so that who sends slowly holds no more than what it has sent.
    async fn read(&self, body: Body, most: u64) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Refusal> {
        let (mut bytes, mut held, mut counted) = (Vec::new(), Vec::new(), 0);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
            let length = (bytes.len() + chunk.len()) as u64;
            if length > most {
                return Err(too_large(most));
            }
            if length > counted {
                let units = u32::try_from((length - counted).div_ceil(UNIT)).unwrap_or(u32::MAX);
                counted += u64::from(units) * UNIT;
                held.push(Arc::clone(&self.memory).try_acquire_many_owned(units).map_err(|_| {
                    let message = "the bodies of requests take as much memory as limits.in_flight allows";
                    Refusal::later(StatusCode::TOO_MANY_REQUESTS, message, 1)
                })?);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes, held))
    }
}

/// Bytes of a refused request's body that are let arrive, and for how long.
const DISCARDED: usize = 1 << 20;
const DISCARDING: Duration = Duration::from_secs(1);

/// Lets the body of a refused request arrive, as far as it is short: a client that is cut off while it sends may see its
/// connection reset, and not why.
async fn discard(body: Body) {
    let mut left = DISCARDED;
    let mut chunks = body.into_data_stream();
    let arrive = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // What has not arrived by then is not waited for.
    let _ = tokio::time::timeout(DISCARDING, arrive).await;
}

fn ending() -> Refusal {
    Refusal::later(StatusCode::SERVICE_UNAVAILABLE, "the service is about to end", 10)
}

fn too_large(most: u64) -> Refusal {
    let message = format!("the body has more than {most} bytes (limits.request)");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// Understands a body, off the threads that others wait for.
async fn parse(shared: &Arc<Shared>, media: Media, body: Vec<u8>) -> Result<Records, Refusal> {
    let shared = Arc::clone(shared);
    let parsed = tokio::task::spawn_blocking(move || shared.columns.parse(media, body)).await;
    let parsed = parsed.unwrap_or_else(|_| Err("the body cannot be understood".to_owned()));
    parsed.map_err(|message| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message))
}

/// Journals the records of a request, and answers when they are durable; or, where that is asked, when every sink has
/// them.
async fn take(shared: Arc<Shared>, arrived: Arrived) -> Result<Response, Refusal> {
    let Arrived { asked, media, body, key, held, .. } = arrived;
    let committed = match asked.ack.as_deref() {
        None | Some("journalled") => false,
        Some("committed") => true,
        Some(other) => {
            let message = format!("ack={other} is not understood; expected `journalled` or `committed`");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
    };
    let checksum = crc32fast::hash(&body);
    let key: Option<Key> = key.and_then(|key| Sha256::digest(key.as_bytes())[..16].try_into().ok());
    let Records { columns, refused } = parse(&shared, media, body).await?;
    let rows = u32::try_from(columns.num_rows()).unwrap_or(u32::MAX);
    if rows == 0 {
        let message = "none of its records can be taken";
        let answer = json!({ "error": message, "refused": refused });
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response());
    }
    let source = asked.source.unwrap_or_else(|| "http".to_owned());
    let payload = with_source(&columns, &source).and_then(|records| frame::encode(&records).map_err(|e| e.to_string()));
    let payload = payload.map_err(|message| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message))?;
    let (reply, answer) = oneshot::channel();
    shared.requests.send(Request { payload, rows, key, body: checksum, reply }).await.map_err(|_| ending())?;
    let answer = answer.await.map_err(|_| ending())?;
    // What is durable takes no memory any more, however long its commit is waited for.
    drop(held);
    let (first, rows, again) = accepted(answer)?;
    let mut told = json!({ "first": first, "records": rows, "refused": refused });
    if again {
        told["again"] = json!(true);
    }
    if !committed {
        return Ok((StatusCode::ACCEPTED, Json(told)).into_response());
    }
    if let Some(outcome) = shared.waiters.wait(&shared.journal, first, first + u64::from(rows)) {
        match tokio::time::timeout(shared.limits.wait.0, outcome).await {
            Ok(Ok(outcome)) => {
                told["rejected"] = json!(outcome.rejected);
                told["dropped"] = json!(outcome.dropped);
            }
            Ok(Err(_)) | Err(_) => {
                told["error"] = json!("the records are safe, but not committed yet");
                return Ok((StatusCode::GATEWAY_TIMEOUT, Json(told)).into_response());
            }
        }
    }
    told["committed"] = json!(true);
    Ok((StatusCode::OK, Json(told)).into_response())
}

fn accepted(answer: Answer) -> Result<(u64, u32, bool), Refusal> {
    match answer {
        Answer::Taken { first, rows, again } => Ok((first, rows, again)),
        Answer::OtherBody => {
            let message = "another request had this Idempotency-Key; use a key for each request";
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message))
        }
        Answer::Full => {
            let message = "as many records wait to be worked on as limits.backlog allows";
            Err(Refusal::later(StatusCode::TOO_MANY_REQUESTS, message, 5))
        }
        Answer::Failed => {
            let message = "the records cannot be made durable: the disk is full, or fails";
            Err(Refusal::later(StatusCode::INSUFFICIENT_STORAGE, message, 30))
        }
    }
}

/// Carries the records through the graph now, and answers with what comes of them.
async fn encode_now(shared: Arc<Shared>, arrived: Arrived) -> Result<Response, Refusal> {
    let Arrived { asked, media, body, accept, held, .. } = arrived;
    if asked.ack.is_some() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "`ack` is for /v1/records: nothing is kept here"));
    }
    let wanted = Wanted::new(asked.columns.as_deref(), &accept);
    let Records { columns, refused } = parse(&shared, media, body).await?;
    let source = asked.source.unwrap_or_else(|| "http".to_owned());
    let records = with_source(&columns, &source);
    let records = records.map_err(|message| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message))?;
    let wait: Duration = shared.limits.wait.0;
    let answered = tokio::time::timeout(wait, shared.encoder.encode(records)).await;
    let answered = answered
        .map_err(|_| Refusal::later(StatusCode::SERVICE_UNAVAILABLE, "no worker was free within limits.wait", 5))?;
    let answered = answered.map_err(|unanswered| match unanswered {
        Unanswered::Ending => ending(),
        Unanswered::Failed(reason) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason),
    })?;
    let (body, content_type) =
        wanted.write(&answered, &refused).map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?;
    let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
    // The answer takes memory until the client has it.
    response.extensions_mut().insert(UntilTaken(Arc::new(held)));
    Ok(response)
}
