//! AWS S3 and compatible stores: `s3://bucket/key`.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::http::StoreHttpConnector;
use super::{ClientError, CloudStore, Endpoint, Provider, retries};
use crate::storage::object_client::UploadFence;

const PREFIX: &str = "AWS";

pub(super) const PROVIDER: Provider = Provider {
    name: "S3",
    secrets: &[
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_TOKEN",
    ],
    credentials: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    upload_fence: UploadFence::Identifier,
    build,
};

fn build(bucket: &str) -> Result<Arc<dyn CloudStore>, ClientError> {
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(StoreHttpConnector { prefix: PREFIX });
    let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    Endpoint {
        url: endpoints
            .iter()
            .find_map(|key| builder.get_config_value(key)),
        variable: "AWS_ENDPOINT_URL",
        allow_http: builder
            .get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)),
        allow_http_variable: "AWS_ALLOW_HTTP",
    }
    .check()?;
    Ok(Arc::new(builder.with_retry(retries(PREFIX)?).build()?))
}
