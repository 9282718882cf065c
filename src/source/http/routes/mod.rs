//! The routes of the source: `/v1/records` journals records, and `/v1/encode` encodes them.

pub(crate) mod infer;
pub(crate) mod ingest;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::StreamExt;

use crate::batch::provenance::Split;
use crate::metrics::Metrics;
use crate::server::TokenAuth;
use crate::source::http::ack_waiters::AckWaiters;
use crate::source::http::body::columns::RequestColumns;
use crate::source::http::body::memory_reservation::{MemoryPool, MemoryReservation};
use crate::source::http::body::parse::ReceivedRequest;
use crate::source::http::body::{self, RequestHead, check_name};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::idempotency::RequestAttempt;
use crate::source::http::inference::InferenceClient;
use crate::source::http::limits::{HttpLimits, TokenBucket};
use crate::source::http::routes::infer::{accepted, infer};
use crate::source::http::routes::ingest::ingest;
use crate::source::http::wal::WriteAheadLog;
use crate::source::http::wal::group_commit::CommitRequest;

/// State that all requests share.
pub(super) struct HttpState {
    pub(super) stage: String,
    pub(super) split: Arc<Split>,
    pub(super) columns: RequestColumns,
    pub(super) limits: HttpLimits,
    pub(super) auth: Arc<TokenAuth>,
    pub(super) rate_limit: Option<TokenBucket>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) memory: MemoryPool,
    /// The sender of requests as far as it is known: keys of different senders are independent.
    pub(super) owner: &'static str,
    pub(super) requests: mpsc::Sender<CommitRequest>,
    pub(super) wal: Arc<WriteAheadLog>,
    pub(super) ack_waiters: AckWaiters,
    pub(super) inference: InferenceClient,
    pub(super) ends: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// The routes of the source and their OpenAPI description.
pub(super) fn router(shared: Arc<HttpState>) -> Router {
    Router::new()
        .route("/v1/records", post(records))
        .route("/v1/encode", post(encode))
        .route("/openapi.json", get(openapi))
        .route("/healthz", get(healthz))
        .with_state(shared)
}

/// Reports whether requests are accepted, for load balancers; needs no token.
async fn healthz(State(shared): State<Arc<HttpState>>) -> Response {
    if *shared.ends.borrow() {
        ErrorResponse::ending().into_response()
    } else {
        "ok\n".into_response()
    }
}

/// The response to a request that a page of another site may have made.
pub(super) fn forbidden(reason: String) -> Response {
    ErrorResponse::new(StatusCode::FORBIDDEN, reason).into_response()
}

async fn openapi() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        include_str!("../openapi.json"),
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryParams {
    /// The value of the column `source`.
    source: Option<String>,
    /// `journalled` (the default) or `committed`.
    ack: Option<String>,
    /// Columns of the response, separated by commas.
    columns: Option<String>,
}

type QueryResult = Result<Query<QueryParams>, axum::extract::rejection::QueryRejection>;

async fn records(
    State(shared): State<Arc<HttpState>>,
    query: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared
        .answer("records", query, &headers, body, ingest)
        .await
}

async fn encode(
    State(shared): State<Arc<HttpState>>,
    query: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared.answer("encode", query, &headers, body, infer).await
}

