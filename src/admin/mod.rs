//! The admin listener: metrics, health, the dashboard, and requests to reload models.

mod authorize;
mod dashboard;
mod status;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::settings::AdminSettings;
use crate::error::StageError;
use crate::metrics::Metrics;
use crate::server::{self, HostCheck, ListenOptions, ListenerRole, Listeners, TokenAuth};
use crate::topology::RunStats;

/// State of the admin listener.
pub struct Admin {
    metrics: Arc<Metrics>,
    run: OnceLock<AttachedRun>,
    draining: AtomicBool,
}

/// A run that has started.
struct AttachedRun {
    stats: Arc<RunStats>,
    /// Receiver of reload requests; `None` for a run with an end.
    reload: Option<mpsc::Sender<ReloadRequest>>,
}

/// A request to reload the models and the pipeline file, with the channel for its result.
pub(crate) struct ReloadRequest(pub oneshot::Sender<ReloadResult>);

/// The result of a request: the changes, or the reasons why it was refused.
pub(crate) type ReloadResult = Result<String, Vec<String>>;

impl Admin {
    /// Creates a listener for these metrics, before a run is attached.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            run: OnceLock::new(),
            draining: AtomicBool::new(false),
        })
    }

    /// Attaches a run; only the first call has an effect.
    pub(crate) fn attach_run(
        &self,
        stats: Arc<RunStats>,
        reload: Option<mpsc::Sender<ReloadRequest>>,
    ) {
        let _ = self.run.set(AttachedRun { stats, reload });
    }

    /// Records that the run accepts no more records.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Relaxed);
        self.metrics.ready.set(0);
    }

    /// The state of the run as a word.
    fn state(&self) -> &'static str {
        match self.not_started() {
            None => "running",
            Some(_) if self.draining.load(Relaxed) => "draining",
            Some(_) => "starting",
        }
    }

    /// The reason why the run accepts no records; `None` if it does.
    fn unready_reason(&self) -> Option<String> {
        self.not_started()
            .map(str::to_owned)
            .or_else(|| self.metrics.stall_reason())
    }

    /// The reason why the run is starting or stopping; `None` if it is neither.
    fn not_started(&self) -> Option<&'static str> {
        match self.run.get() {
            None => Some("starting: the outputs are being opened"),
            Some(_) if self.draining.load(Relaxed) => Some("draining"),
            Some(run) if !run.stats.is_ready() => Some("starting: models are being loaded"),
            Some(_) => None,
        }
    }

    /// Serves according to `settings` until the process ends. Returns the URL once the port is
    /// bound, or `None` if no address is set.
    ///
    /// # Errors
    /// Returns an error if the port cannot be bound, or the token, certificate or key cannot be
    /// used.
    pub(crate) fn serve(
        self: &Arc<Self>,
        settings: &AdminSettings,
        listeners: &Listeners,
    ) -> Result<Option<String>, StageError> {
        let Some(address) = settings.listen else {
            return Ok(None);
        };
        let auth = listeners.load_token_auth(NAME, settings.token.as_ref(), &self.metrics)?;
        let options = ListenOptions {
            name: NAME,
            address,
            bounds: settings.limits,
            tls: settings.tls.as_ref(),
        };
        let server = listeners.bind(&options, ListenerRole::Admin, &self.metrics)?;
        let url = server.url();
        let router = self.router(auth, settings.hosts.clone());
        tokio::spawn(async move {
            // The listener ends with the process.
            let (_ends, never) = watch::channel(false);
            server.run(router, never).await;
        });
        Ok(Some(url))
    }

    fn router(self: &Arc<Self>, auth: Arc<TokenAuth>, hosts: Vec<String>) -> Router {
        let refuse =
            |reason: String| (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response();
        // Browsers send a stored password with requests from every page, so that the token alone
        // does not identify the page that makes a request.
        let guard = HostCheck {
            host: !auth.needs_token(),
            origin: true,
            hosts,
            refuse,
        };
        Router::new()
            .route("/metrics", get(get_metrics))
            .route("/healthz", get(get_healthz))
            .route("/readyz", get(get_readyz))
            .route("/", get(dashboard::get_dashboard))
            .route("/v1/status", get(dashboard::get_status))
            .route("/v1/images/{number}/{file}", get(dashboard::get_image))
            .route("/v1/reload", post(post_reload))
            .with_state(Arc::clone(self))
            .layer(from_fn_with_state(auth, authorize::authorize))
            .layer(from_fn_with_state(
                Arc::new(guard),
                server::require_allowed_host,
            ))
    }
}

/// The name of the listener in metrics and the log.
const NAME: &str = "admin";

async fn get_metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin
        .metrics
        .ready
        .set(i64::from(admin.unready_reason().is_none()));
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        admin.metrics.text(),
    )
}

/// Answers while the process is alive. Whether the run makes progress is reported by `/readyz` and
/// the metrics.
async fn get_healthz() -> &'static str {
    "ok\n"
}

async fn get_readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.unready_reason() {
        None => {
            let pending_files = admin.metrics.watch.pending_files_by_stage();
            (
                StatusCode::OK,
                format!(
                    "ready\n{}",
                    pending_files
                        .iter()
                        .map(|line| format!("{line}\n"))
                        .collect::<String>()
                ),
            )
        }
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// 200 with the changes, 409 with the reasons for a refusal, 503 if nothing can be reloaded at the
/// moment.
async fn post_reload(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let unavailable = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    if let Some(reason) = admin.not_started() {
        return unavailable(reason);
    }
    let Some(reload_requests) = admin.run.get().and_then(|run| run.reload.as_ref()) else {
        return unavailable("a reload requires a source without an end");
    };
    let (sender, reloaded) = oneshot::channel();
    if reload_requests.send(ReloadRequest(sender)).await.is_err() {
        return unavailable("draining");
    }
    match reloaded.await {
        Ok(Ok(done)) => (StatusCode::OK, format!("{done}\n")),
        Ok(Err(reasons)) => (StatusCode::CONFLICT, format!("{}\n", reasons.join("\n"))),
        Err(_) => unavailable("draining"),
    }
}
