//! The `parquet` source: columns of Parquet files, features or images.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy, RowGroupMetaData,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::batch::RejectCode;
use crate::context::Context;
use crate::error::{Fault, StageError};
use crate::kind::nearest;
use crate::machine;
use crate::source::cut::{Cut, weight};
use crate::source::files::{self, InputFile};
use crate::source::image_column::{ImageColumn, Images};
use crate::source::lanes::{Lanes, read_ahead};
use crate::source::parquet_pages::Pages;
use crate::source::parquet_rows::{Group, Next, Rows};
use crate::source::record_files::{Output, RecordFiles, RecordFormat, Records, Stop, check_names, differs, guarded};
use crate::source::{BatchSize, FEATURE_RECORDS, IMAGE, IMAGE_RECORDS, Source, SourceConfig, with_origin};
use crate::store::Input;

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
    /// Row groups that are decoded at a time, each on a thread of its own and up to 64 MiB ahead of its turn. Default: one
    /// for every four cores.
    pub readers: Option<u16>,
}

/// How far beyond a batch's bytes rows may go in which the longest word of a dictionary is repeated: most are shorter.
const WORDS: u64 = 4;

/// What a row group may declare to take without compression: no writer makes such, and its columns may overflow.
const MAX_GROUP_BYTES: u64 = 2 << 30;