impl HttpState {
    /// Checks whether a request is admitted, reads its body, passes it to `work`, and counts the
    /// response.
    async fn answer<F>(
        self: Arc<Self>,
        route: &'static str,
        query: QueryResult,
        headers: &HeaderMap,
        body: Body,
        work: impl FnOnce(Arc<Self>, QueryParams, ReceivedRequest) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, ErrorResponse>>,
    {
        let begun = Instant::now();
        let in_flight = self
            .metrics
            .http
            .in_flight
            .with_label_values(&[&self.stage]);
        in_flight.inc();
        let answered = match self.check_admission(headers) {
            Err(refusal) => {
                discard(body).await;
                Err(refusal)
            }
            Ok(()) => match self
                .receive(query, headers, body)
                .await
                .and_then(|arrived| Ok((self.acquire_slot()?, arrived)))
            {
                Err(refusal) => Err(refusal),
                Ok((_slot, (query, arrived))) => work(Arc::clone(&self), query, arrived).await,
            },
        };
        let response = answered.unwrap_or_else(IntoResponse::into_response);
        in_flight.dec();
        let (stage, code) = (self.stage.as_str(), response.status().as_u16().to_string());
        self.metrics
            .http
            .requests
            .with_label_values(&[stage, route, &code])
            .inc();
        self.metrics
            .http
            .request_seconds
            .with_label_values(&[stage, route])
            .observe(begun.elapsed().as_secs_f64());
        response
    }

    /// Checks the token, the state of the run, and the rate of requests.
    fn check_admission(&self, headers: &HeaderMap) -> Result<(), ErrorResponse> {
        let authorization = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        if !self.auth.is_authorized(authorization) {
            let message =
                "expected the header `Authorization: Bearer TOKEN` with the token of this source";
            return Err(ErrorResponse::new(StatusCode::UNAUTHORIZED, message));
        }
        if *self.ends.borrow() {
            return Err(ErrorResponse::ending());
        }
        if self
            .rate_limit
            .as_ref()
            .is_some_and(|rate| !rate.try_acquire())
        {
            return Err(ErrorResponse::later(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests per second (limits.rate)",
                1,
            ));
        }
        Ok(())
    }

    /// Acquires a slot among the requests that are processed concurrently. Requests whose bodies
    /// are arriving do not hold one, because slow clients would otherwise use all of them:
    /// connections and memory bound those requests.
    fn acquire_slot(&self) -> Result<OwnedSemaphorePermit, ErrorResponse> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            ErrorResponse::later(
                StatusCode::TOO_MANY_REQUESTS,
                "too many concurrent requests (limits.requests)",
                1,
            )
        })
    }

    /// Reads the headers and the body within the limits on size and time.
    async fn receive(
        &self,
        query: QueryResult,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(QueryParams, ReceivedRequest), ErrorResponse> {
        let Query(query) = query.map_err(|error| ErrorResponse::bad(error.to_string()))?;
        check_name("source", query.source.as_deref())?;
        let head = RequestHead::parse(headers)?;
        let (body, charge) = body::read(&head, body, &self.limits, &self.memory).await?;
        let source = query.source.clone().unwrap_or_else(|| "http".to_owned());
        Ok((
            query,
            ReceivedRequest {
                source,
                head,
                body,
                charge,
            },
        ))
    }
}

/// Maximum number of bytes of a refused request's body that are read, and maximum time for it.
const DISCARDED: usize = 1 << 20;
const DISCARDING: Duration = Duration::from_secs(1);

/// Reads the body of a refused request, up to a limit: a client whose connection is closed while it
/// sends may see a reset instead of the response.
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
    // The rest of the body is not awaited.
    let _ = tokio::time::timeout(DISCARDING, arrive).await;
}

impl HttpState {
    /// Makes records durable. Returns the row of the first, their number, and whether they were
    /// durable before.
    async fn journalled(
        &self,
        payload: Vec<u8>,
        rows: u32,
        attempt: Option<RequestAttempt>,
        charge: MemoryReservation,
    ) -> Result<(u64, u32, bool), ErrorResponse> {
        let (reply, answer) = oneshot::channel();
        let request = CommitRequest {
            payload,
            rows,
            attempt,
            reply,
            charge,
        };
        // A request whose write has not started by then is not accepted, because its receiver is
        // dropped.
        let written = async {
            self.requests
                .send(request)
                .await
                .map_err(|_| ErrorResponse::ending())?;
            answer.await.map_err(|_| ErrorResponse::ending())
        };
        let outcome = tokio::time::timeout(self.limits.journal.0, written)
            .await
            .map_err(|_| {
                let message = "the journal did not respond within limits.journal, because its disk \
                               hangs or is too slow; the records may still be accepted, so repeat \
                               the request with the same Idempotency-Key, if it has one";
                ErrorResponse::later(StatusCode::SERVICE_UNAVAILABLE, message, 10)
            })?;
        accepted(outcome?)
    }
}
