//! Reads models and the pipeline file again: when a model's files have changed, on SIGHUP, and on
//! request; the latter two also exchange certificates and tokens that have changed.

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

/// How often the files of models are looked at. They are taken when they have not changed from one
/// look to the next.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What is answered where models and the pipeline are what they were.
const UNCHANGED: &str = "unchanged";

/// Files by path, length and time.
type FileSnapshot = BTreeSet<(PathBuf, u64, Option<SystemTime>)>;

pub(super) struct Reloader {
    load_plan: Arc<LoadPlan>,
    listeners: Arc<Listeners>,
    reload_handle: Arc<ReloadHandle>,
    metrics: Arc<Metrics>,
    folders: BTreeSet<PathBuf>,
    /// The files that were taken, or refused, last.
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

    /// Reloads whenever there is reason to, until it is aborted.
    pub(super) async fn run(mut self, mut reload_requests: mpsc::Receiver<ReloadRequest>) {
        let mut hangups = SighupStream::new();
        let mut looks = tokio::time::interval(POLL_INTERVAL);
        let mut seen = self.last_seen.clone();
        loop {
            tokio::select! {
                Some(ReloadRequest(reply)) = reload_requests.recv() => {
                    let reloaded = self.reload_all("asked for").await;
                    // Who asked may have gone.
                    let _ = reply.send(reloaded);
                }
                () = hangups.next() => drop(self.reload_all("SIGHUP").await),
                _ = looks.tick() => {
                    let now = self.poll_files().await;
                    if now != self.last_seen && now == seen {
                        drop(self.reload("a model's files have changed").await);
                    }
                    seen = now;
                }
            }
        }
    }

    async fn poll_files(&self) -> FileSnapshot {
        let folders = self.folders.clone();
        // A file system that does not answer must not stop the others that wait on this thread.
        tokio::task::spawn_blocking(move || files(&folders))
            .await
            .unwrap_or_else(|_| self.last_seen.clone())
    }

    /// Exchanges certificates and tokens, then models.
    async fn reload_all(&mut self, why: &str) -> ReloadResult {
        let listeners = Arc::clone(&self.listeners);
        let rotated = tokio::task::spawn_blocking(move || listeners.rotate()).await;
        let RotationReport {
            exchanged,
            mut refused,
        } = rotated.unwrap_or_default();
        let exchanged =
            (!exchanged.is_empty()).then(|| format!("exchanged: {}", exchanged.join(", ")));
        match self.reload(why).await {
            Ok(done) if refused.is_empty() => {
                let done = Some(done).filter(|done| exchanged.is_none() || done != UNCHANGED);
                Ok(exchanged
                    .into_iter()
                    .chain(done)
                    .collect::<Vec<_>>()
                    .join("\n"))
            }
            Ok(done) => {
                refused.extend(exchanged);
                refused.push(format!("models: {done}"));
                Err(refused)
            }
            Err(reasons) => {
                refused.extend(exchanged);
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
            let exchanged = reload_handle.reload(&plan)?;
            Ok((exchanged, folders(&plan.models)))
        });
        let done = done
            .await
            .unwrap_or_else(|_| Err(vec!["the attempt panicked".to_owned()]));
        self.metrics
            .models
            .reload_successful
            .set(i64::from(done.is_ok()));
        let count = |outcome: &str| {
            self.metrics
                .models
                .reloads
                .with_label_values(&[outcome])
                .inc()
        };
        match done {
            Ok((exchanged, folders)) => {
                if folders != self.folders {
                    self.folders = folders;
                    self.last_seen = self.poll_files().await;
                }
                match exchanged {
                    ReloadOutcome::Applied(number) => {
                        count("applied");
                        tracing::info!(
                            generation = number,
                            "{why}: the next batch goes through the new models"
                        );
                        Ok(format!("applied: generation {number}"))
                    }
                    ReloadOutcome::Unchanged => {
                        count("unchanged");
                        tracing::info!("{why}: models and pipeline are unchanged");
                        Ok(UNCHANGED.to_owned())
                    }
                }
            }
            Err(reasons) => {
                count("refused");
                tracing::error!(
                    "{why}: refused, what runs goes on as before: {}",
                    reasons.join("; ")
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

/// The signal by which operators ask for a reload.
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
                .map_err(|error| tracing::warn!(%error, "SIGHUP cannot be heard"))
                .ok(),
        }
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let heard = match &mut self.signal {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if heard.is_none() {
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