impl SourceConfig for Config {
    fn plan(self, name: &str, batch: BatchSize, context: &Context) -> Result<Box<dyn Source>, Vec<Fault>> {
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
        let count = self.readers.map_or_else(|| machine::cores() / 4, usize::from).max(1);
        let bytes = context.limits.memory.map_or(LANE_BYTES, |memory| LANE_BYTES.min(memory.0 / 16 / count as u64));
        let lanes = Lanes { count, bytes };
        let held_bytes = context.limits.memory.map_or_else(machine::memory, |memory| memory.0) / 2;
        Ok(Box::new(RecordFiles {
            stage: name.to_owned(),
            path: self.path,
            schema,
            format: Parquet { columns, image, cut, held_bytes: held_bytes / lanes.count as u64, lanes },
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
        let input = file.open()?;
        match guarded(|| metadata(&input).and_then(arrow_metadata)) {
            Ok(metadata) => return Ok(metadata.schema().as_ref().clone()),
            Err((_, what)) => broken = broken.or(Some(format!("{}: {what}", file.name))),
        }
        file.check_lost(&input)?;
    }
    Err(StageError::Other(format!("no file can be read; {}", broken.unwrap_or_default())))
}

fn metadata(input: &Input) -> Result<Arc<ParquetMetaData>, parquet::errors::ParquetError> {
    // Statistics are of no use here, and what is broken in them does no harm.
    let options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let footer = ParquetMetaDataReader::new().with_metadata_options(Some(options)).parse_and_finish(input)?;
    let file = footer.file_metadata();
    // The decoder believes the file's count, which some writers leave at 0; the row groups' counts are what is read.
    let rows = footer.row_groups().iter().fold(0, |rows: i64, group| rows.saturating_add(group.num_rows()));
    let file = FileMetaData::new(
        file.version(),
        rows,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    Ok(Arc::new(ParquetMetaData::new(file, footer.row_groups().to_vec())))
}

fn arrow_metadata(metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata, parquet::errors::ParquetError> {
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())
}

/// Rows that a file declares, no less than one.
fn declared(metadata: &ParquetMetaData) -> u64 {
    let rows = metadata.row_groups().iter().map(group_rows);
    rows.fold(0, u64::saturating_add).max(1)
}

/// More rows in a row group are not believed; so no sum over a file's can overflow.
const MAX_GROUP_ROWS: u64 = 1 << 40;

fn group_rows(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or(0).min(MAX_GROUP_ROWS)
}

/// How planned Parquet files are read.
struct Parquet {
    columns: Vec<FieldRef>,
    image: Option<ImageColumn>,
    cut: Cut,
    /// What the pages that are decoded at once may take.
    held_bytes: u64,
    /// Row groups that are decoded at a time.
    lanes: Lanes,
}

/// How far a row group is decoded before its turn: most of one that latentflow writes.
const LANE_BYTES: u64 = 64 << 20;

impl RecordFormat for Parquet {
    const EXTENSIONS: &'static [&'static str] = &["parquet"];

    fn read(&self, file: &InputFile, output: &Output<'_>) -> Result<(), Stop> {
        let input = file.open()?;
        let footer = match guarded(|| metadata(&input)) {
            Ok(footer) => footer,
            Err((code, what)) => {
                file.check_lost(&input)?;
                return output.refuse(0..1, code, what);
            }
        };
        let metadata = match guarded(|| arrow_metadata(footer.clone())) {
            Ok(metadata) => metadata,
            Err((code, what)) => return output.refuse(0..declared(&footer), code, what),
        };
        let places = self.places(file, metadata.schema())?;
        let mut start = 0;
        let mut groups = Vec::new();
        for (place, group) in footer.row_groups().iter().enumerate() {
            let rows = start..start + group_rows(group);
            start = rows.end;
            if !rows.is_empty() && !output.done(&rows) {
                groups.push((place, group, rows));
            }
        }
        read_ahead(&groups, self.lanes, output, |(place, group, rows), output| {
            // Each reads with a file of its own, since those that are cloned share their position.
            let (input, metadata) = (file.open()?, metadata.clone());
            let opened = Opened { parquet: self, file, input, metadata, places: &places };
            opened.read_group(*place, group, rows.clone(), output)
        })
    }

    fn held_bytes(&self) -> u64 {
        // Beside the one that hands over, each is ahead by so much.
        self.lanes.bytes.saturating_mul(self.lanes.count.saturating_sub(1) as u64)
    }

    fn total(&self, files: &[InputFile]) -> Option<u64> {
        let rows = |file: &InputFile| {
            let input = file.open().ok()?;
            let footer = guarded(|| metadata(&input));
            // Whoever reads it will say what is wrong.
            file.check_lost(&input).ok()?;
            Some(footer.map_or(1, |footer| declared(&footer)))
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
    file: &'a InputFile,
    input: Input,
    metadata: ArrowReaderMetadata,
    places: &'a [usize],
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
        let pages = match guarded(|| self.pages(group)) {
            Ok(pages) => pages,
            Err((code, what)) => return self.refuse(rows, code, what, output),
        };
        let bytes = self.declared_bytes(group).max(pages.bytes);
        let limit = self.parquet.held_bytes;
        if bytes > MAX_GROUP_BYTES {
            let what = format!("a row group declares {bytes} bytes; at most {MAX_GROUP_BYTES} are read");
            return output.refuse(rows, RejectCode::TooLarge, what);
        }
        if pages.held > limit {
            let what =
                format!("pages of {} bytes must be held at once, at most {limit} may (limits.memory)", pages.held);
            return output.refuse(rows, RejectCode::TooLarge, what);
        }
        let step = self.step(bytes / (rows.end - rows.start), pages.word);
        let mut start = rows.start;
        while output.done(&(start..rows.end.min(start + step))) {
            start += step;
        }
        let group = Group { input: &self.input, metadata: &self.metadata, place, columns: self.places };
        let mut opened = guarded(|| Rows::open(group, start - rows.start..rows.end - rows.start, step));
        while start < rows.end {
            let next = opened.as_mut().map_err(|refusal| refusal.clone());
            let next = next.and_then(|reader| guarded(|| reader.next(step.min(rows.end - start))));
            let batch = match next {
                Ok(Next::Rows(batch)) => batch,
                Ok(Next::Irregular) => {
                    opened = guarded(|| Rows::plain(group, start - rows.start..rows.end - rows.start, step));
                    continue;
                }
                Ok(Next::End) => {
                    let what = "the row group ends before the rows that it declares".to_owned();
                    return output.refuse(start..rows.end, RejectCode::Truncated, what);
                }
                Err((code, what)) => return self.refuse(start..rows.end, code, what, output),
            };
            let end = rows.end.min(start + batch.num_rows() as u64);
            self.send(&batch, start, output)?;
            start = end;
        }
        Ok(())
    }

    /// How many rows to decode at once, by their average bytes and by what a repeated word may add to each.
    fn step(&self, average: u64, word: u64) -> u64 {
        let Cut { records, bytes } = self.parquet.cut;
        let fitting = bytes / average.max(1);
        let repeated = bytes.saturating_mul(WORDS) / word.max(1);
        fitting.min(repeated).clamp(1, records as u64)
    }

    /// The planned columns of a row group.
    fn leaves<'g>(&self, group: &'g RowGroupMetaData) -> impl Iterator<Item = &'g ColumnChunkMetaData> {
        let descriptor = group.schema_descr();
        let leaves = 0..group.num_columns().min(descriptor.num_columns());
        leaves
            .filter(|&leaf| self.places.contains(&descriptor.get_column_root_idx(leaf)))
            .map(|leaf| group.column(leaf))
    }

    /// Refuses rows that could not be read, unless it is for want of the store.
    fn refuse(&self, rows: Range<u64>, code: RejectCode, what: String, output: &Output<'_>) -> Result<(), Stop> {
        self.file.check_lost(&self.input)?;
        output.refuse(rows, code, what)
    }

    /// Bytes that a row group says its planned columns take without compression.
    fn declared_bytes(&self, group: &RowGroupMetaData) -> u64 {
        let sizes = self.leaves(group).map(|leaf| u64::try_from(leaf.uncompressed_size()).unwrap_or(u64::MAX));
        sizes.fold(0, u64::saturating_add)
    }

    /// What the pages of the planned columns say that they take.
    fn pages(&self, group: &RowGroupMetaData) -> Result<Pages, parquet::errors::ParquetError> {
        let mut all = Pages::default();
        for leaf in self.leaves(group) {
            let pages = Pages::of(&self.input, leaf, self.parquet.held_bytes)?;
            all.bytes = all.bytes.saturating_add(pages.bytes);
            all.held = all.held.saturating_add(pages.held);
            all.word = all.word.saturating_add(pages.word);
        }
        Ok(all)
    }

    fn send(&self, batch: &RecordBatch, first: u64, output: &Output<'_>) -> Result<(), Stop> {
        let planned = self.parquet.columns.iter().map(|field| field.name());
        let columns: Option<Vec<_>> = planned.map(|name| batch.column_by_name(name).cloned()).collect();
        let columns =
            columns.ok_or_else(|| StageError::Other(format!("{}: a column was not decoded", self.file.name)))?;
        let mut images = Images::default();
        let columns = match &self.parquet.image {
            Some(image) => image.take(columns, &self.file.name, &mut images)?,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::path::Path;

    use arrow::array::{
        ArrayRef, AsArray, BinaryArray, FixedSizeListArray, Float32Array, Int64Array, StringArray, StructArray,
    };
    use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, UInt64Type};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use serde_json::json;

    use super::*;
    use crate::coverage::Progress;
    use crate::source::record_files::testing::{drain, plan, progress_of, read, records, rejects};
    use crate::tensor::{fixed_column, tensor_field};

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) {
        write_batch(path, &RecordBatch::try_from_iter(columns).unwrap(), group);
    }

    fn write_batch(path: &Path, batch: &RecordBatch, group: usize) {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn numbers(rows: Range<i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows))
    }

    fn ranges(batches: &[crate::batch::SourceBatch]) -> Vec<Range<u64>> {
        batches.iter().map(|batch| batch.batch.provenance.ranges()[0].rows.clone()).collect()
    }

    #[test]
    fn columns_come_as_they_are_in_batches_within_row_groups() {
        let folder = tempfile::tempdir().unwrap();
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..250).map(|row| row.to_string())));
        write(&folder.path().join("b.parquet"), vec![("n", numbers(0..250)), ("t", text)], 100);
        let source = plan::<Config>(json!({ "path": folder.path(), "columns": ["n"] }), 60).unwrap();
        assert_eq!(source.schema().fields().len(), 3);
        let batches = drain(source, &Progress::default()).unwrap();
        assert_eq!(ranges(&batches), [0..60, 60..100, 100..160, 160..200, 200..250]);
        let all = records(&batches);
        assert_eq!(all["n"].as_primitive::<Int64Type>().values(), &(0..250).collect::<Vec<_>>()[..]);
        assert_eq!(all["row"].as_primitive::<UInt64Type>().value(249), 249);
        let opened = plan::<Config>(json!({ "path": folder.path() }), 60).unwrap().open(&Progress::default()).unwrap();
        assert_eq!(opened.total, Some(250));
    }

    #[test]
    fn row_groups_that_are_decoded_side_by_side_come_as_if_they_were_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.parquet");
        write(&file, vec![("n", numbers(0..1000))], 90);
        // Of one row group nothing can be read.
        let mut bytes = std::fs::read(&file).unwrap();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&file).unwrap()).unwrap();
        let (start, length) = metadata.row_group(4).column(0).byte_range();
        bytes[start as usize..(start + length) as usize].fill(0xff);
        std::fs::write(&file, bytes).unwrap();
        let read = |readers: u16| read::<Config>(json!({ "path": folder.path(), "readers": readers }), 40);
        let one = read(1);
        assert_eq!(rejects(&one).iter().map(|(row, ..)| *row).collect::<Vec<_>>(), [360]);
        for readers in [2, 3, 20] {
            let several = read(readers);
            assert_eq!(ranges(&several), ranges(&one), "{readers}");
            assert_eq!(records(&several), records(&one), "{readers}");
            assert_eq!(rejects(&several), rejects(&one), "{readers}");
        }
    }

    #[test]
    fn vectors_come_as_they_are_beside_other_columns_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..750).map(|place| place as f32).collect();
        let vectors = fixed_column(3, values.clone()).unwrap();
        write(&folder.path().join("a.parquet"), vec![("n", numbers(0..250)), ("x", vectors)], 100);
        for columns in [json!(["x"]), json!(["n", "x"])] {
            let options = json!({ "path": folder.path(), "columns": columns });
            let all = read::<Config>(options.clone(), 30);
            assert_eq!(ranges(&all).len(), 10);
            let whole = records(&all);
            let vectors = whole["x"].as_fixed_size_list();
            assert_eq!(vectors.values().as_primitive::<Float32Type>().values(), &values[..]);
            assert_eq!(whole["row"].as_primitive::<UInt64Type>().values(), &(0..250).collect::<Vec<u64>>()[..]);
            for done in [1, 4, 6] {
                let progress = progress_of(&all[..done]);
                let rest = drain(plan::<Config>(options.clone(), 30).unwrap(), &progress).unwrap();
                assert_eq!(records(&rest), records(&all[done..]), "{done}");
            }
        }
    }

    #[test]
    fn vectors_with_nulls_come_with_their_nulls() {
        let folder = tempfile::tempdir().unwrap();
        let some = |row: i32| (row != 57).then(|| vec![Some(row as f32), (row != 81).then_some(0.5)]);
        let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..120).map(some), 2);
        let expected = vectors.clone();
        write(&folder.path().join("a.parquet"), vec![("x", Arc::new(vectors))], 100);
        let batches = read::<Config>(json!({ "path": folder.path() }), 20);
        assert_eq!(ranges(&batches), [0..20, 20..40, 40..60, 60..80, 80..100, 100..120]);
        let all = records(&batches);
        assert_eq!(all["x"].as_fixed_size_list().iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_nobody_listens_to_any_more_ends() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), vec![("n", numbers(0..5000))], 50);
        let source = plan::<Config>(json!({ "path": folder.path(), "readers": 4 }), 10).unwrap();
        let mut batches = source.open(&Progress::default()).unwrap().batches;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(tokio_stream::StreamExt::next(&mut batches)).unwrap().unwrap();
        assert_eq!(first.batch.records.num_rows(), 10);
        drop(batches);
        // Its threads hold the file open until they end.
        let open = || {
            let links =
                std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
            links.filter(|link| link.starts_with(folder.path())).count()
        };
        while cfg!(target_os = "linux") && open() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn tensors_keep_their_type() {
        let folder = tempfile::tempdir().unwrap();
        let shape = [2_usize, 3];
        let field = tensor_field("x", &shape).unwrap();
        let column = fixed_column(6, vec![0.5; 24]).unwrap();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![column]).unwrap();
        write_batch(&folder.path().join("a.parquet"), &batch, 100);
        let all = records(&read::<Config>(json!({ "path": folder.path() }), 10));
        assert_eq!(all.schema().field(2).data_type(), field.data_type());
        assert_eq!(all.schema().field(2).extension_type_name(), Some("arrow.fixed_shape_tensor"));
    }

    #[test]
    fn a_later_run_begins_at_the_first_batch_that_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), vec![("n", numbers(0..250))], 100);
        let all = read::<Config>(json!({ "path": folder.path() }), 30);
        let rest = |done: &[crate::batch::SourceBatch]| {
            drain(plan::<Config>(json!({ "path": folder.path() }), 30).unwrap(), &progress_of(done)).unwrap()
        };
        for done in [1, 2, 4, 6, 9] {
            let rest = rest(&all[..done]);
            assert_eq!(ranges(&rest), ranges(&all[done..]), "{done}");
            assert_eq!(records(&rest), records(&all[done..]), "{done}");
        }
        assert_eq!(rest(&all[5..]).len(), 5);
        assert!(rest(&all).is_empty());
    }

    #[test]
    fn images_of_hugging_face_tables_become_a_binary_column() {
        let folder = tempfile::tempdir().unwrap();
        let image: &[u8] = b"P5 4 3 255\n............";
        let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(image), None, Some(b"broken")]));
        let path: ArrayRef = Arc::new(StringArray::from(vec![Some("x/1.pgm"), None, None]));
        let field = |name: &str, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
        let pair =
            StructArray::from(vec![(field("bytes", &bytes), bytes.clone()), (field("path", &path), path.clone())]);
        write(&folder.path().join("a.parquet"), vec![("img", Arc::new(pair)), ("label", numbers(0..3))], 100);
        let batches = read::<Config>(json!({ "path": folder.path() }), 10);
        let all = records(&batches);
        assert_eq!(all["image"].as_binary::<i32>().value(0), image);
        assert!(all["image"].is_null(1));
        let sources: Vec<_> = all["source"].as_string::<i32>().iter().flatten().collect();
        assert_eq!(sources, ["a.parquet/x/1.pgm", "a.parquet", "a.parquet"]);
        assert_eq!(batches[0].pixels, 12);
        assert_eq!(all.schema().field(3).name(), "label");
    }

    #[test]
    fn images_count_at_their_decoded_size() {
        let folder = tempfile::tempdir().unwrap();
        let image: &[u8] = b"P5 2000 2000 255\n";
        let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(vec![image; 8]));
        write(&folder.path().join("a.parquet"), vec![("image", images)], 100);
        let batches = read::<Config>(json!({ "path": folder.path() }), 8);
        assert_eq!(ranges(&batches), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(batches[0].pixels, 8_000_000);
    }

    #[test]
    fn a_broken_file_among_others_is_one_reject() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.parquet"), b"PAR1 this is nothing PAR1").unwrap();
        write(&folder.path().join("b.parquet"), vec![("n", numbers(0..5))], 100);
        let batches = read::<Config>(json!({ "path": folder.path() }), 10);
        assert_eq!(rejects(&batches), [(0, "malformed", None)]);
        assert!(batches[0].rejects[0].reason.starts_with("a.parquet, row 0: "), "{}", batches[0].rejects[0].reason);
        assert_eq!(records(&batches).num_rows(), 5);
        std::fs::remove_file(folder.path().join("b.parquet")).unwrap();
        let faults = plan::<Config>(json!({ "path": folder.path() }), 10).err().unwrap();
        assert!(faults[0].message.starts_with("no file can be read; a.parquet: "), "{faults:?}");
    }

    #[test]
    fn a_broken_row_group_is_one_reject_and_the_next_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, vec![("n", numbers(0..300))], 100);
        let footer = metadata(&Input::File(File::open(&path).unwrap())).unwrap();
        let (start, length) = footer.row_group(1).column(0).byte_range();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[start as usize..(start + length) as usize].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let batches = read::<Config>(json!({ "path": folder.path() }), 100);
        assert_eq!(ranges(&batches), [0..100, 100..200, 200..300]);
        assert_eq!(batches[1].rejects.len(), 1);
        assert!(batches[1].rejects[0].reason.starts_with("a.parquet, 100 rows from 100: "));
        assert_eq!(records(&batches).num_rows(), 200);
    }

    #[test]
    fn a_flipped_byte_gives_rows_rejects_or_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("a.parquet");
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|row| (row % 7).to_string())));
        write(&whole, vec![("n", numbers(0..40)), ("t", text)], 20);
        let bytes = std::fs::read(&whole).unwrap();
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0xff;
            std::fs::write(folder.path().join("b.parquet"), bytes).unwrap();
            let source = plan::<Config>(json!({ "path": folder.path() }), 15).unwrap();
            match drain(source, &Progress::default()) {
                Ok(batches) => assert!(records(&batches).num_rows() >= 40, "{place}"),
                Err(error) => assert!(error.to_string().starts_with("b.parquet: "), "{place}: {error}"),
            }
        }
    }

    #[test]
    fn another_type_in_a_later_file_ends_the_run_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), vec![("n", numbers(0..5))], 100);
        write(&folder.path().join("b.parquet"), vec![("n", Arc::new(Float32Array::from(vec![1.0])))], 100);
        let source = plan::<Config>(json!({ "path": folder.path() }), 10).unwrap();
        let error = drain(source, &Progress::default()).unwrap_err().to_string();
        assert_eq!(error, "b.parquet: column `n` is Float32; expected Int64, as in the first file");
        assert_eq!(DataType::Float32.to_string(), "Float32");
    }

    #[test]
    fn faults_name_their_key() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), vec![("length", numbers(0..5))], 100);
        let faults = |options| plan::<Config>(options, 10).err().unwrap();
        let found = faults(json!({ "path": folder.path(), "columns": ["lenght"] }));
        assert_eq!(found[0].message, "there is no column `lenght` (did you mean `length`?); known: length");
        assert_eq!(faults(json!({ "path": folder.path(), "image_column": "x" }))[0].key, "image_column");
    }

    /// Says what became of each file of Apache's collection.
    #[test]
    fn every_file_of_the_parquet_test_collection_gives_rows_or_rejects() {
        let Ok(data) = std::env::var("LATENTFLOW_TEST_DATA") else {
            eprintln!("skipped: LATENTFLOW_TEST_DATA is not set");
            return;
        };
        let root = Path::new(&data).join("bad/parquet-testing");
        let files = files::list("in", &format!("{}/**/*.parquet", root.display()), &[]).unwrap();
        assert!(files.len() > 60, "{} files", files.len());
        for file in files {
            let what = match plan::<Config>(json!({ "path": root.join(&file.name) }), 1000) {
                Err(faults) => format!("fault: {}", faults[0].message),
                Ok(source) => {
                    let batches = drain(source, &Progress::default()).unwrap();
                    let rows: usize = batches.iter().map(|batch| batch.batch.records.num_rows()).sum();
                    let covered: u64 = batches.iter().map(|batch| batch.batch.provenance.len()).sum();
                    let reasons: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).map(|r| &r.reason).collect();
                    assert!(rows as u64 == covered || !reasons.is_empty(), "{}", file.name);
                    format!("{rows} of {covered} rows {reasons:?}")
                }
            };
            eprintln!("{}: {what}", file.name);
        }
    }
}
