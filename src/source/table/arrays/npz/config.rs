//! The options of the source `npz`, and the arrays of its files.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::file_checkpoints::OnChange;
use crate::source::discovery::input_file::{self, InputFile};
use crate::source::discovery::share::SourceShare;
use crate::source::table::arrays::JoinedArrays;
use crate::source::table::arrays::header::ArrayHeader;
use crate::source::table::arrays::npz::NpzFormat;
use crate::source::table::arrays::npz::container::ArrayContainer;
use crate::source::table::arrays::npz::found_array::FoundArray;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::source::ReadPolicy;
use crate::source::table::file_source::{FileFormat, FileSource, check_names};
use crate::source::table::schema_inference::{InferredColumns, first, unified};
use crate::source::{Source, SourceConfig};
use crate::storage::FileReader;

/// Reads arrays of NumPy archives (.npz) and files (.npy). Each index of their first dimension is a
/// record. An array of one dimension becomes a column of numbers, an array of two dimensions a
/// column of lists, and an array of more dimensions a column of tensors of its shape. Values of
/// 16-bit floats become 32-bit floats. Records of bytes in two dimensions, or in three with one or three channels, are
/// images and become the column `image`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct NpzSourceConfig {
    /// A file, a folder (all *.npz and *.npy files in it and in its subfolders) or a glob.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    pub path: String,
    /// The arrays to read, by their names in the archive, such as `["X", "y"]`; all must have the
    /// same number of records. The array of a .npy file has the name `array`. Default: all.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub arrays: Option<Vec<String>>,
    /// How to treat a file that has changed since an earlier run read it: `new` reads it as a new
    /// file and warns that the rows of its earlier version stay in the output; `refuse` ends
    /// `check` and `run` with an error that names the file. A file of at most 32 MiB with the same
    /// content counts as unchanged, regardless of its modification time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    pub on_change: OnChange,
}

impl SourceConfig for NpzSourceConfig {
    const FILE_ENDINGS: &'static [&'static str] = NpzFormat::EXTENSIONS;

    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let path = |what: String| vec![ConfigError::new("path", what)];
        let files = input_file::list(name, &self.path, NpzFormat::EXTENSIONS)
            .map_err(|error| vec![ConfigError::from_error("path", &error)])?;
        if let Some(arrays) = &self.arrays {
            check_names(arrays.iter()).map_err(|what| {
                vec![ConfigError::new("arrays", what.replace("column", "array"))]
            })?;
        }
        let first = first_arrays(&files, self.arrays.as_deref())?;
        let headers: Vec<&ArrayHeader> = first.iter().map(|array| &array.header).collect();
        JoinedArrays::new(&headers, batch, &context.limits).map_err(path)?;
        let arrays: Vec<String> = first.iter().map(|array| array.name.clone()).collect();
        let InferredColumns { fields, notes } = unified_columns(&files, &arrays)
            .map_err(|error| vec![ConfigError::from_error("path", &error)])?;
        let schema = Arc::new(Schema::new(fields));
        if headers.iter().filter(|header| header.is_image()).count() > 1 {
            let message =
                "several arrays hold images, but a record has one image; list the arrays to read";
            return Err(vec![ConfigError::new("arrays", message)]);
        }
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        check_names(names.into_iter()).map_err(path)?;
        let max_buffer_bytes = context.limits.buffer_bytes();
        self.arrays = Some(arrays.clone());
        let limits = context.limits;
        let mut format = NpzFormat {
            arrays,
            schema: schema.clone(),
            batch,
            limits,
            max_buffer_bytes,
            buffer_bytes: 0,
        };
        format.buffer_bytes = format.largest_buffer(&files).map_err(path)?;
        let source = FileSource::new(
            name,
            &self.path,
            &schema,
            format,
            ReadPolicy::new(self.on_change, SourceShare::new(context.shard)),
        );
        Ok(Box::new(source.with_notes(notes)))
    }
}

/// Unifies the columns of these arrays over all files.
fn unified_columns(files: &[InputFile], arrays: &[String]) -> Result<InferredColumns, StageError> {
    unified(files, |file, input| {
        let handle = input.try_clone().map_err(file.stopped())?;
        let found = catch_panic(|| {
            let container = ArrayContainer::open(input)?;
            container.find(Some(arrays))?.map_err(|fault| fault.message)
        });
        file.check_available(&handle)?;
        let found = found.map_err(|(code, what)| file.unfit(code, &what, 1))?;
        let fields: Vec<Field> = found.iter().map(FoundArray::field).collect();
        Ok(Some(Schema::new(fields)))
    })
}

/// Finds the requested arrays in the first file that has them.
fn first_arrays(
    files: &[InputFile],
    requested: Option<&[String]>,
) -> Result<Vec<FoundArray>, Vec<ConfigError>> {
    // The error of the first file that lacks a requested array.
    let mismatch = RefCell::new(None);
    let look = |file: &InputFile, input: FileReader| {
        let handle = input.try_clone().map_err(file.stopped())?;
        let found = catch_panic(|| {
            ArrayContainer::open(input).and_then(|container| container.find(requested))
        });
        file.check_available(&handle)?;
        let found = found.map_err(|(code, what)| file.unfit(code, &what, 1))?;
        found.and_then(of_equal_length).map(Some).map_err(|fault| {
            let unfit = file.unfit(RejectCode::Mismatch, &fault.message, 1);
            mismatch.borrow_mut().get_or_insert(fault);
            unfit
        })
    };
    first(files, look).map_err(|error| {
        vec![
            mismatch
                .take()
                .unwrap_or_else(|| ConfigError::from_error("path", &error)),
        ]
    })
}

/// Checks that all arrays have the same number of records.
fn of_equal_length(found: Vec<FoundArray>) -> Result<Vec<FoundArray>, ConfigError> {
    let unequal = found
        .iter()
        .zip(found.iter().skip(1))
        .find(|(one, other)| one.header.rows != other.header.rows);
    let Some((one, other)) = unequal else {
        return Ok(found);
    };
    let message = format!(
        "`{}` has {} records, but `{}` has {}; list arrays with the same number of records",
        one.name, one.header.rows, other.name, other.header.rows
    );
    Err(ConfigError::new("arrays", message))
}
