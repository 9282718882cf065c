//! What clients may ask of a source: sizes, times, rates, and who they must be.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Fault, StageError};
use crate::units::{Bytes, Span};

/// Bounds on what clients may ask.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Bytes of a request's body, of that body without its `Content-Encoding`, and of its records in their columns, with the name of
    /// their source. Default: 64 MiB.
    pub request: Bytes,
    /// Records of a request, and lines of it that are none. Default: 1,000,000.
    pub records: NonZeroU32,
    /// Bytes that all requests take together, from their first byte to the last of their answers: bodies, what is decoded and cast,
    /// and answers of `/v1/encode`. Default: 256 MiB.
    pub in_flight: Bytes,
    /// How long a request may take to arrive.
    pub timeout: Span,
    /// How long `ack=committed` and `/v1/encode` wait for what they ask. Default: 5m.
    pub wait: Span,
    /// How long a request waits to be written to the journal; then it is answered with 503, as when the disk hangs. Default: 10s.
    pub journal: Span,
    /// Requests that are answered at once; those that wait for a commit count, too.
    pub requests: NonZeroU32,
    /// Connections that are open at once; more wait until one is closed.
    pub connections: NonZeroU32,
    /// Requests per second, over all clients. Default: any number.
    pub rate: Option<NonZeroU32>,
    /// Bytes of records that are acknowledged and not durable in every sink.
    pub backlog: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        const REQUESTS: NonZeroU32 = NonZeroU32::new(256).expect("not zero");
        const RECORDS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");
        const CONNECTIONS: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");
        Self {
            request: Bytes(64 << 20),
            records: RECORDS,
            in_flight: Bytes(256 << 20),
            timeout: Span(Duration::from_secs(30)),
            wait: Span(Duration::from_secs(300)),
            journal: Span(Duration::from_secs(10)),
            requests: REQUESTS,
            connections: CONNECTIONS,
            rate: None,
            backlog: Bytes(1 << 30),
        }
    }
}

/// Who may ask.
pub(super) enum Access {
    /// Anybody who can reach it.
    Anybody,
    /// Who knows the token; only its digest is kept.
    Token([u8; 32]),
}

/// Where the token is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct TokenPlace {
    /// A file whose first line it is.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The name of an environment variable.
    #[serde(default)]
    pub variable: Option<String>,
}

/// Characters that a token has at least: what can be guessed protects nothing.
const TOKEN_LENGTH: usize = 16;

impl Access {
    /// Reads the token.
    ///
    /// # Errors
    /// When it is not there, or too short to be one.
    pub(super) fn of(place: Option<&TokenPlace>) -> Result<Self, StageError> {
        let Some(place) = place else { return Ok(Self::Anybody) };
        let (text, from) = match (&place.file, &place.variable) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file).map_err(StageError::io(file))?;
                (text.lines().next().unwrap_or_default().trim().to_owned(), file.display().to_string())
            }
            (None, variable) => {
                let name = variable.as_deref().unwrap_or_default();
                let text = std::env::var(name);
                let text =
                    text.map_err(|_| StageError::Other(format!("the environment variable {name} is not set")))?;
                (text.trim().to_owned(), format!("the environment variable {name}"))
            }
        };
        if text.len() < TOKEN_LENGTH {
            return Err(StageError::Other(format!("{from}: a token has at least {TOKEN_LENGTH} characters")));
        }
        Ok(Self::Token(digest(&text)))
    }

    /// Whether the value of an `Authorization` header lets its sender in. Digests are compared, so that the time it takes
    /// says nothing about the token.
    pub(super) fn admits(&self, header: Option<&str>) -> bool {
        match self {
            Self::Anybody => true,
            Self::Token(token) => header
                .and_then(|value| value.split_once(' '))
                .is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case("bearer") && digest(given.trim()) == *token),
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What is wrong with who may ask where, before anything is read.
pub(super) fn check_access(listen: SocketAddr, token: Option<&TokenPlace>, anybody: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    match token {
        Some(TokenPlace { file: Some(_), variable: Some(_) }) => {
            faults.push(Fault::new("token", "names both a file and a variable; keep one"));
        }
        Some(TokenPlace { file: None, variable: None }) => {
            faults.push(Fault::new("token", "names no place; write { file = \"...\" } or { variable = \"...\" }"));
        }
        Some(_) if anybody => faults.push(Fault::new("anybody", "contradicts `token`; keep one")),
        None if !listen.ip().is_loopback() && !anybody => {
            let text = format!(
                "{listen} can be reached from other machines; add token = {{ file = \"...\" }}, or anybody = true where \
                 the network lets only the right ones in"
            );
            faults.push(Fault::new("listen", text));
        }
        _ => {}
    }
    faults
}

/// Lets so many requests through per second, and as many at once after a while without any.
pub(super) struct Rate {
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let per_second = f64::from(per_second.get());
        Self { per_second, state: Mutex::new((per_second, Instant::now())) }
    }

    /// Whether one more may pass now.
    pub(super) fn passes(&self) -> bool {
        self.passes_at(Instant::now())
    }

    fn passes_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left =
            (state.0 + now.saturating_duration_since(state.1).as_secs_f64() * self.per_second).min(self.per_second);
        *state = (if left >= 1.0 { left - 1.0 } else { left }, now);
        left >= 1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_who_knows_the_token_is_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "a-secret-of-some-length\n").unwrap();
        let access = Access::of(Some(&TokenPlace { file: Some(file.clone()), variable: None })).unwrap();
        assert!(access.admits(Some("Bearer a-secret-of-some-length")));
        for header in [None, Some(""), Some("Bearer "), Some("Bearer a-secret"), Some("Basic a-secret-of-some-length")]
        {
            assert!(!access.admits(header), "{header:?}");
        }
        std::fs::write(&file, "short").unwrap();
        let error = Access::of(Some(&TokenPlace { file: Some(file), variable: None })).err().unwrap().to_string();
        assert!(error.contains("at least 16") && !error.contains("short"), "{error}");
    }

    #[test]
    fn an_address_that_others_can_reach_needs_a_token() {
        let faults = |listen: &str, token: Option<TokenPlace>, anybody| {
            check_access(listen.parse().unwrap(), token.as_ref(), anybody).len()
        };
        let token = || Some(TokenPlace { file: Some("t".into()), variable: None });
        assert_eq!(faults("127.0.0.1:80", None, false), 0);
        assert_eq!(faults("[::1]:80", None, false), 0);
        assert_eq!(faults("0.0.0.0:80", None, false), 1);
        assert_eq!([faults("0.0.0.0:80", token(), false), faults("0.0.0.0:80", None, true)], [0, 0]);
        assert_eq!(faults("0.0.0.0:80", token(), true), 1);
        assert_eq!(faults("127.0.0.1:80", Some(TokenPlace::default()), false), 1);
    }

    #[test]
    fn a_burst_is_let_through_up_to_the_rate() {
        let rate = Rate::new(NonZeroU32::new(5).unwrap());
        let begun = Instant::now();
        let passed = |at: u64| (0..20).filter(|_| rate.passes_at(begun + Duration::from_millis(at))).count();
        assert_eq!([passed(0), passed(400), passed(10_000)], [5, 2, 5]);
    }
}
