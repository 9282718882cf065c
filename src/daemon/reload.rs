//! Reloads models and the pipeline file when a model's files change, on SIGHUP and on request; the
//! latter two also reload certificates and tokens.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::LoadPlan;
use crate::admin::{ReloadRequest, ReloadResult};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::server::{Listeners, RotationReport};
use crate::topology::{ReloadHandle, ReloadOutcome};

/// Interval at which the files of models are polled. Changed files are loaded once two consecutive
/// polls agree.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Result of a reload that found neither changed models nor a changed pipeline.
const UNCHANGED: &str = "unchanged";

/// Files by path, length and modification time.
type FileSnapshot = BTreeSet<(PathBuf, u64, Option<SystemTime>)>;

pub(super) struct Reloader {
    load_plan: Arc<LoadPlan>,
    listeners: Arc<Listeners>,
    reload_handle: Arc<ReloadHandle>,
    metrics: Arc<Metrics>,
    folders: BTreeSet<PathBuf>,
    /// The files of the last reload, applied or refused.
    last_seen: FileSnapshot,
}

impl Reloader {
    pub(super) fn new(
        read: LoadPlan,
        listeners: Arc<Listeners>,
        reload_handle: Arc<ReloadHandle>,
        models: &[Arc<Model>],
        metrics: &Arc<Metrics>,
    ) -> Self {
        let folders = folders(models);
        let last_seen = files(&folders);
        Self {
            load_plan: Arc::new(read),
            listeners,
            reload_handle,
            metrics: Arc::clone(metrics),
            folders,
            last_seen,
        }
    }

    /// Reloads on request, on SIGHUP and when files change, until it is aborted.
    pub(super) async fn run(mut self, mut reload_requests: mpsc::Receiver<ReloadRequest>) {
        let mut hangups = SighupStream::new();
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        let mut seen = self.last_seen.clone();
        loop {
            tokio::select! {
                Some(ReloadRequest(reply)) = reload_requests.recv() => {
                    let reloaded = self.reload_all("request").await;
                    // The client may have disconnected.
                    let _ = reply.send(reloaded);
                }
                () = hangups.next() => drop(self.reload_all("SIGHUP").await),
                _ = polls.tick() => {
                    let now = self.poll_files().await;
                    if now != self.last_seen && now == seen {
                        drop(self.reload("changed model files").await);
                    }
                    seen = now;
                }
            }
        }
    }

    async fn poll_files(&self) -> FileSnapshot {
        let folders = self.folders.clone();
        // A file system that does not respond must not stop the other tasks of this thread.
        tokio::task::spawn_blocking(move || files(&folders))
            .await
            .unwrap_or_else(|_| self.last_seen.clone())
    }

    /// Reloads certificates and tokens, then models and the pipeline.
    async fn reload_all(&mut self, why: &str) -> ReloadResult {
        let listeners = Arc::clone(&self.listeners);
        let rotated = tokio::task::spawn_blocking(move || listeners.rotate()).await;
        let RotationReport {
            replaced,
            mut refused,
        } = rotated.unwrap_or_default();
        let replaced = (!replaced.is_empty()).then(|| format!("replaced: {}", replaced.join(", ")));
        match self.reload(why).await {
            Ok(done) if refused.is_empty() => {
                let done = Some(done).filter(|done| replaced.is_none() || done != UNCHANGED);
                Ok(replaced
                    .into_iter()
                    .chain(done)
                    .collect::<Vec<_>>()
                    .join("\n"))
            }
            Ok(done) => {
                refused.extend(replaced);
                refused.push(format!("models: {done}"));
                Err(refused)
            }
            Err(reasons) => {
                refused.extend(replaced);
                Err(reasons.into_iter().chain(refused).collect())
            }
        }
    }

    async fn reload(&mut self, why: &str) -> ReloadResult {
        self.last_seen = self.poll_files().await;
        let (read, reload_handle) = (Arc::clone(&self.load_plan), Arc::clone(&self.reload_handle));
        let done = tokio::task::spawn_blocking(move || {
            let plan = read().map_err(|problems| {
                problems
                    .to_string()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })?;
            let outcome = reload_handle.reload(&plan)?;
            Ok((outcome, folders(&plan.models)))
        });
        let done = done
            .await
            .unwrap_or_else(|_| Err(vec!["the reload panicked".to_owned()]));
        self.metrics
            .models
            .reload_successful
            .set(i64::from(done.is_ok()));
        let count = |name: &str| self.metrics.models.reloads.with_label_values(&[name]).inc();
        match done {
            Ok((outcome, folders)) => {
                if folders != self.folders {
                    self.folders = folders;
                    self.last_seen = self.poll_files().await;
                }
                match outcome {
                    ReloadOutcome::Applied(number) => {
                        count("applied");
                        tracing::info!(
                            reason = %why,
                            generation = number,
                            "reload applied, effective from the next batch on"
                        );
                        Ok(format!("applied: generation {number}"))
                    }
                    ReloadOutcome::Unchanged => {
                        count("unchanged");
                        tracing::info!(reason = %why, "reload found models and pipeline unchanged");
                        Ok(UNCHANGED.to_owned())
                    }
                }
            }
            Err(reasons) => {
                count("refused");
                tracing::error!(
                    reason = %why,
                    errors = %reasons.join("; "),
                    "reload refused; the previous models and pipeline stay in use"
                );
                Err(reasons)
            }
        }
    }
}

fn folders(models: &[Arc<Model>]) -> BTreeSet<PathBuf> {
    models.iter().flat_map(|model| model.folders()).collect()
}

fn files(folders: &BTreeSet<PathBuf>) -> FileSnapshot {
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    let files = entries.filter_map(|entry| {
        let metadata = entry
            .path()
            .metadata()
            .ok()
            .filter(|metadata| metadata.is_file())?;
        Some((entry.path(), metadata.len(), metadata.modified().ok()))
    });
    files.collect()
}

/// The signal SIGHUP, with which operators request a reload.
struct SighupStream {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl SighupStream {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup());
        Self {
            signal: signal
                .map_err(|error| {
                    tracing::warn!(
                        %error,
                        "cannot install a handler for SIGHUP; use /v1/reload"
                    );
                })
                .ok(),
        }
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let received = match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}
