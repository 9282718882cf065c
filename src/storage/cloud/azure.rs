//! Azure Blob Storage: `az://container/key`.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::http::StoreHttpConnector;
use super::{ClientError, CloudStore, Endpoint, Provider, retries};
use crate::storage::object_client::UploadFence;

const PREFIX: &str = "AZURE";

pub(super) const PROVIDER: Provider = Provider {
    name: "MicrosoftAzure",
    secrets: &[
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_MASTER_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_TOKEN",
        "AZURE_FABRIC_SESSION_TOKEN",
    ],
    credentials: "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    upload_fence: UploadFence::FirstPart,
    build,
};

fn build(container: &str) -> Result<Arc<dyn CloudStore>, ClientError> {
    let builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_http_connector(StoreHttpConnector { prefix: PREFIX });
    let has_account = builder
        .get_config_value(&AzureConfigKey::AccountName)
        .is_some();
    if !has_account {
        return Err(ClientError::Setting(
            "the storage account is unknown; set AZURE_STORAGE_ACCOUNT_NAME".to_owned(),
        ));
    }
    Endpoint {
        url: builder.get_config_value(&AzureConfigKey::Endpoint),
        variable: "AZURE_STORAGE_ENDPOINT",
        allow_http: builder.get_config_value(&AzureConfigKey::Client(ClientConfigKey::AllowHttp)),
        allow_http_variable: "AZURE_ALLOW_HTTP",
    }
    .check()?;
    Ok(Arc::new(builder.with_retry(retries(PREFIX)?).build()?))
}
