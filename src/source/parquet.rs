//! The `parquet` source: columns of Parquet files, features or images.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::batch::RejectCode;
use crate::context::Context;
use crate::error::{Fault, StageError};
use crate::kind::nearest;
use crate::source::cut::{Cut, weight};
use crate::source::files::{self, InputFile};
use crate::source::image_column::{ImageColumn, Images};
use crate::source::record_files::{Output, RecordFiles, RecordFormat, Records, Stop, check_names, differs, guarded};
use crate::source::{BatchSize, FEATURE_RECORDS, IMAGE, IMAGE_RECORDS, Source, SourceConfig, with_origin};

/// Columns of Parquet files, as they are. A column of encoded images (binary, or the `struct<bytes, path>` of
/// Hugging Face datasets) becomes the binary column `image`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Config {
    /// A file, a folder (its *.parquet files, and those of its subfolders) or a glob.
    pub path: String,
    /// The columns to read. Default: all.
    pub columns: Option<Vec<String>>,
    /// The column of encoded images. Default: the one whose type is `struct<bytes, path>`, else the binary
    /// column `image`, where there is one.
    pub image_column: Option<String>,
}

/// What a row group may declare to take without compression: no writer makes such, and its columns may overflow.
const MAX_GROUP_BYTES: u64 = 2 << 30;

impl SourceConfig for Config {
    fn plan(self, name: &str, batch: BatchSize, _: &Context) -> Result<Box<dyn Source>, Vec<Fault>> {
        let path = |error: StageError| vec![Fault::new("path", error.to_string())];
        let files = files::list(name, &self.path, Parquet::EXTENSIONS).map_err(path)?;
        let found = first_schema(&files).map_err(path)?;
        let columns = self.choose(&found)?;
        let image = ImageColumn::find(&columns, self.image_column.as_deref())
            .map_err(|what| vec![Fault::new("image_column", what)])?;
        let given = image.as_ref().map_or_else(|| Schema::new(columns.clone()), |image| image.schema(&columns));
        check_names(given.fields().iter().map(|field| field.name())).map_err(|what| vec![Fault::new("path", what)])?;
        let default = if given.column_with_name(IMAGE).is_some() { IMAGE_RECORDS } else { FEATURE_RECORDS };
        let cut = Cut { records: batch.records_or(default), bytes: batch.bytes() };
        let schema = with_origin(&given);
        Ok(Box::new(RecordFiles {
            stage: name.to_owned(),
            path: self.path,
            schema,
            format: Parquet { columns, image, cut },
        }))
    }
}

impl Config {
    /// The columns that were asked for, in the order of the file.
    fn choose(&self, found: &Schema) -> Result<Vec<FieldRef>, Vec<Fault>> {
        let Some(wanted) = &self.columns else { return Ok(found.fields().to_vec()) };
        let known: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
        let unknown = wanted.iter().filter(|name| !known.contains(&name.as_str()));
        let faults: Vec<Fault> = unknown
            .map(|name| {
                let hint = nearest(name, &known);
                Fault::new("columns", format!("there is no column `{name}`{hint}; known: {}", known.join(", ")))
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(found.fields().iter().filter(|field| wanted.contains(field.name())).cloned().collect())
    }
}

/// The columns of the first file whose footer can be read.
fn first_schema(files: &[InputFile]) -> Result<Schema, StageError> {
    let mut broken = None;
    for file in files {
        let input = File::open(&file.path).map_err(StageError::io(&file.path))?;
        match guarded(|| metadata(&input).and_then(arrow_metadata)) {
            Ok(metadata) => return Ok(metadata.schema().as_ref().clone()),
            Err((_, what)) => broken = broken.or(Some(format!("{}: {what}", file.name))),
        }
    }
    Err(StageError::Other(format!("no file can be read; {}", broken.unwrap_or_default())))
}

fn metadata(input: &File) -> Result<Arc<ParquetMetaData>, parquet::errors::ParquetError> {
    Ok(Arc::new(ParquetMetaDataReader::new().parse_and_finish(input)?))
}

fn arrow_metadata(metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata, parquet::errors::ParquetError> {
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())
}

/// Rows that a file declares; no less than one, and no more than can be counted.
fn declared(metadata: &ParquetMetaData) -> u64 {
    let rows = metadata.row_groups().iter().map(group_rows);
    rows.fold(0, u64::saturating_add).max(1)
}

fn group_rows(group: &RowGroupMetaData) -> u64 {
    // i64::MAX rows in each of several groups would overflow the count.
    u64::try_from(group.num_rows()).unwrap_or(0).min(u64::from(u32::MAX) * u64::from(u32::MAX) / 1024)
}

/// How planned Parquet files are read.
struct Parquet {
    columns: Vec<FieldRef>,
    image: Option<ImageColumn>,
    cut: Cut,
}

impl RecordFormat for Parquet {
    const EXTENSIONS: &'static [&'static str] = &["parquet"];

    fn read(&self, file: &InputFile, output: &Output<'_>) -> Result<(), Stop> {
        let input = File::open(&file.path).map_err(StageError::io(&file.path))?;
        let footer = match guarded(|| metadata(&input)) {
            Ok(footer) => footer,
            Err((code, what)) => return output.refuse(0..1, code, what),
        };
        let metadata = match guarded(|| arrow_metadata(footer.clone())) {
            Ok(metadata) => metadata,
            Err((code, what)) => return output.refuse(0..declared(&footer), code, what),
        };
        let places = self.places(file, metadata.schema())?;
        let opened = Opened { parquet: self, name: &file.name, input, metadata, places };
        let mut start = 0;
        for (place, group) in footer.row_groups().iter().enumerate() {
            let rows = start..start + group_rows(group);
            start = rows.end;
            if !rows.is_empty() && !output.done(&rows) {
                opened.read_group(place, group, rows, output)?;
            }
        }
        Ok(())
    }

    fn total(&self, files: &[InputFile]) -> Option<u64> {
        let rows = |file: &InputFile| {
            let input = File::open(&file.path).ok()?;
            Some(guarded(|| metadata(&input)).map_or(1, |footer| declared(&footer)))
        };
        files.iter().map(rows).try_fold(0, |total: u64, rows| Some(total.saturating_add(rows?)))
    }
}

impl Parquet {
    /// Where the planned columns stand in a file.
    fn places(&self, file: &InputFile, schema: &Schema) -> Result<Vec<usize>, StageError> {
        let place = |planned: &FieldRef| match schema.column_with_name(planned.name()) {
            Some((place, field)) if field.data_type() == planned.data_type() => Ok(place),
            other => Err(differs(&file.name, planned, other.map(|(_, field)| field.data_type()))),
        };
        self.columns.iter().map(place).collect()
    }
}

/// A file whose footer could be read.
struct Opened<'a> {
    parquet: &'a Parquet,
    name: &'a str,
    input: File,
    metadata: ArrowReaderMetadata,
    places: Vec<usize>,
}

