//! The clients of buckets, which are created once and configured by environment variables.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, RetryConfig};

use super::SCHEME;
use super::blocking::block_on;
use super::error::redact;
use super::http::StoreHttpConnector;

/// Default of `AWS_MAX_ATTEMPTS`: the maximum number of attempts of a request.
const ATTEMPTS: usize = 11;
/// Maximum time between the first and the last attempt of a request. Stores accept a signature for
/// 15 minutes.
const RETRYING: Duration = Duration::from_secs(10 * 60);

/// The client of a bucket. All callers share one client and its open connections.
///
/// # Errors
/// A message, if an environment variable has an invalid value.
pub(super) fn client(bucket: &str) -> Result<Arc<AmazonS3>, String> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<AmazonS3>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(bucket) {
        return Ok(Arc::clone(store));
    }
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(StoreHttpConnector);
    check_endpoint(&builder)?;
    let builder = builder.with_retry(retries()?);
    // The client is built on the runtime, whose start installs the TLS provider.
    let built = block_on(async move { builder.build() }).map_err(|error| error.to_string())?;
    let store = Arc::new(built.map_err(|error| redact(&error.to_string()))?);
    stores.insert(bucket.to_owned(), Arc::clone(&store));
    Ok(store)
}

/// Refuses an invalid endpoint, so that the message names the variable to set.
fn check_endpoint(builder: &AmazonS3Builder) -> Result<(), String> {
    let known = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let Some(endpoint) = known.iter().find_map(|key| builder.get_config_value(key)) else {
        return Ok(());
    };
    let allows = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    let allows = allows.is_some_and(|allows| {
        ["1", "true", "on", "yes", "y"].contains(&allows.to_ascii_lowercase().as_str())
    });
    let shown = redact(&endpoint);
    match endpoint.split_once(SCHEME) {
        Some((scheme, host)) if scheme.eq_ignore_ascii_case("https") && !host.is_empty() => Ok(()),
        Some((scheme, host)) if scheme.eq_ignore_ascii_case("http") && !host.is_empty() => {
            match allows {
                true => Ok(()),
                false => Err(format!(
                    "the endpoint `{shown}` is not an https:// address: set AWS_ALLOW_HTTP=true \
                     to send data without encryption"
                )),
            }
        }
        _ => Err(format!(
            "the endpoint `{shown}` is not an address; expected AWS_ENDPOINT_URL=https://host:port"
        )),
    }
}

/// The maximum number of attempts of a request and the time during which it is repeated.
fn retries() -> Result<RetryConfig, String> {
    let written = std::env::var("AWS_MAX_ATTEMPTS").unwrap_or_else(|_| ATTEMPTS.to_string());
    let attempts: NonZeroUsize = written.trim().parse().map_err(|_| {
        format!(
            "AWS_MAX_ATTEMPTS is `{written}`; expected the maximum number of attempts of a \
             request, such as {ATTEMPTS}"
        )
    })?;
    Ok(RetryConfig {
        max_retries: attempts.get() - 1,
        retry_timeout: RETRYING,
        ..RetryConfig::default()
    })
}
