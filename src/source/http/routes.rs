//! What clients may ask: that records are taken, or encoded at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::StreamExt;

use crate::batch::Split;
use crate::metrics::Metrics;
use crate::server::TokenAuth;
use crate::source::http::ack_waiters::AckWaiters;
use crate::source::http::body::{self, RequestHead, check_name};
use crate::source::http::columns::RequestColumns;
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::group_commit::{CommitOutcome, CommitRequest};
use crate::source::http::idempotency::RequestAttempt;
use crate::source::http::inference::InferenceClient;
use crate::source::http::limits::{HttpLimits, TokenBucket};
use crate::source::http::memory_reservation::{MemoryPool, MemoryReservation};
use crate::source::http::parse::{ParsedRequest, ReceivedRequest, aside, encoded, parse_body};
use crate::source::http::rejected_lines::TruncatedList;
use crate::source::http::response::ResponseOptions;
use crate::source::http::wal::WriteAheadLog;
use crate::source::http::wal_record;

/// What all requests share.
pub(super) struct HttpState {
    pub(super) stage: String,
    pub(super) split: Arc<Split>,
    pub(super) columns: RequestColumns,
    pub(super) limits: HttpLimits,
    pub(super) auth: Arc<TokenAuth>,
    pub(super) rate_limit: Option<TokenBucket>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) memory: MemoryPool,
    /// Who sends requests, as far as that is known: keys of one are not those of another.
    pub(super) owner: &'static str,
    pub(super) requests: mpsc::Sender<CommitRequest>,
    pub(super) wal: Arc<WriteAheadLog>,
    pub(super) ack_waiters: AckWaiters,
    pub(super) inference: InferenceClient,
    pub(super) ends: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// What can be asked, and the description of it.
pub(super) fn router(shared: Arc<HttpState>) -> Router {
    Router::new()
        .route("/v1/records", post(records))
        .route("/v1/encode", post(encode))
        .route("/openapi.json", get(openapi))
        .route("/healthz", get(healthz))
        .with_state(shared)
}

/// Whether requests are taken, for those who send them here; no token is necessary.
async fn healthz(State(shared): State<Arc<HttpState>>) -> Response {
    if *shared.ends.borrow() {
        ErrorResponse::ending().into_response()
    } else {
        "ok\n".into_response()
    }
}

/// The answer to a request that the page of another site may have made.
pub(super) fn forbidden(reason: String) -> Response {
    ErrorResponse::new(StatusCode::FORBIDDEN, reason).into_response()
}

async fn openapi() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryParams {
    /// What the records' column `source` says.
    source: Option<String>,
    /// `journalled` (the default) or `committed`.
    ack: Option<String>,
    /// Columns to answer with, separated by commas.
    columns: Option<String>,
}

type QueryResult = Result<Query<QueryParams>, axum::extract::rejection::QueryRejection>;

async fn records(
    State(shared): State<Arc<HttpState>>,
    asked: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared
        .answer("records", asked, &headers, body, ingest)
        .await
}

async fn encode(
    State(shared): State<Arc<HttpState>>,
    asked: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared.answer("encode", asked, &headers, body, infer).await
}

impl HttpState {
    /// Lets a request in or not, reads its body, has `work` answer it, and counts.
    async fn answer<F>(
        self: Arc<Self>,
        route: &'static str,
        asked: QueryResult,
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
                .receive(asked, headers, body)
                .await
                .and_then(|arrived| Ok((self.place()?, arrived)))
            {
                Err(refusal) => Err(refusal),
                Ok((_place, (asked, arrived))) => work(Arc::clone(&self), asked, arrived).await,
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

    /// Who asks, and how often.
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
                "more requests per second than limits.rate",
                1,
            ));
        }
        Ok(())
    }

    /// A place among the requests that are answered. Those whose bodies arrive have none, or
    /// clients that send slowly would take all: connections and memory bound them.
    fn place(&self) -> Result<OwnedSemaphorePermit, ErrorResponse> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            ErrorResponse::later(
                StatusCode::TOO_MANY_REQUESTS,
                "as many requests as limits.requests are being answered",
                1,
            )
        })
    }

    /// Reads the headers and the body, within bounds of size and time.
    async fn receive(
        &self,
        asked: QueryResult,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(QueryParams, ReceivedRequest), ErrorResponse> {
        let Query(asked) = asked.map_err(|error| ErrorResponse::bad(error.to_string()))?;
        check_name("source", asked.source.as_deref())?;
        let head = RequestHead::of(headers)?;
        let (body, charge) = body::read(&head, body, &self.limits, &self.memory).await?;
        let source = asked.source.clone().unwrap_or_else(|| "http".to_owned());
        Ok((
            asked,
            ReceivedRequest {
                source,
                head,
                body,
                charge,
            },
        ))
    }
}

/// Bytes of a refused request's body that are let arrive, and for how long.
const DISCARDED: usize = 1 << 20;
const DISCARDING: Duration = Duration::from_secs(1);

/// Lets the body of a refused request arrive, as far as it is short: a client that is cut off while
/// it sends may see its connection reset, and not why.
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

/// Puts a list into an answer: its first entries, and how many there are where it is not empty.
fn list<T: Serialize>(told: &mut Value, name: &str, list: &TruncatedList<T>) {
    told[name] = json!(list.first);
    if list.count > 0 {
        told[format!("{name}_records")] = json!(list.count);
    }
}

