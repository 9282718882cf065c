//! Certificates, keys and tokens that are exchanged when their files change.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::StageError;
use crate::metrics::{ListenerMetrics, Metrics};
use crate::units::unix_seconds;

/// How often the files are looked at. What changed is taken when it is the same at two looks, since
/// a certificate and its key are not replaced in the same moment.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that such a file may have.
const MAX_BYTES: u64 = 1 << 20;

/// Something that lies in files and is exchanged with them.
pub(super) trait Credential: Send + Sync {
    /// What it is, in a word; a label of metrics.
    fn name(&self) -> &'static str;

    /// The files, in the order in which [`Credential::take`] expects their contents.
    fn files(&self) -> Vec<PathBuf>;

    /// Those of them that others must not read.
    fn secrets(&self) -> Vec<PathBuf>;

    /// Takes the contents of the files.
    ///
    /// # Errors
    /// Why they cannot be used; then what was there before stays.
    fn take(&self, contents: &[Vec<u8>]) -> Result<LoadedCredential, String>;
}

/// What was taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LoadedCredential {
    /// When it expires, in seconds since 1970.
    pub(super) expires: Option<i64>,
}

/// All credentials of a run.
#[derive(Default)]
pub(super) struct CredentialRotation {
    held: Mutex<Vec<RotatedCredential>>,
}

/// A credential, and which contents of its files were met.
struct RotatedCredential {
    listener: String,
    credential: Arc<dyn Credential>,
    metrics: Arc<Metrics>,
    /// The contents that are in use.
    taken: [u8; 32],
    /// The contents at the last look.
    seen: [u8; 32],
    /// The contents that cannot be used, and why.
    refused: Option<([u8; 32], String)>,
}

/// What came of a look at all files.
#[derive(Debug, Default)]
pub struct RotationReport {
    /// What was exchanged, such as `certificate of requests`.
    pub exchanged: Vec<String>,
    /// What cannot be used, and why; what was there before stays.
    pub refused: Vec<String>,
}

impl CredentialRotation {
    /// Reads a credential for the first time; from then on it is exchanged when its files change.
    pub(super) fn hold(
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
            .map(|file| read(file).map_err(StageError::io(file)));
        let contents = contents.collect::<Result<Vec<_>, _>>()?;
        let taken = credential.take(&contents).map_err(|message| {
            let files: Vec<String> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            StageError::Other(format!("{}: {message}", files.join(", ")))
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
        held.note(taken);
        held.warn_of_readers();
        held.gauge().set(0);
        // A pipe gives its content once.
        if files.iter().all(|file| file.is_file()) {
            self.held
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(held);
        }
        Ok(())
    }

    /// Looks at the files until it is dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut looks = tokio::time::interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let all = Arc::clone(&self);
            // A file system that does not answer must not stop the others that wait on this thread.
            drop(tokio::task::spawn_blocking(move || all.poll_files(false)).await);
        }
    }

    /// Takes what has changed; unless `now`, only what was the same at the look before.
    pub(super) fn poll_files(&self, now: bool) -> RotationReport {
        let mut rotated = RotationReport::default();
        for held in self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
        {
            held.poll_files(now, &mut rotated);
        }
        rotated
    }
}

