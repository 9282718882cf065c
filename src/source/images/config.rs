//! The options of the source `images`.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::LABEL;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_set::FileSet;
use crate::source::discovery::share::SourceShare;
use crate::source::images::ImagesSource;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::{Source, SourceConfig};
use crate::units::HumanDuration;

/// Extensions of image files, in lower case.
pub(crate) const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "png", "apng", "webp", "bmp",
    "dib", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm",
];

/// Default of `batch.delay` for watched files: how long files that arrive wait for more.
const DELAY: Duration = Duration::from_millis(200);

/// Default of `retry_timeout`.
const RETRY_TIMEOUT: Duration = Duration::from_hours(1);

/// The smallest valid `rescan`.
const MIN_RESCAN: Duration = Duration::from_millis(100);

/// Reads the encoded image files of a folder or a glob.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ImagesSourceConfig {
    /// A folder (all image files in it and its subfolders), a glob such as `photos/**/*.jpg`
    /// (exactly the files that match), or a single file. A path that exists is never treated as a
    /// glob, even if it contains wildcards. In a folder, hidden files and folders (`.x`) are
    /// skipped, and folders whose names begin with an underscore (`_temporary`); photographs such
    /// as `_DSC0001.JPG` are read. The folder `_latentflow` is never read. `check` and the summary
    /// count the skipped files.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub(super) path: String,
    /// Follow symbolic links. Default: false; links are skipped.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    follow_links: bool,
    /// Add the column `label` with the name of the folder that contains the file, for collections
    /// with one folder per class. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    folder_labels: bool,
    /// Continue after all files are read, and read new files once they are completely written or
    /// moved in. The run then ends only when it is stopped. Default: false.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) watch: bool,
    /// Interval between full listings of a watched folder, which find files that the system did not
    /// report; on network file systems it reports none. At least 100ms. Default: 10m; 1m for
    /// buckets, which are only listed.
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) rescan: Option<HumanDuration>,
    /// How long reading a file of a watched folder is retried if it fails for a reason outside of
    /// the file: permissions, a disk, a file server. The first retry follows after 1 second, and
    /// the interval doubles up to 1 minute. After `retry_timeout`, the file is rejected; the reject
    /// refers to the file, so that the source `rejects` can read it later. Default: 1h.
    #[schemars(extend("x-changes-rows" = false))]
    pub(super) retry_timeout: Option<HumanDuration>,
}

impl SourceConfig for ImagesSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = EXTENSIONS;

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let files = FileSet::new(self.path.clone(), self.follow_links, EXTENSIONS)
            .map_err(|fault| vec![fault])?;
        let files = files.with_underscore_files();
        let batch_config =
            ImageBatchConfig::new(batch, context.limits, self.folder_labels.then_some(LABEL));
        let rescan = match (self.watch, self.rescan) {
            (false, Some(_)) => {
                return Err(vec![ConfigError::new("rescan", "requires `watch = true`")]);
            }
            (false, None) => None,
            (true, Some(span)) if span.0 < MIN_RESCAN => {
                return Err(vec![ConfigError::new(
                    "rescan",
                    format!("{span} is too short; expected 100ms or more"),
                )]);
            }
            (true, span) => Some(span.map_or_else(|| files.default_rescan(), |span| span.0)),
        };
        if let (false, Some(_)) = (self.watch, self.retry_timeout) {
            return Err(vec![ConfigError::new(
                "retry_timeout",
                "requires `watch = true`",
            )]);
        }
        // A watch reads the files of its shard only. Otherwise the journal holds the files of all
        // shards.
        let files = files.of_shard(context.shard.filter(|_| self.watch));
        let delay = batch.delay.map_or(DELAY, |delay| delay.0);
        let retry_timeout = self.retry_timeout.map_or(RETRY_TIMEOUT, |span| span.0);
        let metrics = Arc::clone(&context.metrics);
        Ok(Box::new(ImagesSource {
            name: name.to_owned(),
            files,
            share: SourceShare::new(context.shard),
            batch_config,
            rescan,
            delay,
            retry_timeout,
            metrics,
        }))
    }
}