/// Journals the records of a request, and answers when they are durable; or, where that is asked,
/// when every sink has them.
async fn ingest(
    shared: Arc<HttpState>,
    asked: QueryParams,
    arrived: ReceivedRequest,
) -> Result<Response, ErrorResponse> {
    let committed = match asked.ack.as_deref() {
        None | Some("journalled") => false,
        Some("committed") => true,
        Some(other) => {
            let message =
                format!("ack={other} is not understood; expected `journalled` or `committed`");
            return Err(ErrorResponse::bad(message));
        }
    };
    let parsing = Arc::clone(&shared);
    let parsed = aside(move || {
        let HttpState {
            columns,
            limits,
            owner,
            ..
        } = &*parsing;
        let ParsedRequest {
            records,
            attempt,
            rejected,
            held,
            mut charge,
        } = parse_body(columns, limits, owner, arrived)?;
        let rows = u32::try_from(records.num_rows()).map_err(ErrorResponse::failed)?;
        let mut payload = encoded(&records, held, &mut charge)?;
        drop(records);
        if let Some(attempt) = &attempt {
            wal_record::seal(&mut payload, &attempt.request);
        }
        charge.set(payload.capacity() as u64)?;
        Ok((payload, rows, attempt, rejected, charge))
    });
    let (payload, rows, attempt, rejected, charge) = parsed.await?;
    if rows == 0 {
        let mut answer = json!({ "error": "none of its records can be taken" });
        list(&mut answer, "invalid", &rejected);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response());
    }
    let (first, rows, duplicate) = shared.journalled(payload, rows, attempt, charge).await?;
    let mut told = json!({ "first": first, "records": rows });
    list(&mut told, "invalid", &rejected);
    if duplicate {
        told["duplicate"] = json!(true);
    }
    if !committed {
        return Ok((StatusCode::ACCEPTED, Json(told)).into_response());
    }
    if let Some(outcome) = shared
        .ack_waiters
        .wait(&shared.wal, first, first + u64::from(rows))
    {
        match tokio::time::timeout(shared.limits.response_timeout.0, outcome).await {
            Ok(Ok(outcome)) => {
                list(&mut told, "rejected", &outcome.rejected);
                list(&mut told, "dropped", &outcome.filtered);
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

impl HttpState {
    /// Has records made durable; the row of the first, how many there are, and whether they were
    /// there before.
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
        // A request that has not been begun to be written by then is not taken: its receiver is
        // gone.
        let written = async {
            self.requests
                .send(request)
                .await
                .map_err(|_| ErrorResponse::ending())?;
            answer.await.map_err(|_| ErrorResponse::ending())
        };
        let answer = tokio::time::timeout(self.limits.journal.0, written).await.map_err(|_| {
            let message = "the journal does not answer within limits.journal: its disk hangs, or is too slow; the records may \
                           be taken all the same, so send them again with the same Idempotency-Key, if they have one";
            ErrorResponse::later(StatusCode::SERVICE_UNAVAILABLE, message, 10)
        })?;
        accepted(answer?)
    }
}

fn accepted(answer: CommitOutcome) -> Result<(u64, u32, bool), ErrorResponse> {
    match answer {
        CommitOutcome::Accepted {
            first,
            rows,
            duplicate,
        } => Ok((first, rows, duplicate)),
        CommitOutcome::KeyReused => {
            let message = "another request had this Idempotency-Key: its body, source or type differs; use a key for each request";
            Err(ErrorResponse::unprocessable(message))
        }
        CommitOutcome::BacklogFull => {
            let message = "as many records wait to be worked on as limits.backlog allows";
            Err(ErrorResponse::later(
                StatusCode::TOO_MANY_REQUESTS,
                message,
                5,
            ))
        }
        CommitOutcome::Failed => {
            let message = "the records cannot be made durable: the disk is full, or fails";
            Err(ErrorResponse::later(
                StatusCode::INSUFFICIENT_STORAGE,
                message,
                30,
            ))
        }
    }
}

/// Carries the records through the graph now, and answers with what comes of them.
async fn infer(
    shared: Arc<HttpState>,
    asked: QueryParams,
    arrived: ReceivedRequest,
) -> Result<Response, ErrorResponse> {
    if asked.ack.is_some() {
        return Err(ErrorResponse::bad(
            "`ack` is for /v1/records: nothing is kept here",
        ));
    }
    let wanted = Arc::new(ResponseOptions::new(
        asked.columns.as_deref(),
        &arrived.head.accept,
    ));
    let parsing = Arc::clone(&shared);
    let parsed =
        aside(move || parse_body(&parsing.columns, &parsing.limits, parsing.owner, arrived));
    let ParsedRequest {
        records,
        rejected,
        held,
        charge,
        ..
    } = parsed.await?;
    wanted.check(records.num_rows())?;
    let wait: Duration = shared.limits.response_timeout.0;
    let answered = shared
        .inference
        .encode(records, held, charge, Arc::clone(&wanted));
    let encoded = tokio::time::timeout(wait, answered).await.map_err(|_| {
        ErrorResponse::later(
            StatusCode::SERVICE_UNAVAILABLE,
            "no worker was free within limits.response_timeout",
            5,
        )
    })??;
    aside(move || wanted.write(encoded, &rejected))
        .await
        .map(IntoResponse::into_response)
}
