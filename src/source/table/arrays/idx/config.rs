//! The options of the source `idx`, and the file of its labels.

use std::sync::Arc;

use arrow::datatypes::Schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::LABEL;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::share::SourceShare;
use crate::source::table::arrays::JoinedArrays;
use crate::source::table::arrays::header::ArrayHeader;
use crate::source::table::arrays::idx::{FEATURES, IdxFormat, OpenIdxFile, open};
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{FileFormat, FileSource};
use crate::source::table::schema_inference::first;
use crate::source::{Source, SourceConfig};

/// Reads records from IDX files, the format of MNIST and similar datasets. Files compressed with
/// gzip are recognized by their content. Records of bytes in two dimensions, or in three with
/// one or three channels, are images and become the column `image`; all others become the column
/// `features`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct IdxSourceConfig {
    /// A file, a folder (all *.idx files in it and in its subfolders) or a glob such as
    /// `*-images-idx3-ubyte.gz`.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// A file with one label per record, which becomes the column `label`. Requires that `path`
    /// matches a single file.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub labels: Option<String>,
    /// How to treat a file that has changed since an earlier run read it: `new` reads it as a new
    /// file and warns that the rows of its earlier version stay in the output; `refuse` ends
    /// `check` and `run` with an error that names the file. A file of at most 32 MiB with the same
    /// content counts as unchanged, regardless of its modification time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

impl SourceConfig for IdxSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = &["idx", "-ubyte"];

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let at =
            |key: &'static str| move |error: StageError| vec![ConfigError::from_error(key, &error)];
        let files =
            input_file::list(name, &self.path, IdxFormat::EXTENSIONS).map_err(at("path"))?;
        let header = first_header(&files).map_err(at("path"))?;
        let mut fields = vec![header.field(FEATURES)];
        let mut headers = vec![header.clone()];
        if let Some(labels) = &self.labels {
            if files.len() > 1 {
                let message = format!(
                    "`path` matches {} files; `labels` requires a single file",
                    files.len()
                );
                return Err(vec![ConfigError::new("labels", message)]);
            }
            let file = labels_file(name, labels).map_err(at("labels"))?;
            let label_header = first_header(std::slice::from_ref(&file)).map_err(at("labels"))?;
            check_labels(&file, &label_header, &header)
                .map_err(|what| vec![ConfigError::new("labels", what)])?;
            fields.push(label_header.field(LABEL));
            headers.push(label_header);
        }
        let joined = JoinedArrays::new(&headers.iter().collect::<Vec<_>>(), batch, &context.limits);
        joined.map_err(|what| vec![ConfigError::new("path", what)])?;
        let schema = Arc::new(Schema::new(fields));
        let (stage, limits) = (name.to_owned(), context.limits);
        let format = IdxFormat {
            stage,
            labels: self.labels.clone(),
            schema: schema.clone(),
            batch,
            limits,
        };
        Ok(Box::new(FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::new(self.on_change, SourceShare::new(context.shard)),
        )))
    }
}

/// Reads the header of the first file that has a valid header.
fn first_header(files: &[InputFile]) -> Result<ArrayHeader, StageError> {
    first(files, |file, input| {
        open(file, input).map(|(header, _)| Some(header))
    })
}

/// Opens a file of labels and reads its header.
pub(super) fn open_labels(
    stage: &str,
    path: &str,
) -> Result<(InputFile, ArrayHeader, OpenIdxFile), ReadEnd> {
    let file = labels_file(stage, path)?;
    let input = file.reopen().map_err(file.stopped())?;
    let (header, opened) = open(&file, input)?;
    Ok((file, header, opened))
}

/// Checks that `labels`, the header of `file`, matches the header `records`.
///
/// # Errors
/// A sentence that states the difference.
pub(super) fn check_labels(
    file: &InputFile,
    labels: &ArrayHeader,
    records: &ArrayHeader,
) -> Result<(), String> {
    let problem = match (labels.is_single(), labels.rows == records.rows) {
        (true, true) => return Ok(()),
        (false, _) => "holds more than one value per record".to_owned(),
        (true, false) => format!(
            "the number of labels is {}, but the number of records is {}",
            labels.rows, records.rows
        ),
    };
    Err(format!("{}: {problem}", file.name))
}

pub(super) fn labels_file(stage: &str, path: &str) -> Result<InputFile, StageError> {
    let mut files = input_file::list(stage, path, IdxFormat::EXTENSIONS)?;
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (_, more) => Err(StageError::new(
            ErrorCode::InputInvalid,
            format!("`{path}` matches {} files; expected one", more + 1),
        )),
    }
}
