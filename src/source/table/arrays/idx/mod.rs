//! The `idx` source reads images or features from IDX files, the format of MNIST, plain or
//! compressed with gzip.

pub mod config;

use std::io::{self, BufRead, BufReader, Read};

use arrow::datatypes::SchemaRef;
use flate2::bufread::MultiGzDecoder;

use crate::batch::provenance::Split;
use crate::batch::reject::RejectCode;
use crate::columns::LABEL;
use crate::error::StageError;
use crate::plan_context::PipelineLimits;
use crate::schema_unification::accepts;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::arrays::JoinedArrays;
use crate::source::table::arrays::header::{ArrayHeader, ScalarType};
use crate::source::table::arrays::idx::config::{check_labels, labels_file, open_labels};
use crate::source::table::arrays::reader::{ArrayReader, RejectReason, read_together};
use crate::source::table::file_source::{BatchOutput, FileFormat, absent_column, different_column};
use crate::storage;
use crate::text_excerpt::shorten;

/// The column of records that are not images.
const FEATURES: &str = "features";

/// Opens a file and reads its header.
fn open(
    file: &InputFile,
    input: storage::FileReader,
) -> Result<(ArrayHeader, OpenIdxFile), ReadEnd> {
    let mut opened = OpenIdxFile::new(input).map_err(file.stopped())?;
    let header = opened.header();
    file.check_available(&opened.handle)?;
    let header = header.map_err(|(code, what)| file.unfit(code, &what, 1))?;
    Ok((header, opened))
}

/// The format of planned IDX files.
struct IdxFormat {
    stage: String,
    labels: Option<String>,
    schema: SchemaRef,
    batch: BatchSize,
    limits: PipelineLimits,
}

impl FileFormat for IdxFormat {
    const EXTENSIONS: &'static [&'static str] = &["idx"];

    /// Adds the labels to the split: a file with other labels is another input.
    fn listed(&self, mut file: InputFile) -> Result<InputFile, StageError> {
        if let Some(labels) = &self.labels {
            let labels = labels_file(&self.stage, labels)?;
            file.split = Split::new(format!("{}+{}", file.split.name(), labels.split.name()));
        }
        Ok(file)
    }

    fn read(
        &self,
        file: &InputFile,
        input: storage::FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut records = OpenIdxFile::new(input).map_err(file.stopped())?;
        let header = match records.header() {
            Ok(header) => header,
            Err((code, what)) => {
                file.check_available(&records.handle)?;
                return output.reject_rest(0, code, &what);
            }
        };
        let unfit = |code, what: &str| file.unfit(code, what, header.rows.max(1));
        let labels = self
            .labels
            .as_ref()
            .map(|path| open_labels(&self.stage, path))
            .transpose()?;
        let (labels, labels_stream) = labels
            .map(
                |(label_file, label_header, OpenIdxFile { stream, handle })| {
                    ((label_file, label_header, handle), stream)
                },
            )
            .unzip();
        let mut headers = vec![&header];
        if let Some((label_file, label_header, _)) = &labels {
            check_labels(label_file, label_header, &header)
                .map_err(|what| unfit(RejectCode::Mismatch, &what))?;
            headers.push(label_header);
        }
        self.check(&headers)
            .map_err(|what| unfit(RejectCode::Mismatch, &what))?;
        let joined = JoinedArrays::new(&headers, self.batch, &self.limits);
        let joined = joined.map_err(|what| unfit(RejectCode::TooLarge, &what))?;
        let check = || {
            file.check_available(&records.handle)?;
            labels
                .iter()
                .try_for_each(|(label_file, _, handle)| label_file.check_available(handle))
        };
        let mut parts = vec![("the records", header.clone(), records.stream)];
        let labels_part = labels.as_ref().zip(labels_stream);
        parts.extend(labels_part.map(|((label_file, label_header, _), stream)| {
            (label_file.name.as_str(), label_header.clone(), stream)
        }));
        let arrays = parts
            .into_iter()
            .map(|(name, array_header, stream)| ArrayReader::new(name, array_header, stream));
        match arrays.collect::<Result<Vec<_>, _>>() {
            Ok(arrays) => read_together(arrays, &joined, &check, output),
            Err((code, what)) => {
                check()?;
                output.reject_rows(0..header.rows.max(1), code, what)
            }
        }
    }

    fn count_rows(&self, file: &InputFile) -> Option<u64> {
        let mut opened = OpenIdxFile::new(file.reopen().ok()?).ok()?;
        let header = opened.header();
        file.check_available(&opened.handle).ok()?;
        Some(header.map_or(1, |header| header.rows))
    }
}

