//! The source `http`: accepts records from clients, acknowledges them once they are durable, and
//! encodes records on request.

mod ack_waiters;
pub(crate) mod body;
pub mod config;
pub(crate) mod error_response;
pub(crate) mod idempotency;
mod inference;
pub(crate) mod inference_result;
pub(crate) mod limits;
mod response;
mod routes;
pub(crate) mod wal;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use axum::Router;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::batch::BatchAck;
use crate::batch::provenance::Split;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::server;
use crate::server::connection::HttpServer;
use crate::server::{HostCheck, Listeners, TokenAuth};
use crate::source::http::config::{HttpSourceConfig, WAITING, WINDOW};
use crate::source::reader::spawn_reader;
use crate::source::{Source, SourceHandle};
use crate::storage::Location;

use ack_waiters::AckWaiters;
use body::columns::RequestColumns;
use body::memory_reservation::MemoryPool;
use inference::InferenceClient;
use limits::{HttpLimits, TokenBucket};
use routes::HttpState;
use wal::WriteAheadLog;
use wal::reader::{BatchShape, WalReader};

pub(crate) use body::column_type::RequestColumnType;

/// Batches that are read ahead of their use.
const AHEAD: usize = 1;

/// The source as planned.
struct HttpSource {
    name: String,
    config: HttpSourceConfig,
    columns: RequestColumns,
    shape: BatchShape,
    delay: Duration,
    metrics: Arc<Metrics>,
    listeners: Arc<Listeners>,
}

impl Source for HttpSource {
    fn schema(&self) -> SchemaRef {
        self.columns.with_origin()
    }

    fn reading_bytes(&self) -> u64 {
        let HttpLimits {
            request,
            in_flight,
            backlog,
            ..
        } = self.config.limits;
        // The sum of the requests, of frames that are read from the journal, decoded and
        // concatenated, and of the entries for frames and keys.
        let frames = request.0.min(in_flight.0).saturating_mul(3) + wal::reader::MAX_BYTES as u64;
        in_flight
            .0
            .saturating_add(frames)
            .saturating_add(backlog.0 / wal::BYTES_PER_ENTRY_BYTE)
            + idempotency::keys::KEYS_BYTES
    }

    fn is_unbounded(&self) -> bool {
        true
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let state = resume
            .state
            .as_ref()
            .and_then(Location::local)
            .ok_or_else(|| {
                StageError::new(
                    ErrorCode::StateRequired,
                    "the journal of requests needs a folder on a local disk; write `state = \
                     \"some/folder\"` at the top of the pipeline"
                        .to_owned(),
                )
            })?;
        let Self {
            name,
            config,
            columns,
            shape,
            delay,
            metrics,
            listeners,
        } = *self;
        let split = Split::new(format!("{name}/requests"));
        let folder = state.join("requests").join(&name);
        let window = config.idempotency_window.map_or(WINDOW, |window| window.0);
        let wal = Arc::new(WriteAheadLog::open(&folder, split.name(), window, resume)?);
        let (requests, commit_requests) = mpsc::channel(WAITING);
        let (inference_sender, inference_requests) = mpsc::channel(1);
        let (ack_sender, acks) = mpsc::unbounded_channel();
        let (end, ends) = watch::channel(false);
        let (closed_sender, closed) = oneshot::channel();
        let (server, auth) = listen(&config, &name, &listeners, &metrics)?;
        let slots = concurrent_requests(config.limits.requests.get(), server.connections());
        let shared = Arc::new(HttpState {
            split: Arc::clone(&split),
            columns,
            auth,
            rate_limit: config.limits.rate.map(TokenBucket::new),
            slots: Arc::new(Semaphore::new(slots)),
            memory: MemoryPool::new(config.limits.in_flight.0),
            owner: if config.token.is_some() {
                "token"
            } else {
                "anybody"
            },
            limits: config.limits,
            requests,
            wal: Arc::clone(&wal),
            ack_waiters: AckWaiters::default(),
            inference: InferenceClient::start(shape.clone(), &name, inference_sender),
            ends: ends.clone(),
            metrics,
            stage: name,
        });
        let router = guarded_router(&config, &shared);
        let backlog = config.limits.backlog.0;
        let committed = Arc::clone(&wal);
        let committer = std::thread::Builder::new().name("journal".to_owned());
        let caller = || shared.metrics.calls.caller(&shared.stage, true);
        let (committing, pumping) = (caller(), caller());
        let committer = committer.spawn(move || {
            wal::group_commit::run(&committed, backlog, commit_requests, &committing)
        });
        committer.map_err(|error| {
            StageError::new(
                ErrorCode::ThreadFailed,
                format!("cannot start a thread: {error}"),
            )
        })?;
        let (until, runtime) = (server.run(router, ends), Handle::current());
        runtime.spawn(forward_acks(
            Arc::clone(&shared),
            acks,
            end.clone(),
            until,
            closed_sender,
        ));
        let pump = WalReader {
            wal,
            split,
            shape,
            resume: resume.clone(),
            delay,
            runtime,
            caller: pumping,
        };
        let batches = spawn_reader(AHEAD, move |out| {
            let pumped = pump.run(out);
            // The run accepts no more batches; clients get 503 from now on.
            end.send_replace(true);
            pumped
        });
        Ok(SourceHandle {
            acks: Some(ack_sender),
            inference_requests: Some(inference_requests),
            shutdown_complete: Some(closed),
            ..SourceHandle::new(batches, None)
        })
    }
}

