//! The `npz` source reads arrays of NumPy archives (.npz) and files (.npy), one record per index of
//! their first dimension.

use std::cell::RefCell;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use flate2::bufread::DeflateDecoder;
use rawzip::{
    CompressionMethod, RECOMMENDED_BUFFER_SIZE, RangeReader, ReaderAt, ZipArchive,
    ZipArchiveEntryWayfinder, ZipLocator,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::RejectCode;
use crate::error::{ConfigError, StageError};
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::did_you_mean;
use crate::schema_unification::accepts;
use crate::source::arrays::{ArrayHeader, ArrayReader, JoinedArrays, RejectReason, read_together};
use crate::source::file_checkpoints::OnChange;
use crate::source::file_source::{
    BatchOutput, FileFormat, FileSource, ReadEnd, ReadPolicy, absent_column, catch_panic,
    check_names, different_column, shorten,
};
use crate::source::input_file::{self, InputFile};
use crate::source::npy_header;
use crate::source::schema_inference::{InferredColumns, first, unified};
use crate::source::{BatchSize, Source, SourceConfig, SourceShare};
use crate::storage::FileReader;

/// Reads arrays of NumPy archives (.npz) and files (.npy). Each index of their first dimension is a
/// record. An array of one dimension becomes a column of numbers, an array of two dimensions a
/// column of lists, and an array of more dimensions a column of tensors of its shape. Values of
/// 16-bit floats become 32-bit floats. Records of bytes in two dimensions, or in three with one or three channels, are
/// images and become the column `image`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct NpzSourceConfig {
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

/// The name of the array of a .npy file.
const ONLY: &str = "array";

/// Maximum number of members of an archive.
const MAX_MEMBERS: usize = 10_000;
/// Maximum length of the name of an array in bytes; members with longer names are ignored.
const MAX_NAME: usize = 255;

impl SourceConfig for NpzSourceConfig {
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

/// The format of planned NumPy files.
struct NpzFormat {
    arrays: Vec<String>,
    schema: SchemaRef,
    batch: BatchSize,
    limits: PipelineLimits,
    /// Maximum memory in bytes for arrays whose records are scattered.
    max_buffer_bytes: u64,
    /// The memory in bytes for these arrays of the largest file.
    buffer_bytes: u64,
}

impl FileFormat for NpzFormat {
    const EXTENSIONS: &'static [&'static str] = &["npz", "npy"];

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let handle = input.try_clone().map_err(file.stopped())?;
        let check = || file.check_available(&handle);
        let opened = catch_panic(|| {
            let container = ArrayContainer::open(input)?;
            let found = container
                .find(Some(&self.arrays))?
                .map_err(|fault| fault.message)?;
            Ok::<_, String>((container, found))
        });
        let (container, found) = match opened {
            Ok(opened) => opened,
            Err((code, what)) => {
                check()?;
                return output.reject_rest(0, code, &what);
            }
        };
        let rows = found
            .iter()
            .map(|array| array.header.rows)
            .max()
            .unwrap_or(0);
        for (planned, array) in self.schema.fields().iter().zip(&found) {
            let field = array.field();
            let compared = if planned.name() == field.name() {
                accepts(planned, &field).map_err(|conflict| different_column(&conflict))
            } else {
                Err(absent_column(planned))
            };
            compared.map_err(|what| file.unfit(RejectCode::Mismatch, &what, rows.max(1)))?;
        }
        let refuse = |code, what| output.reject_rows(0..rows.max(1), code, what);
        if let Some(other) = found.iter().find(|array| array.header.rows != rows) {
            let what = format!(
                "`{}` has {} records, but another array has {rows}",
                other.name, other.header.rows
            );
            return refuse(RejectCode::Mismatch, what);
        }
        let headers: Vec<&ArrayHeader> = found.iter().map(|array| &array.header).collect();
        let joined = match JoinedArrays::new(&headers, self.batch, &self.limits) {
            Ok(joined) => joined,
            Err(what) => return refuse(RejectCode::TooLarge, what),
        };
        let bytes = buffer_bytes(&found);
        if bytes > self.buffer_bytes.max(self.max_buffer_bytes) {
            return refuse(
                RejectCode::TooLarge,
                too_large(bytes, self.max_buffer_bytes),
            );
        }
        let arrays = catch_panic(|| Ok::<_, String>(container.readers(&found)));
        match arrays.flatten() {
            Ok(arrays) => read_together(arrays, &joined, &check, output),
            Err((code, what)) => {
                check()?;
                refuse(code, what)
            }
        }
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    fn count_rows(&self, file: &InputFile) -> Option<u64> {
        let found = self.find(file)?;
        Some(found.map_or(1, |found| {
            found
                .iter()
                .map(|array| array.header.rows)
                .max()
                .unwrap_or(0)
        }))
    }
}

impl NpzFormat {
    /// Finds the arrays of a file; `None` after an error of the environment.
    fn find(&self, file: &InputFile) -> Option<Result<Vec<FoundArray>, String>> {
        let input = file.reopen().ok()?;
        let handle = input.try_clone().ok()?;
        let found = catch_panic(|| {
            ArrayContainer::open(input).and_then(|container| container.find(Some(&self.arrays)))
        });
        file.check_available(&handle).ok()?;
        Some(
            found
                .map_err(|(_, what)| what)
                .and_then(|found| found.map_err(|fault| fault.message)),
        )
    }

    /// The memory in bytes for the file that needs the most. Files that cannot be read are skipped
    /// here; their errors are reported when they are read.
    fn largest_buffer(&self, files: &[InputFile]) -> Result<u64, String> {
        let sizes = files
            .iter()
            .filter_map(|file| Some(buffer_bytes(&self.find(file)?.ok()?)));
        let (fitting, excessive): (Vec<u64>, Vec<u64>) =
            sizes.partition(|&bytes| bytes <= self.max_buffer_bytes);
        match (fitting.into_iter().max(), excessive.first()) {
            (None, Some(&bytes)) => Err(too_large(bytes, self.max_buffer_bytes)),
            (bytes, _) => Ok(bytes.unwrap_or(0)),
        }
    }
}

/// The memory in bytes for the arrays whose records are scattered.
fn buffer_bytes(found: &[FoundArray]) -> u64 {
    found.iter().fold(0, |total: u64, array| {
        total.saturating_add(array.header.buffer_bytes())
    })
}

fn too_large(bytes: u64, maximum: u64) -> String {
    format!(
        "arrays of {bytes} bytes are in column-major order (fortran_order) and must be read into \
         memory completely; the maximum is {maximum} bytes (limits.memory); save them with \
         numpy.ascontiguousarray"
    )
}

/// An array in a file.
#[derive(Debug, Clone)]
struct FoundArray {
    name: String,
    header: ArrayHeader,
    /// Its member, if the file is an archive.
    member: Option<ArchiveMember>,
}

impl FoundArray {
    fn field(&self) -> Field {
        self.header.field(&self.name)
    }
}

#[derive(Debug, Clone, Copy)]
struct ArchiveMember {
    at: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
    is_encrypted: bool,
}

/// A .npy file of one array, or a .npz archive of several.
enum ArrayContainer {
    Npy(SharedInput),
    Npz(ZipArchive<SharedInput>),
}

impl ArrayContainer {
    fn open(input: FileReader) -> Result<Self, String> {
        let length = input.length().map_err(|error| error.to_string())?;
        let file = SharedInput {
            input: RefCell::new(input),
            length,
        };
        let mut start = [0; npy_header::MAGIC.len()];
        let is_npy = file.read_exact_at(&mut start, 0).is_ok() && start == npy_header::MAGIC;
        if is_npy {
            return Ok(Self::Npy(file));
        }
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let located = ZipLocator::new().locate_in_reader(file, &mut buffer, length);
        located
            .map(Self::Npz)
            .map_err(|(_, error)| format!("is neither a .npy file nor a .npz archive: {error}"))
    }

    /// Finds the requested arrays, or all; the inner error names an array that does not exist.
    fn find(
        &self,
        requested: Option<&[String]>,
    ) -> Result<Result<Vec<FoundArray>, ConfigError>, String> {
        let members = self.members()?;
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let mut chosen = Vec::new();
        for name in requested.unwrap_or_default() {
            match members.iter().find(|(found, _)| found == name) {
                Some(member) => chosen.push(member.clone()),
                None => {
                    let hint = did_you_mean(name, &names);
                    let known = shorten(&names.join(", "));
                    return Ok(Err(ConfigError::new(
                        "arrays",
                        format!("unknown array `{name}`{hint}; known: {known}"),
                    )));
                }
            }
        }
        if requested.is_none() {
            chosen = members;
        }
        let found = chosen.into_iter().map(|(name, member)| {
            let header = self
                .stream(member)
                .and_then(|mut stream| npy_header::header(&mut stream).map_err(|(_, what)| what));
            match header {
                Ok(header) => Ok(FoundArray {
                    name,
                    header,
                    member,
                }),
                Err(what) => Err(format!("the array `{}` {what}", shorten(&name))),
            }
        });
        let found: Vec<FoundArray> = found.collect::<Result<_, _>>()?;
        if found.is_empty() {
            Err("contains no arrays".to_owned())
        } else {
            Ok(Ok(found))
        }
    }

    /// The names and members of the arrays.
    fn members(&self) -> Result<Vec<(String, Option<ArchiveMember>)>, String> {
        let Self::Npz(archive) = self else {
            return Ok(vec![(ONLY.to_owned(), None)]);
        };
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let mut entries = archive.entries(&mut buffer);
        let mut members = Vec::new();
        let mut seen = 0;
        while let Some(entry) = entries.next_entry().map_err(|error| error.to_string())? {
            seen += 1;
            if seen > MAX_MEMBERS {
                return Err(format!(
                    "has more than {MAX_MEMBERS} members, the maximum for an archive of arrays"
                ));
            }
            let path = entry.file_path();
            let name = str::from_utf8(path.as_ref())
                .ok()
                .and_then(|path| path.strip_suffix(".npy"));
            if let Some(name) = name.filter(|name| name.len() <= MAX_NAME) {
                let (at, method) = (entry.wayfinder(), entry.compression_method());
                let member = ArchiveMember {
                    at,
                    method,
                    is_encrypted: entry.flags().is_encrypted(),
                };
                members.push((name.to_owned(), Some(member)));
            }
        }
        Ok(members)
    }

    /// The decompressed bytes of an array; a read at their end verifies the checksum.
    fn stream(&self, member: Option<ArchiveMember>) -> Result<Box<dyn Read + '_>, String> {
        let (archive, member) = match (self, member) {
            (Self::Npz(archive), Some(member)) => (archive, member),
            (Self::Npy(file), _) => {
                return Ok(Box::new(BufReader::new(RangeReader::new(
                    file,
                    0..file.length,
                ))));
            }
            (Self::Npz(_), None) => return Err("is in another file".to_owned()),
        };
        if member.is_encrypted {
            return Err("is encrypted; only unencrypted arrays are supported".to_owned());
        }
        let entry = archive
            .get_entry(member.at)
            .map_err(|error| error.to_string())?;
        let stored = BufReader::with_capacity(1 << 16, entry.reader());
        match member.method {
            CompressionMethod::STORE => Ok(Box::new(entry.verifying_reader(stored))),
            CompressionMethod::DEFLATE => Ok(Box::new(
                entry.verifying_reader(DeflateDecoder::new(stored)),
            )),
            other => Err(format!(
                "is compressed with {other}; only stored and deflated arrays are supported"
            )),
        }
    }

    /// Creates readers of the arrays.
    fn readers(&self, found: &[FoundArray]) -> Result<Vec<ArrayReader<'_>>, RejectReason> {
        let malformed = |what: String| (RejectCode::Malformed, what);
        let reader = |array: &FoundArray| {
            let mut stream = self.stream(array.member).map_err(malformed)?;
            let header = npy_header::header(&mut stream)?;
            ArrayReader::new(&array.name, header, stream)
        };
        found.iter().map(reader).collect()
    }
}

/// A file that is read at any position, shared by the arrays of an archive.
struct SharedInput {
    input: RefCell<FileReader>,
    length: u64,
}

impl ReaderAt for SharedInput {
    fn read_at(&self, into: &mut [u8], start: u64) -> io::Result<usize> {
        let mut input = self.input.borrow_mut();
        input.seek(SeekFrom::Start(start))?;
        input.read(into)
    }
}

#[cfg(test)]
mod tests;
