//! Errors of paths and URLs that name no location.

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;

/// The forms that a location has.
const EXPECTED: &str =
    "expected `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or a local path";

/// A path or URL that names no location in this build and environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The URL has a scheme that no build supports.
    #[error("unsupported scheme `{0}://`; {EXPECTED}")]
    Scheme(String),
    /// The scheme requires a feature that this build does not have.
    #[error(
        "this build does not support `{scheme}://` locations; build with `--features {feature}`, or \
         use a local path"
    )]
    Disabled {
        /// The scheme of the URL.
        scheme: &'static str,
        /// The feature that adds the scheme.
        feature: &'static str,
    },
    /// The URL holds a user, a password or an account.
    #[error(
        "the URL has a part before `@`, which is not repeated here; set users, secrets and accounts \
         in the environment; {EXPECTED}"
    )]
    Credentials,
    /// The part after the scheme is not the name of a bucket or container.
    #[error("`{0}` is not a bucket name; {EXPECTED}")]
    Bucket(String),
    /// The part after the bucket is not an object key.
    #[error("`{key}` is not an object key: {reason}; {EXPECTED}")]
    Key {
        /// The invalid part of the URL.
        key: String,
        /// The invalid part of the key.
        reason: String,
    },
    /// The client of the bucket cannot be configured.
    #[error("{bucket}: {reason}")]
    Client {
        /// The URL of the bucket.
        bucket: String,
        /// The invalid or missing setting.
        reason: String,
    },
}

impl LocationError {
    /// The fault of the option `key`, whose value is the location.
    pub(crate) fn at(&self, key: &str) -> ConfigError {
        ConfigError::new(key, self.to_string())
    }
}

impl From<LocationError> for StageError {
    fn from(error: LocationError) -> Self {
        Self::new(ErrorCode::InputInvalid, error.to_string())
    }
}