/// Binds the port, logs its URL, and reads the token.
fn listen(
    config: &HttpSourceConfig,
    name: &str,
    listeners: &Listeners,
    metrics: &Arc<Metrics>,
) -> Result<(HttpServer, Arc<TokenAuth>), StageError> {
    let auth = listeners.load_token_auth(name, config.token.as_ref(), metrics)?;
    let (bounds, tls) = (config.limits.bounds(), config.tls.as_ref());
    let options = server::ListenOptions {
        name,
        address: config.listen,
        bounds,
        tls,
    };
    let server = listeners.bind(&options, listeners.source(), metrics)?;
    tracing::info!(stage = name, "listening on {}", server.url());
    Ok((server, auth))
}

/// Maximum number of requests that are processed concurrently: a quarter of the connections is
/// reserved for requests that are refused.
fn concurrent_requests(requests: u32, connections: usize) -> usize {
    (requests as usize).min(connections - connections / 4)
}

/// The routes, with a check that no page of another site has made the request. With a token, the
/// check is not needed, because such a page does not have the token.
fn guarded_router(config: &HttpSourceConfig, shared: &Arc<HttpState>) -> Router {
    let open = config.token.is_none();
    let guard = HostCheck {
        host: open,
        origin: open,
        hosts: config.hosts.clone(),
        refuse: routes::forbidden,
    };
    routes::router(Arc::clone(shared)).layer(axum::middleware::from_fn_with_state(
        Arc::new(guard),
        server::require_allowed_host,
    ))
}

/// Runs the server, and forwards acknowledgements to clients and the journal, until the run ends.
async fn forward_acks(
    shared: Arc<HttpState>,
    mut acks: mpsc::UnboundedReceiver<BatchAck>,
    end: watch::Sender<bool>,
    server: impl Future<Output = ()> + Send + 'static,
    closed: oneshot::Sender<()>,
) {
    let gauges = &shared.metrics.http;
    let labels = [shared.stage.as_str()];
    let limit = i64::try_from(shared.limits.backlog.0).unwrap_or(i64::MAX);
    gauges
        .backlog_limit_bytes
        .with_label_values(&labels)
        .set(limit);
    let set = || {
        let set = |gauge: prometheus::IntGauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX))
        };
        set(
            gauges.backlog_records.with_label_values(&labels),
            shared.wal.pending_rows(),
        );
        set(
            gauges.backlog_bytes.with_label_values(&labels),
            shared.wal.state().pending_bytes,
        );
    };
    let serving = tokio::spawn(server);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ack = acks.recv() => match ack {
                Some(ack) => {
                    shared.ack_waiters.on_ack(&shared.wal, &shared.split, &ack);
                    let journal = Arc::clone(&shared.wal);
                    // Files are removed on another thread: a disk that hangs must not keep clients
                    // from their responses.
                    drop(tokio::task::spawn_blocking(move || retire(&journal)));
                }
                None => break,
            },
            _ = ticks.tick() => set(),
        }
    }
    // The run is over: no client receives a further outcome.
    end.send_replace(true);
    drop(serving.await);
    let _ = closed.send(());
}

/// Removes committed requests from the journal.
fn retire(journal: &WriteAheadLog) {
    if let Err(error) = journal.retire() {
        tracing::warn!(
            folder = %journal.folder.display(),
            %error,
            "cannot remove committed requests from the journal; retrying after the next commit"
        );
    }
}

/// Interval at which gauges are set.
const TICK: Duration = Duration::from_millis(500);
