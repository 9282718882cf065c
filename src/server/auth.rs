//! Authorization of requests: by a token, or open to all clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credential_rotation::{Credential, LoadedCredential};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;

/// Location of the token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct TokenSource {
    /// A file whose first line is the token. It is reloaded when it changes.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The name of an environment variable that holds the token.
    #[serde(default)]
    pub variable: Option<String>,
}

/// Minimum length of a token in bytes: a short token could be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// The user name that browsers send with the token as the password.
const USER: &str = "latentflow";

/// The authorization of a listener.
pub(crate) struct TokenAuth {
    source: Option<TokenSource>,
    /// Digests of the token, and of the form in which browsers send it; `None` before the token is
    /// read, or if the listener needs none.
    token: RwLock<Option<TokenDigests>>,
}

#[derive(Clone, Copy)]
struct TokenDigests {
    bearer: [u8; 32],
    basic: [u8; 32],
}

impl TokenAuth {
    /// Creates the authorization for a token source. A token in a file is loaded by
    /// [`Credential::load`].
    ///
    /// # Errors
    /// Returns an error if the variable is not set, or does not hold a token.
    pub(super) fn new(source: Option<&TokenSource>) -> Result<Self, StageError> {
        let auth = Self {
            source: source.cloned(),
            token: RwLock::new(None),
        };
        if let Some(TokenSource {
            file: None,
            variable,
        }) = source
        {
            let name = variable.as_deref().unwrap_or_default();
            let text = std::env::var(name);
            let text = text.map_err(|_| {
                StageError::new(
                    ErrorCode::CredentialsMissing,
                    format!("the environment variable {name} is not set"),
                )
            })?;
            let token = TokenDigests::parse(&text);
            let token = token.map_err(|message| {
                StageError::new(
                    ErrorCode::CredentialsMissing,
                    format!("the environment variable {name}: {message}"),
                )
            })?;
            auth.set(token);
        }
        Ok(auth)
    }

    fn set(&self, token: TokenDigests) {
        *self.token.write() = Some(token);
    }

    /// Whether a token is necessary.
    pub(crate) fn needs_token(&self) -> bool {
        self.source.is_some()
    }

    /// Whether an `Authorization` header has the form `Bearer TOKEN` with the right token. Digests
    /// are compared, which prevents a timing attack: the duration reveals nothing about the token.
    pub(crate) fn is_authorized(&self, header: Option<&str>) -> bool {
        self.compare(header, |scheme, given, token| {
            scheme.eq_ignore_ascii_case("bearer") && digest(given) == token.bearer
        })
    }

    /// Like [`TokenAuth::is_authorized`], and also accepts browsers, in which the user enters the
    /// name `latentflow` and the token as the password.
    pub(crate) fn is_browser_authorized(&self, header: Option<&str>) -> bool {
        let basic = |scheme: &str, given: &str, token: TokenDigests| {
            scheme.eq_ignore_ascii_case("basic") && digest(given) == token.basic
        };
        self.is_authorized(header) || self.compare(header, basic)
    }

    fn compare(
        &self,
        header: Option<&str>,
        equal: impl FnOnce(&str, &str, TokenDigests) -> bool,
    ) -> bool {
        if !self.needs_token() {
            return true;
        }
        let token = *self.token.read();
        let parts = header.and_then(|value| value.split_once(' ')).zip(token);
        parts.is_some_and(|((scheme, given), digests)| equal(scheme, given.trim(), digests))
    }
}

impl TokenDigests {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.lines().next().unwrap_or_default().trim();
        if text.len() < MIN_TOKEN_BYTES {
            return Err(format!(
                "expected a token of at least {MIN_TOKEN_BYTES} bytes"
            ));
        }
        let basic = BASE64_STANDARD.encode(format!("{USER}:{text}"));
        Ok(Self {
            bearer: digest(text),
            basic: digest(&basic),
        })
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Credential for TokenAuth {
    fn name(&self) -> &'static str {
        "token"
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source
            .iter()
            .filter_map(|source| source.file.clone())
            .collect()
    }

    fn secrets(&self) -> Vec<PathBuf> {
        self.files()
    }

