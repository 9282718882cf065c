//! Rotation of credentials: certificates, keys and tokens are reloaded when their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::fs_durable::bounded_read::read_bounded;
use crate::metrics::{ListenerMetrics, Metrics};
use crate::units::unix_seconds;

/// Interval at which the files are polled. A change is loaded once two consecutive polls agree,
/// because a certificate and its key are not replaced at the same moment.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum size of such a file in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A credential that is stored in files and reloaded from them.
pub(super) trait Credential: Send + Sync {
    /// A word for the credential, which is a label of metrics.
    fn name(&self) -> &'static str;

    /// The files, in the order in which [`Credential::load`] expects their contents.
    fn files(&self) -> Vec<PathBuf>;

    /// The files that other users must not be able to read.
    fn secrets(&self) -> Vec<PathBuf>;

    /// Loads the contents of the files.
    ///
    /// # Errors
    /// Returns the reason why they cannot be used; the previous credential then stays in use.
    fn load(&self, contents: &[Vec<u8>]) -> Result<LoadedCredential, String>;
}

/// Properties of a credential that was loaded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LoadedCredential {
    /// Time at which it expires, in seconds since 1970; `None` if it does not.
    pub(super) expires: Option<i64>,
}

/// All credentials of a run.
#[derive(Default)]
pub(super) struct CredentialRotation {
    held: Mutex<Vec<RotatedCredential>>,
}

/// A credential, and digests of the contents of its files.
struct RotatedCredential {
    listener: String,
    credential: Arc<dyn Credential>,
    metrics: Arc<Metrics>,
    /// The contents in use.
    taken: [u8; 32],
    /// The contents at the last poll.
    seen: [u8; 32],
    /// The contents that cannot be used, and the reason.
    refused: Option<([u8; 32], String)>,
}

/// The result of a poll of all files.
#[derive(Debug, Default)]
pub(crate) struct RotationReport {
    /// Credentials that were replaced, such as `certificate of requests`.
    pub replaced: Vec<String>,
    /// Credentials that cannot be used and the reasons; the previous ones stay in use.
    pub refused: Vec<String>,
}

impl CredentialRotation {
    /// Reads a credential for the first time, and registers it to be reloaded when its files
    /// change.
    pub(super) fn register(
        &self,
        listener: &str,
        credential: Arc<dyn Credential>,
        metrics: &Arc<Metrics>,
    ) -> Result<(), StageError> {
        let files = credential.files();
        if files.is_empty() {
            return Ok(());
        }
        let contents = files
            .iter()
            .map(|file| read_bounded(file, MAX_BYTES).map_err(StageError::io(file)));
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        let loaded = credential.load(&contents).map_err(|message| {
            let files: Vec<String> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            StageError::new(
                ErrorCode::CredentialsMissing,
                format!("{}: {message}", files.join(", ")),
            )
        })?;
        let digest = digest(&contents);
        let metrics = Arc::clone(metrics);
        let held = RotatedCredential {
            listener: listener.to_owned(),
            credential,
            metrics,
            taken: digest,
            seen: digest,
            refused: None,
        };
        held.set_metrics(loaded);
        held.warn_about_readers();
        held.gauge().set(0);
        // The content of a pipe can be read only once.
        if files.iter().all(|file| file.is_file()) {
            self.held.lock().push(held);
        }
        Ok(())
    }

    /// Polls the files until it is dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            polls.tick().await;
            let all = Arc::clone(&self);
            // A file system that does not respond must not stop the other tasks of this thread.
            drop(tokio::task::spawn_blocking(move || all.poll_files(false)).await);
        }
    }

    /// Loads changed files; unless `now`, only those that were the same at the previous poll.
    pub(super) fn poll_files(&self, now: bool) -> RotationReport {
        let mut rotated = RotationReport::default();
        for held in self.held.lock().iter_mut() {
            held.poll_files(now, &mut rotated);
        }
        rotated
    }
}

impl RotatedCredential {
    fn poll_files(&mut self, now: bool, rotated: &mut RotationReport) {
        let contents = self.credential.files().into_iter().map(|file| {
            read_bounded(&file, MAX_BYTES).map_err(|error| format!("{}: {error}", file.display()))
        });
        let contents = contents.collect::<Result<Vec<_>, String>>();
        let digest = match &contents {
            Ok(contents) => digest(contents),
            Err(message) => Sha256::digest(message).into(),
        };
        let is_same = std::mem::replace(&mut self.seen, digest) == digest;
        if digest == self.taken {
            self.refused = None;
            self.gauge().set(0);
            return;
        }
        if !now && !is_same {
            return;
        }
        let what = format!("{} of {}", self.credential.name(), self.listener);
        match &self.refused {
            Some((refused, message)) if *refused == digest => {
                rotated.refused.push(format!("{what}: {message}"))
            }
            _ => match contents.and_then(|contents| self.credential.load(&contents)) {
                Ok(loaded) => {
                    (self.taken, self.refused) = (digest, None);
                    self.gauge().set(0);
                    self.set_metrics(loaded);
                    self.warn_about_readers();
                    self.listeners()
                        .rotations
                        .with_label_values(&self.labels())
                        .inc();
                    tracing::info!(credential = %what, "credential replaced");
                    rotated.replaced.push(what);
                }
                Err(message) => {
                    self.gauge().set(1);
                    tracing::warn!(
                        credential = %what,
                        error = %message,
                        "cannot use the changed credential; the previous one stays in use"
                    );
                    rotated.refused.push(format!("{what}: {message}"));
                    self.refused = Some((digest, message));
                }
            },
        }
    }

    fn listeners(&self) -> &ListenerMetrics {
        &self.metrics.listeners
    }

    fn labels(&self) -> [&str; 2] {
        [&self.listener, self.credential.name()]
    }

    fn gauge(&self) -> prometheus::IntGauge {
        self.listeners()
            .rotation_refused
            .with_label_values(&self.labels())
    }

    /// Sets the metrics of the credential, and warns if it has expired.
    fn set_metrics(&self, loaded: LoadedCredential) {
        self.listeners().rotations.with_label_values(&self.labels());
        let Some(expires) = loaded.expires else {
            return;
        };
        self.listeners()
            .certificate_expiry
            .with_label_values(&[&self.listener])
            .set(expires);
        if (expires as f64) < unix_seconds() {
            tracing::warn!(
                listener = %self.listener,
                "the certificate has expired; clients that verify it refuse the connection"
            );
        }
    }

    /// Warns about secrets that other users of the machine can read.
    fn warn_about_readers(&self) {
        for file in self.credential.secrets() {
            if let Some(readers) = readers(&file) {
                tracing::warn!(
                    path = %file.display(),
                    %readers,
                    "other users can read a secret; restrict its file with chmod 600"
                );
            }
        }
    }
}

/// The users other than the owner that can read a file. A file of another owner may be readable by
/// its group, because the process could not read it otherwise: Kubernetes and systemd mount secrets
/// in this way.
#[cfg(unix)]
fn readers(file: &Path) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    match metadata.mode() & 0o044 {
        mode if mode & 0o004 != 0 => Some("every user of this machine"),
        mode if mode & 0o040 != 0 && is_own => Some("its group"),
        _ => None,
    }
}

#[cfg(not(unix))]
fn readers(_: &Path) -> Option<&'static str> {
    None
}

/// The digest of the contents and their lengths.
fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in contents {
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