impl Opened<'_> {
    /// Reads one row group. What cannot be read of it is one reject, from the first bad batch to its end:
    /// a decoder that has failed says nothing reliable of what follows.
    fn read_group(
        &self,
        place: usize,
        group: &RowGroupMetaData,
        rows: Range<u64>,
        output: &Output<'_>,
    ) -> Result<(), Stop> {
        let bytes = self.declared_bytes(group);
        if bytes > MAX_GROUP_BYTES {
            let what = format!("a row group declares {bytes} bytes; at most {MAX_GROUP_BYTES} are read");
            return output.refuse(rows, RejectCode::TooLarge, what);
        }
        let average = bytes / (rows.end - rows.start);
        let fitting = self.parquet.cut.bytes / average.max(1);
        let step = fitting.clamp(1, self.parquet.cut.records as u64);
        let mut start = rows.start;
        while output.done(&(start..rows.end.min(start + step))) {
            start += step;
        }
        let reader = guarded(|| self.reader(place, start - rows.start..rows.end - rows.start, step));
        let mut reader = match reader {
            Ok(reader) => reader,
            Err((code, what)) => return output.refuse(start..rows.end, code, what),
        };
        while start < rows.end {
            let next = guarded(|| reader.next().transpose());
            let batch = match next {
                Ok(Some(batch)) if batch.num_rows() > 0 => batch,
                Ok(_) => {
                    let what = "the row group ends before the rows that it declares".to_owned();
                    return output.refuse(start..rows.end, RejectCode::Truncated, what);
                }
                Err((code, what)) => return output.refuse(start..rows.end, code, what),
            };
            let end = rows.end.min(start + batch.num_rows() as u64);
            self.send(&batch, start, output)?;
            start = end;
        }
        Ok(())
    }

    /// Bytes that a row group says its planned columns take without compression.
    fn declared_bytes(&self, group: &RowGroupMetaData) -> u64 {
        let descriptor = group.schema_descr();
        let planned = (0..group.num_columns().min(descriptor.num_columns()))
            .filter(|&leaf| self.places.contains(&descriptor.get_column_root_idx(leaf)));
        let sizes = planned.map(|leaf| u64::try_from(group.column(leaf).uncompressed_size()).unwrap_or(u64::MAX));
        sizes.fold(0, u64::saturating_add)
    }

    /// A decoder of the rows `part` of a row group, `step` at a time.
    fn reader(
        &self,
        group: usize,
        part: Range<u64>,
        step: u64,
    ) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
        let input = self.input.try_clone()?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), self.places.iter().copied());
        let size = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(size(step));
        if part.start == 0 {
            return builder.build();
        }
        let selectors = vec![RowSelector::skip(size(part.start)), RowSelector::select(size(part.end - part.start))];
        builder.with_row_selection(RowSelection::from(selectors)).build()
    }

    fn send(&self, batch: &RecordBatch, first: u64, output: &Output<'_>) -> Result<(), Stop> {
        let planned = self.parquet.columns.iter().map(|field| field.name());
        let columns: Option<Vec<_>> = planned.map(|name| batch.column_by_name(name).cloned()).collect();
        let columns = columns.ok_or_else(|| StageError::Other(format!("{}: a column was not decoded", self.name)))?;
        let mut images = Images::default();
        let columns = match &self.parquet.image {
            Some(image) => image.take(columns, self.name, &mut images)?,
            None => columns,
        };
        let weigh = |rows: Range<usize>| weight(batch, rows.clone()) + images.decoded_beyond_stored(rows);
        for part in self.parquet.cut.parts(batch.num_rows(), &weigh) {
            let rows = first + part.start as u64..first + part.end as u64;
            if output.done(&rows) {
                continue;
            }
            let records = Records {
                columns: columns.iter().map(|column| column.slice(part.start, part.len())).collect(),
                origin: (0..u32::try_from(part.len()).unwrap_or(u32::MAX)).collect(),
                rejects: Vec::new(),
                sources: images.sources.as_ref().map(|sources| sources.slice(part.start, part.len())),
                pixels: images.pixels(part.clone()),
            };
            output.send(rows, records)?;
        }
        Ok(())
    }
}
