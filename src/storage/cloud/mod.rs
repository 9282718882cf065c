//! The clients of buckets, which are created once and configured by environment variables.

#[cfg(feature = "azure")]
mod azure;
mod client;
mod error;
#[cfg(feature = "gcs")]
mod gcs;
mod http;
mod listed_keys;
mod runtime;
#[cfg(feature = "s3")]
mod s3;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use object_store::RetryConfig;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{Error, ObjectStore};
use parking_lot::Mutex;

use super::SCHEME;
use super::location_error::LocationError;
use super::object::StoreScheme;
use super::object_client::{ObjectClient, UploadFence, wait};
use client::StoreClient;

#[cfg(fuzzing)]
pub(crate) use listed_keys::separate as separate_listed_keys;

/// Default of `AWS_MAX_ATTEMPTS` and its equivalents: the maximum number of attempts of a request.
const ATTEMPTS: usize = 11;
/// Maximum time between the first and the last attempt of a request. Stores accept a signature for
/// 15 minutes.
const RETRYING: Duration = Duration::from_secs(10 * 60);

/// The traits of the library that a client needs.
trait CloudStore: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> CloudStore for T {}

/// A kind of store and its environment variables.
#[derive(Debug)]
struct Provider {
    /// Name of the store in errors.
    name: &'static str,
    /// Environment variables whose values are redacted.
    secrets: &'static [&'static str],
    /// The credentials to set if the environment has none.
    credentials: &'static str,
    /// What the store offers to exclude the upload of an earlier run.
    upload_fence: UploadFence,
    /// Creates the client of a bucket.
    build: fn(bucket: &str) -> Result<Arc<dyn CloudStore>, ClientError>,
}

/// An error of the configuration of a client.
enum ClientError {
    /// A message that names the variable to set.
    Setting(String),
    /// An error of the library.
    Library(Error),
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// The provider of a scheme; `None` in a build without it.
fn provider(scheme: StoreScheme) -> Option<&'static Provider> {
    match scheme {
        #[cfg(feature = "s3")]
        StoreScheme::S3 => Some(&s3::PROVIDER),
        #[cfg(feature = "gcs")]
        StoreScheme::Gs => Some(&gcs::PROVIDER),
        #[cfg(feature = "azure")]
        StoreScheme::Az => Some(&azure::PROVIDER),
        #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
        _ => None,
    }
}

/// The clients by scheme and bucket.
type Clients = HashMap<(StoreScheme, String), Arc<StoreClient>>;

/// The client of a bucket. All callers share one client and its open connections.
///
/// # Errors
/// If this build has no client for the scheme, or if an environment variable has an invalid value.
pub(super) fn client_of(
    scheme: StoreScheme,
    bucket: &str,
) -> Result<Arc<dyn ObjectClient>, LocationError> {
    static CLIENTS: LazyLock<Mutex<Clients>> = LazyLock::new(Mutex::default);
    let provider = provider(scheme).ok_or_else(|| scheme.disabled())?;
    let mut clients = CLIENTS.lock();
    let entry = (scheme, bucket.to_owned());
    if let Some(client) = clients.get(&entry) {
        return Ok(Arc::<StoreClient>::clone(client));
    }
    let invalid = |reason: String| LocationError::Client {
        bucket: format!("{}{SCHEME}{bucket}", scheme.name()),
        reason,
    };
    // The client is built on the runtime, whose start installs the TLS provider.
    let (build, name) = (provider.build, bucket.to_owned());
    let built = wait(runtime::spawn(async move { Ok(build(&name)) }));
    let store = match built.map_err(|error| invalid(error.to_string()))? {
        Ok(store) => store,
        Err(ClientError::Setting(reason)) => return Err(invalid(reason)),
        Err(ClientError::Library(error)) => {
            return Err(invalid(error::redact(provider, &error.to_string())));
        }
    };
    let client = Arc::new(StoreClient::new(store, provider));
    clients.insert(entry, Arc::clone(&client));
    Ok(client)
}

/// An endpoint that the environment configures, and the variables that hold it.
struct Endpoint {
    url: Option<String>,
    variable: &'static str,
    allow_http: Option<String>,
    allow_http_variable: &'static str,
}

impl Endpoint {
    /// Refuses an invalid endpoint, so that the message names the variable to set.
    fn check(&self) -> Result<(), ClientError> {
        let Some(endpoint) = &self.url else {
            return Ok(());
        };
        let allows = self.allow_http.as_ref().is_some_and(|allows| {
            ["1", "true", "on", "yes", "y"].contains(&allows.to_ascii_lowercase().as_str())
        });
        let shown = error::without_user(endpoint);
        match endpoint.split_once(SCHEME) {
            Some((scheme, host)) if scheme.eq_ignore_ascii_case("https") && !host.is_empty() => {
                Ok(())
            }
            Some((scheme, host)) if scheme.eq_ignore_ascii_case("http") && !host.is_empty() => {
                if allows {
                    return Ok(());
                }
                Err(ClientError::Setting(format!(
                    "the endpoint `{shown}` is not an https:// address: set {}=true to send data \
                     without encryption",
                    self.allow_http_variable
                )))
            }
            _ => Err(ClientError::Setting(format!(
                "the endpoint `{shown}` is not an address; expected {}=https://host:port",
                self.variable
            ))),
        }
    }
}

/// The maximum number of attempts of a request and the time during which it is repeated.
fn retries(prefix: &str) -> Result<RetryConfig, ClientError> {
    let variable = format!("{prefix}_MAX_ATTEMPTS");
    let written = std::env::var(&variable).unwrap_or_else(|_| ATTEMPTS.to_string());
    let attempts: NonZeroUsize = written.trim().parse().map_err(|_| {
        ClientError::Setting(format!(
            "{variable} is `{written}`; expected the maximum number of attempts of a request, such \
             as {ATTEMPTS}"
        ))
    })?;
    Ok(RetryConfig {
        max_retries: attempts.get() - 1,
        retry_timeout: RETRYING,
        ..RetryConfig::default()
    })
}