    fn load(&self, contents: &[Vec<u8>]) -> Result<LoadedCredential, String> {
        let text = contents.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| "expected a token in UTF-8".to_owned())?;
        self.set(TokenDigests::parse(text)?);
        Ok(LoadedCredential::default())
    }
}

/// Faults in the authorization options of an address, found before any file is read. `open` holds
/// the name of the option that admits all clients, and its value.
pub(crate) fn check_auth(
    listen: SocketAddr,
    token: Option<&TokenSource>,
    open: (&str, bool),
) -> Vec<ConfigError> {
    let (option, is_open) = open;
    let mut faults = Vec::new();
    match token {
        Some(TokenSource {
            file: Some(_),
            variable: Some(_),
        }) => {
            faults.push(ConfigError::new(
                "token",
                "sets both `file` and `variable`; keep one",
            ));
        }
        Some(TokenSource {
            file: None,
            variable: None,
        }) => {
            faults.push(ConfigError::new(
                "token",
                "sets neither `file` nor `variable`; write { file = \"...\" } or { variable = \
                 \"...\" }",
            ));
        }
        Some(_) if is_open => {
            faults.push(ConfigError::new(option, "contradicts `token`; keep one"))
        }
        None if !listen.ip().is_loopback() && !is_open => {
            let text = format!(
                "{listen} can be reached from other machines; add token = {{ file = \"...\" }}, or \
                 {option} = true if the network admits only trusted clients"
            );
            faults.push(ConfigError::new("listen", text));
        }
        _ => {}
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn auth(token: &str) -> Result<TokenAuth, String> {
        let source = TokenSource {
            file: Some("token".into()),
            variable: None,
        };
        let auth = TokenAuth::new(Some(&source)).unwrap();
        auth.load(&[token.as_bytes().to_vec()]).map(|_| auth)
    }

    #[test]
    fn only_requests_with_the_token_are_authorized() {
        let auth = auth("a-secret-of-some-length\n").unwrap();
        assert!(auth.is_authorized(Some("Bearer a-secret-of-some-length")));
        let basic = format!(
            "Basic {}",
            BASE64_STANDARD.encode("latentflow:a-secret-of-some-length")
        );
        assert!(auth.is_browser_authorized(Some(&basic)) && !auth.is_authorized(Some(&basic)));
        for header in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer a-secret"),
            Some("Basic a-secret-of-some-length"),
        ] {
            assert!(!auth.is_browser_authorized(header), "{header:?}");
        }
    }

    #[test]
    fn token_before_its_file_is_read_authorizes_no_request() {
        let source = TokenSource {
            file: Some("token".into()),
            variable: None,
        };
        assert!(
            !TokenAuth::new(Some(&source))
                .unwrap()
                .is_authorized(Some("Bearer "))
        );
    }

    #[test]
    fn short_token_is_refused_without_being_shown() {
        let error = auth("short").err().unwrap();
        assert_eq!(error, "expected a token of at least 16 bytes");
    }

    #[test]
    fn address_reachable_from_other_machines_needs_a_token() {
        let faults = |listen: &str, token: Option<TokenSource>, is_open| {
            let faults = check_auth(
                listen.parse().unwrap(),
                token.as_ref(),
                ("anybody", is_open),
            );
            faults
                .into_iter()
                .map(|fault| fault.key)
                .collect::<Vec<_>>()
        };
        let token = || {
            Some(TokenSource {
                file: Some("t".into()),
                variable: None,
            })
        };
        let none: [&str; 0] = [];
        assert_eq!(faults("127.0.0.1:80", None, false), none);
        assert_eq!(faults("[::1]:80", None, false), none);
        assert_eq!(faults("0.0.0.0:80", None, false), ["listen"]);
        assert_eq!(faults("0.0.0.0:80", token(), false), none);
        assert_eq!(faults("0.0.0.0:80", None, true), none);
        assert_eq!(faults("0.0.0.0:80", token(), true), ["anybody"]);
        assert_eq!(
            faults("127.0.0.1:80", Some(TokenSource::default()), false),
            ["token"]
        );
    }
}