impl IdxFormat {
    /// Checks that the columns of a file are the planned ones.
    ///
    /// # Errors
    /// A sentence that states the difference.
    fn check(&self, headers: &[&ArrayHeader]) -> Result<(), String> {
        let found_fields = headers
            .iter()
            .zip([FEATURES, LABEL])
            .map(|(header, name)| header.field(name));
        for (planned, found) in self.schema.fields().iter().zip(found_fields) {
            if planned.name() != found.name() {
                return Err(absent_column(planned));
            }
            accepts(planned, &found).map_err(|conflict| different_column(&conflict))?;
        }
        Ok(())
    }
}

/// An opened IDX file, plain or compressed.
struct OpenIdxFile {
    /// Its content, decompressed.
    stream: Box<dyn Read>,
    /// A second handle of the file, to check its state while it is read.
    handle: storage::FileReader,
}

/// The first bytes of a gzip file.
const GZIP: &[u8] = b"\x1f\x8b";

impl OpenIdxFile {
    fn new(input: storage::FileReader) -> io::Result<Self> {
        let handle = input.try_clone()?;
        let mut plain = BufReader::with_capacity(1 << 16, input);
        let is_gzip = plain.fill_buf()?.starts_with(GZIP);
        let stream: Box<dyn Read> = if is_gzip {
            Box::new(MultiGzDecoder::new(plain))
        } else {
            Box::new(plain)
        };
        Ok(Self { stream, handle })
    }

    /// Reads the header: two zero bytes, the type of the values, the number of dimensions, and the
    /// size of each dimension as a big-endian `u32` (<http://yann.lecun.com/exdb/mnist/>).
    fn header(&mut self) -> Result<ArrayHeader, RejectReason> {
        let read = |bytes: &mut [u8], stream: &mut dyn Read| {
            let reason = |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    (RejectCode::Truncated, "ends in its header".to_owned())
                }
                _ => (RejectCode::Malformed, shorten(&error.to_string())),
            };
            stream.read_exact(bytes).map_err(reason)
        };
        let mut magic = [0; 4];
        read(&mut magic, &mut self.stream)?;
        let malformed = |what: String| (RejectCode::Malformed, what);
        let element = match magic {
            [0, 0, 0x08, _] => ScalarType::UInt8,
            [0, 0, 0x09, _] => ScalarType::Int8,
            [0, 0, 0x0b, _] => ScalarType::Int16,
            [0, 0, 0x0c, _] => ScalarType::Int32,
            [0, 0, 0x0d, _] => ScalarType::Float32,
            [0, 0, 0x0e, _] => ScalarType::Float64,
            _ => {
                return Err(malformed(format!(
                    "is not an IDX file; it begins with the bytes {magic:02x?}"
                )));
            }
        };
        let mut sides = vec![0; 4 * usize::from(magic[3])];
        read(&mut sides, &mut self.stream)?;
        let shape: Vec<u64> = sides
            .as_chunks()
            .0
            .iter()
            .map(|&side| u64::from(u32::from_be_bytes(side)))
            .collect();
        ArrayHeader::new(element, true, false, &shape).map_err(malformed)
    }
}

#[cfg(test)]
mod tests;
