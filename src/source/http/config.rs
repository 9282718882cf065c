//! The options of the source `http`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::{ConfigError, RecordFaults};
use crate::plan_context::PlanContext;
use crate::server::{self, TlsConfig, TokenSource};
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::http::HttpSource;
use crate::source::http::body::column_type::RequestColumnType;
use crate::source::http::body::columns::RequestColumns;
use crate::source::http::limits::HttpLimits;
use crate::source::http::wal::reader::BatchShape;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::{Source, SourceConfig};
use crate::units::HumanDuration;

/// Default of the time that records wait for more records of a batch.
const DELAY: Duration = Duration::from_millis(20);

/// Default of the time for which an idempotency key is stored.
pub(super) const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of requests that wait to be written to the journal.
pub(super) const WAITING: usize = 256;

/// The kind of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum HttpRecordKind {
    /// Encoded images: the column `image`.
    Images,
    /// Rows of `columns`.
    Features,
}

/// Options of the source `http`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub(crate) struct HttpSourceConfig {
    /// The address to listen on, such as "127.0.0.1:8080".
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) listen: SocketAddr,
    /// The kind of the records: "images" or "features".
    #[schemars(extend("x-changes-rows" = true))]
    records: HttpRecordKind,
    /// For features: the columns of the records and their types.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) columns: BTreeMap<String, RequestColumnType>,
    /// The location of the token that clients send as `Authorization: Bearer TOKEN`: { file = "..."
    /// } or { variable = "..." }.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) token: Option<TokenSource>,
    /// Accept requests from all clients on an address that other machines can reach. Default:
    /// false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    anybody: bool,
    /// Without a token: host names that clients may use, in addition to IP addresses and localhost.
    /// Other names are refused, so that a web page cannot send records through a name that resolves
    /// to this address.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) hosts: Vec<String>,
    /// Use TLS: { certificate = "cert.pem", key = "key.pem" }.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) tls: Option<TlsConfig>,
    /// Limits on requests.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) limits: HttpLimits,
    /// Time for which an `Idempotency-Key` is stored: within it, a repeated request is accepted
    /// only once. At most the last 1,000,000 keys are stored. Default: 24h.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false, "x-former-name" = "window"))]
    pub(super) idempotency_window: Option<HumanDuration>,
}

impl SourceConfig for HttpSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let mut faults =
            server::check_auth(self.listen, self.token.as_ref(), ("anybody", self.anybody));
        faults.extend(server::check_hosts(&self.hosts));
        faults.extend(
            self.limits
                .bounds()
                .faults()
                .into_iter()
                .map(|fault| fault.within("limits")),
        );
        let record_bytes = context.limits.record_bytes.0;
        let columns = match self.records {
            HttpRecordKind::Images if !self.columns.is_empty() => Err(ConfigError::new(
                "columns",
                "requires records = \"features\"; images have the column `image`",
            )),
            HttpRecordKind::Images => Ok(RequestColumns::images(record_bytes)),
            HttpRecordKind::Features => RequestColumns::features(&self.columns, record_bytes),
        };
        let columns = faults.record(columns);
        let Some(columns) = columns.filter(|_| faults.is_empty()) else {
            return Err(faults);
        };
        let shape = match self.records {
            HttpRecordKind::Images => {
                BatchShape::Images(ImageBatchConfig::new(batch, context.limits, None))
            }
            HttpRecordKind::Features => {
                let cut = BatchLimits::features(batch);
                BatchShape::Features {
                    schema: columns.with_origin(),
                    cut,
                }
            }
        };
        context.listeners.plan(name);
        let (metrics, listeners) = (Arc::clone(&context.metrics), Arc::clone(&context.listeners));
        let delay = batch.delay.map_or(DELAY, |delay| delay.0);
        Ok(Box::new(HttpSource {
            name: name.to_owned(),
            config: self.clone(),
            columns,
            shape,
            delay,
            metrics,
            listeners,
        }))
    }
}
