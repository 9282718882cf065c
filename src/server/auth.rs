//! Who may ask: anybody, or who knows the token.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credential_rotation::{Credential, LoadedCredential};
use crate::error::{ConfigError, StageError};

/// Where the token is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct TokenSource {
    /// A file whose first line it is. It is read again when it changes.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The name of an environment variable.
    #[serde(default)]
    pub variable: Option<String>,
}

/// Characters that a token has at least: what can be guessed protects nothing.
const TOKEN_LENGTH: usize = 16;
/// What browsers send as the user's name, beside the token as the password.
const USER: &str = "latentflow";

/// Who may ask.
pub struct TokenAuth {
    place: Option<TokenSource>,
    /// Digests of the token, and of what browsers send for it; `None` where anybody may ask.
    token: RwLock<Option<TokenDigests>>,
}

#[derive(Clone, Copy)]
struct TokenDigests {
    bearer: [u8; 32],
    basic: [u8; 32],
}

impl TokenAuth {
    /// Who may ask by the token of a place. A token that lies in a file is taken by
    /// [`Credential::take`].
    ///
    /// # Errors
    /// When the variable is not set, or holds no token.
    pub(super) fn of(place: Option<&TokenSource>) -> Result<Self, StageError> {
        let access = Self {
            place: place.cloned(),
            token: RwLock::new(None),
        };
        if let Some(TokenSource {
            file: None,
            variable,
        }) = place
        {
            let name = variable.as_deref().unwrap_or_default();
            let text = std::env::var(name);
            let text = text.map_err(|_| {
                StageError::Other(format!("the environment variable {name} is not set"))
            })?;
            let token = TokenDigests::of(&text);
            let token = token.map_err(|message| {
                StageError::Other(format!("the environment variable {name}: {message}"))
            })?;
            access.set(token);
        }
        Ok(access)
    }

    fn set(&self, token: TokenDigests) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Whether a token is necessary.
    pub fn needs_token(&self) -> bool {
        self.place.is_some()
    }

    /// Whether the value of an `Authorization` header admits its sender: `Bearer TOKEN`. Digests
    /// are compared, so that the time that this takes says nothing about the token.
    pub fn is_authorized(&self, header: Option<&str>) -> bool {
        self.compare(header, |scheme, given, token| {
            scheme.eq_ignore_ascii_case("bearer") && digest(given) == token.bearer
        })
    }

    /// As [`TokenAuth::is_authorized`], for people with a browser as well, who enter the user
    /// `latentflow` and the token as the password.
    pub fn is_browser_authorized(&self, header: Option<&str>) -> bool {
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
        let token = *self.token.read().unwrap_or_else(PoisonError::into_inner);
        let parts = header.and_then(|value| value.split_once(' ')).zip(token);
        parts.is_some_and(|((scheme, given), token)| equal(scheme, given.trim(), token))
    }
}

impl TokenDigests {
    fn of(text: &str) -> Result<Self, String> {
        let text = text.lines().next().unwrap_or_default().trim();
        if text.len() < TOKEN_LENGTH {
            return Err(format!("a token has at least {TOKEN_LENGTH} characters"));
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
        self.place
            .iter()
            .filter_map(|place| place.file.clone())
            .collect()
    }

    fn secrets(&self) -> Vec<PathBuf> {
        self.files()
    }

    fn take(&self, contents: &[Vec<u8>]) -> Result<LoadedCredential, String> {
        let text = contents.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| "a token is text in UTF-8".to_owned())?;
        self.set(TokenDigests::of(text)?);
        Ok(LoadedCredential::default())
    }
}

/// What is wrong with who may ask at an address, before anything is read. `open` is the option that
/// admits anybody, and whether it is set.
pub fn check_auth(
    listen: SocketAddr,
    token: Option<&TokenSource>,
    open: (&str, bool),
) -> Vec<ConfigError> {
    let (option, anybody) = open;
    let mut faults = Vec::new();
    match token {
        Some(TokenSource {
            file: Some(_),
            variable: Some(_),
        }) => {
            faults.push(ConfigError::new(
                "token",
                "names both a file and a variable; keep one",
            ));
        }
        Some(TokenSource {
            file: None,
            variable: None,
        }) => {
            faults.push(ConfigError::new(
                "token",
                "names no place; write { file = \"...\" } or { variable = \"...\" }",
            ));
        }
        Some(_) if anybody => {
            faults.push(ConfigError::new(option, "contradicts `token`; keep one"))
        }
        None if !listen.ip().is_loopback() && !anybody => {
            let text = format!(
                "{listen} can be reached from other machines; add token = {{ file = \"...\" }}, or {option} = true where \
                 the network lets only the right ones in"
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

    fn access(token: &str) -> Result<TokenAuth, String> {
        let place = TokenSource {
            file: Some("token".into()),
            variable: None,
        };
        let access = TokenAuth::of(Some(&place)).unwrap();
        access.take(&[token.as_bytes().to_vec()]).map(|_| access)
    }

    #[test]
    fn only_who_knows_the_token_is_let_in() {
        let access = access("a-secret-of-some-length\n").unwrap();
        assert!(access.is_authorized(Some("Bearer a-secret-of-some-length")));
        let basic = format!(
            "Basic {}",
            BASE64_STANDARD.encode("latentflow:a-secret-of-some-length")
        );
        assert!(access.is_browser_authorized(Some(&basic)) && !access.is_authorized(Some(&basic)));
        for header in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer a-secret"),
            Some("Basic a-secret-of-some-length"),
        ] {
            assert!(!access.is_browser_authorized(header), "{header:?}");
        }
    }

    #[test]
    fn token_before_its_file_is_read_admits_nobody() {
        let place = TokenSource {
            file: Some("token".into()),
            variable: None,
        };
        assert!(
            !TokenAuth::of(Some(&place))
                .unwrap()
                .is_authorized(Some("Bearer "))
        );
    }

    #[test]
    fn token_that_is_short_is_refused_without_being_shown() {
        let error = access("short").err().unwrap();
        assert!(
            error.contains("at least 16") && !error.contains("short"),
            "{error}"
        );
    }

    #[test]
    fn an_address_that_others_can_reach_needs_a_token() {
        let faults = |listen: &str, token: Option<TokenSource>, anybody| {
            check_auth(
                listen.parse().unwrap(),
                token.as_ref(),
                ("anybody", anybody),
            )
            .len()
        };
        let token = || {
            Some(TokenSource {
                file: Some("t".into()),
                variable: None,
            })
        };
        assert_eq!(faults("127.0.0.1:80", None, false), 0);
        assert_eq!(faults("[::1]:80", None, false), 0);
        assert_eq!(faults("0.0.0.0:80", None, false), 1);
        assert_eq!(
            [
                faults("0.0.0.0:80", token(), false),
                faults("0.0.0.0:80", None, true)
            ],
            [0, 0]
        );
        assert_eq!(faults("0.0.0.0:80", token(), true), 1);
        assert_eq!(
            faults("127.0.0.1:80", Some(TokenSource::default()), false),
            1
        );
    }
}