impl RotatedCredential {
    fn poll_files(&mut self, now: bool, rotated: &mut RotationReport) {
        let contents = self
            .credential
            .files()
            .into_iter()
            .map(|file| read(&file).map_err(|error| format!("{}: {error}", file.display())));
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
            _ => match contents.and_then(|contents| self.credential.take(&contents)) {
                Ok(taken) => {
                    (self.taken, self.refused) = (digest, None);
                    self.gauge().set(0);
                    self.note(taken);
                    self.warn_of_readers();
                    self.listeners()
                        .rotations
                        .with_label_values(&self.labels())
                        .inc();
                    tracing::info!("the {what} was exchanged");
                    rotated.exchanged.push(what);
                }
                Err(message) => {
                    self.gauge().set(1);
                    tracing::warn!(
                        "the new {what} cannot be used, and the former one stays: {message}"
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

    /// Notes when it expires, and warns where it has.
    fn note(&self, taken: LoadedCredential) {
        self.listeners().rotations.with_label_values(&self.labels());
        let Some(expires) = taken.expires else { return };
        self.listeners()
            .certificate_expiry
            .with_label_values(&[&self.listener])
            .set(expires);
        if (expires as f64) < unix_seconds() {
            tracing::warn!(
                "the certificate of {} has expired: clients that check it refuse it",
                self.listener
            );
        }
    }

    /// Warns of secrets that other users of the machine may read.
    fn warn_of_readers(&self) {
        for file in self.credential.secrets() {
            if let Some(readers) = readers(&file) {
                let file = file.display();
                tracing::warn!(
                    "{file} holds a secret and can be read by {readers}; restrict it: chmod 600 {file}"
                );
            }
        }
    }
}

/// Who beside its owner may read a file. A file of another owner may be readable for the group,
/// since the process would not read it otherwise: secrets of Kubernetes and of systemd are mounted
/// so.
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

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let opened = open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    opened.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_BYTES} bytes"
        )));
    }
    Ok(content)
}

/// Opens a file. A pipe in its place does not wait for a writer.
fn open(file: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        File::options().read(true).custom_flags(flags).open(file)
    }
    #[cfg(not(unix))]
    File::open(file)
}

/// Contents and where each ends.
fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in contents {
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::auth::{TokenAuth, TokenSource};
    use super::*;

    const FIRST: &str = "Bearer the-first-of-the-tokens";
    const SECOND: &str = "Bearer the-second-of-the-tokens";

    #[test]
    fn token_that_changes_is_taken_when_it_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let write =
            |bearer: &str| std::fs::write(&file, bearer.trim_start_matches("Bearer ")).unwrap();
        write(FIRST);
        let place = TokenSource {
            file: Some(file.clone()),
            variable: None,
        };
        let access = Arc::new(TokenAuth::of(Some(&place)).unwrap());
        let (rotation, metrics) = (CredentialRotation::default(), Arc::new(Metrics::new()));
        rotation
            .hold("in", Arc::clone(&access) as Arc<dyn Credential>, &metrics)
            .unwrap();
        let admits = || [FIRST, SECOND].map(|header| access.is_authorized(Some(header)));
        let refused = metrics
            .listeners
            .rotation_refused
            .with_label_values(&["in", "token"]);
        assert_eq!(admits(), [true, false]);
        write(SECOND);
        assert!(rotation.poll_files(false).exchanged.is_empty());
        assert_eq!(rotation.poll_files(false).exchanged, ["token of in"]);
        assert_eq!(admits(), [false, true]);
        // What cannot be used leaves what was there, and is reported once more when it is asked
        // for.
        write("short");
        assert!(rotation.poll_files(true).refused[0].contains("at least 16"));
        assert!(rotation.poll_files(true).refused[0].contains("at least 16"));
        assert_eq!((admits(), refused.get()), ([false, true], 1));
        std::fs::remove_file(&file).unwrap();
        assert!(rotation.poll_files(true).refused[0].contains("No such file"));
        write(SECOND);
        assert!(rotation.poll_files(true).exchanged.is_empty());
        assert_eq!((admits(), refused.get()), ([false, true], 0));
        write(FIRST);
        assert_eq!(
            rotation.poll_files(true).exchanged,
            ["token of in"],
            "without waiting for a second look"
        );
        assert_eq!(admits(), [true, false]);
    }

    #[cfg(unix)]
    #[test]
    fn secret_that_others_can_read_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "x").unwrap();
        let of = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            readers(&file)
        };
        assert_eq!(
            [of(0o600), of(0o640), of(0o604)],
            [None, Some("its group"), Some("every user of this machine")]
        );
    }
}
