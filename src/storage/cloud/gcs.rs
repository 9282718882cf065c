//! Google Cloud Storage: `gs://bucket/key`.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::http::StoreHttpConnector;
use super::{ClientError, CloudStore, Endpoint, Provider, retries};
use crate::storage::object_client::UploadFence;

const PREFIX: &str = "GOOGLE";

pub(super) const PROVIDER: Provider = Provider {
    name: "GCS",
    secrets: &["GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"],
    credentials: "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
    upload_fence: UploadFence::Identifier,
    build,
};

fn build(bucket: &str) -> Result<Arc<dyn CloudStore>, ClientError> {
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(StoreHttpConnector { prefix: PREFIX });
    Endpoint {
        url: builder.get_config_value(&GoogleConfigKey::BaseUrl),
        variable: "GOOGLE_BASE_URL",
        allow_http: builder.get_config_value(&GoogleConfigKey::Client(ClientConfigKey::AllowHttp)),
        allow_http_variable: "GOOGLE_ALLOW_HTTP",
    }
    .check()?;
    Ok(Arc::new(builder.with_retry(retries(PREFIX)?).build()?))
}
