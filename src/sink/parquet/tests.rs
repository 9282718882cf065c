//! Tests of the sink `parquet`: its files, and its state after a restart.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::arrow_size::record_bytes;
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::sink::dataset::data_files::DataFile;
use crate::sink::parquet::config::ParquetSinkConfig;
use crate::sink::parquet::coverage_snapshot::CoverageSnapshot;
use crate::sink::parquet::stored_types::{store, stored_schema};
use crate::sink::parquet::writer::FOLD_FILES;
use crate::sink::{CommitProgress, IdentityScope, StageIdentity};
use crate::tensor::{fixed_column, tensor_field, variable_column, variable_field, vector_field};
use crate::units::ByteSize;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        vector_field("latent", 4),
        tensor_field("pixels", &[1, 2, 2]).unwrap(),
        variable_field("image", 2).unwrap(),
    ])
}

/// The records `rows` of the split `a`, with values that depend on the row.
fn batch(rows: Range<u16>) -> Batch {
    let values = |each: u16| {
        rows.clone().flat_map(move |row| {
            (0..each).map(move |index| f32::from(row) + f32::from(index) / 8.0)
        })
    };
    let shapes: Vec<Vec<usize>> = rows
        .clone()
        .map(|row| vec![1, 1 + usize::from(row % 3)])
        .collect();
    let pixels = rows
        .clone()
        .flat_map(|row| vec![f32::from(row); 1 + usize::from(row % 3)])
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            rows.clone().map(|row| format!("{row}.png")),
        )),
        fixed_column(4, values(4).collect()).unwrap(),
        fixed_column(4, values(4).collect()).unwrap(),
        variable_column(2, pixels, &shapes).unwrap(),
    ];
    let records = RecordBatch::try_new(Arc::new(schema()), columns).unwrap();
    Batch::new(
        records,
        Provenance::rows(Split::new("a"), rows.start.into()..rows.end.into()),
    )
}

/// The batch of these rows after a filter that drops all of them.
fn dropped(rows: Range<u16>) -> Batch {
    let none = BooleanArray::from(vec![false; rows.len()]);
    batch(rows).filter(&none).unwrap()
}

fn identity() -> OutputIdentity {
    let models = BTreeMap::from([("photo".to_owned(), "5eed".to_owned())]);
    let options = serde_json::Map::from_iter([("size".to_owned(), 64.into())]);
    let stages = BTreeMap::from([(
        "px".into(),
        StageIdentity {
            kind: "pixels".into(),
            digest: "s1".into(),
            options,
            ..StageIdentity::default()
        },
    )]);
    OutputIdentity {
        pipeline: "photos".into(),
        stage: "out".into(),
        digest: "d1".into(),
        models,
        sinks: stages.clone(),
        stages,
        ..OutputIdentity::default()
    }
}

fn sink_with(path: &Path, change: impl FnOnce(&mut ParquetSinkConfig)) -> Box<dyn Sink> {
    let mut config = ParquetSinkConfig::new(path);
    change(&mut config);
    config.sink(&schema()).unwrap()
}

fn sink(path: &Path) -> Box<dyn Sink> {
    sink_with(path, |_| ())
}

fn committed(path: &Path) -> Result<String, String> {
    let coverage = sink(path)
        .history()
        .map_err(|error| error.to_string())?
        .coverage();
    Ok(serde_json::to_string(&coverage).unwrap())
}

/// Writes the batches in one run, and commits at its end.
fn run(sink: Box<dyn Sink>, batches: &[Batch]) -> CommitStats {
    let mut writer = sink.open(identity()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.commit().unwrap();
    writer.stats()
}

fn names(path: &Path) -> Vec<String> {
    data_files(&path.into())
        .unwrap()
        .into_iter()
        .map(|file| file.entry.name)
        .collect()
}

fn read(file: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn footer(file: &Path) -> ProvenanceFooter {
    let location = Location::from(file);
    DataFile {
        entry: location.file().unwrap().unwrap(),
        location,
    }
    .footer()
    .unwrap()
    .unwrap()
}

fn records_of(path: &Path) -> Vec<i64> {
    let files = data_files(&path.into()).unwrap();
    files
        .iter()
        .map(|file| file.metadata().unwrap().file_metadata().num_rows())
        .collect()
}

#[test]
fn records_and_field_metadata_are_read_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let written = run(sink(folder.path()), &[batch(0..10), batch(10..25)]);
    let file = folder.path().join("part-00000.parquet");
    assert_eq!(
        written,
        CommitStats {
            files: 1,
            bytes: fs::metadata(&file).unwrap().len(),
            records: 25
        }
    );
    let read = read(&file);
    let stored = stored_schema(&schema());
    assert_eq!(read.schema().fields(), stored.fields());
    let metadata = |schema: &Schema| schema.field(2).metadata().clone();
    assert_eq!(metadata(read.schema_ref()), metadata(&schema()));
    let expected = store(&batch(0..25).records, &stored).unwrap();
    assert_eq!(read, expected.with_schema(read.schema()).unwrap());
}

#[test]
fn files_of_all_compressions_are_read_back() {
    for compression in [
        ParquetCompression::Zstd,
        ParquetCompression::Snappy,
        ParquetCompression::Lz4,
        ParquetCompression::None,
    ] {
        let folder = tempfile::tempdir().unwrap();
        run(
            sink_with(folder.path(), |config| config.compression = compression),
            &[batch(0..9)],
        );
        let read = read(&folder.path().join("part-00000.parquet"));
        let expected = store(&batch(0..9).records, &stored_schema(&schema())).unwrap();
        assert_eq!(read.columns(), expected.columns(), "{compression:?}");
    }
}

#[test]
fn only_selected_columns_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["latent".to_owned(), "source".to_owned()];
    run(
        sink_with(folder.path(), |config| config.columns = Some(names)),
        &[batch(0..3)],
    );
    let read = read(&folder.path().join("part-00000.parquet"));
    let columns: Vec<String> = read
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(columns, ["latent", "source"]);
}

#[test]
fn file_records_limits_files_across_batches() {
    let folder = tempfile::tempdir().unwrap();
    let ten = |config: &mut ParquetSinkConfig| config.file.records = NonZeroU64::new(10);
    let batches = [
        batch(0..4),
        batch(4..8),
        batch(8..12),
        dropped(12..15),
        batch(15..35),
        batch(35..37),
    ];
    let written = run(sink_with(folder.path(), ten), &batches);
    assert_eq!(records_of(folder.path()), [10, 10, 10, 4]);
    assert_eq!((written.files, written.records), (4, 34));
    let files = names(folder.path());
    let ranges: Vec<String> = files
        .iter()
        .map(|name| serde_json::to_string(&footer(&folder.path().join(name)).coverage).unwrap())
        .collect();
    assert_eq!(
        ranges,
        [[0, 10], [10, 23], [23, 33], [33, 37]]
            .map(|[from, to]| format!(r#"{{"a":[[{from},{to}]]}}"#))
    );
    let read: Vec<_> = files
        .iter()
        .map(|name| read(&folder.path().join(name)))
        .collect();
    let kept = concat_batches(&read[0].schema(), &read).unwrap();
    let (first, rest) = (batch(0..12).records, batch(15..37).records);
    let expected = concat_batches(&first.schema(), &[first.clone(), rest]).unwrap();
    let expected = store(&expected, &stored_schema(&schema())).unwrap();
    assert_eq!(kept.columns(), expected.columns());
}

#[test]
fn crash_within_a_batch_keeps_rows_of_complete_files() {
    let folder = tempfile::tempdir().unwrap();
    let ten = |config: &mut ParquetSinkConfig| config.file.records = NonZeroU64::new(10);
    let mut writer = sink_with(folder.path(), ten).open(identity()).unwrap();
    assert_eq!(writer.write(&batch(0..4)).unwrap(), CommitProgress::Nothing);
    assert_eq!(writer.write(&batch(4..34)).unwrap(), CommitProgress::Before);
    drop(writer);
    assert_eq!(committed(folder.path()).unwrap(), r#"{"a":[[0,30]]}"#);
    run(sink_with(folder.path(), ten), &[batch(30..34)]);
    assert_eq!(records_of(folder.path()), [10, 10, 10, 4]);
}

#[test]
fn records_of_one_source_row_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = Batch {
        row_ordinals: (0..12).map(|tile| tile / 4).collect(),
        ..batch(0..12)
    };
    run(
        sink_with(folder.path(), |config| {
            config.file.records = NonZeroU64::new(3)
        }),
        std::slice::from_ref(&tiles),
    );
    assert_eq!(records_of(folder.path()), [4, 4, 4]);
    let larger_files = tempfile::tempdir().unwrap();
    run(
        sink_with(larger_files.path(), |config| {
            config.file.records = NonZeroU64::new(9)
        }),
        &[tiles],
    );
    assert_eq!(records_of(larger_files.path()), [8, 4]);
}

/// Readers decode a dictionary with the key type of the schema, for all row groups of a file.
#[test]
fn dictionaries_are_stored_as_plain_values() {
    use arrow::array::{AsArray, DictionaryArray, Int8Array};
    use arrow::datatypes::Int8Type;
    let field = Field::new_dictionary("c", DataType::Int8, DataType::Utf8, false);
    let schema = Schema::new(vec![field]);
    let word = |file: u8, word: u8| format!("{file}-{word}");
    let part = |file: u8| {
        let words = StringArray::from_iter_values((0..100).map(|number| word(file, number)));
        let keys = Int8Array::from_iter_values(0..100);
        let column = DictionaryArray::<Int8Type>::new(keys, Arc::new(words));
        let records =
            RecordBatch::try_new(Arc::new(schema.clone()), vec![Arc::new(column)]).unwrap();
        let rows = u64::from(file) * 100..u64::from(file) * 100 + 100;
        Batch::new(records, Provenance::rows(Split::new("a"), rows))
    };
    let folder = tempfile::tempdir().unwrap();
    run(
        ParquetSinkConfig::new(folder.path()).sink(&schema).unwrap(),
        &[part(0), part(1), part(2)],
    );
    let stored = read(&folder.path().join("part-00000.parquet"));
    let words: Vec<&str> = stored["c"].as_string::<i32>().iter().flatten().collect();
    let expected = (0..3).flat_map(|file| (0..100).map(move |number| word(file, number)));
    assert_eq!(words, expected.collect::<Vec<_>>());
}

#[test]
fn values_that_cannot_be_stored_are_rejects() {
    use arrow::array::{AsArray, Date64Array, TimestampSecondArray};
    use arrow::datatypes::{Date32Type, TimeUnit, TimestampMillisecondType};
    const DAY: i64 = 86_400_000;
    let columns: [(&str, ArrayRef); 2] = [
        (
            "d",
            Arc::new(Date64Array::from(vec![
                Some(DAY),
                None,
                Some(DAY + 1),
                Some(-DAY),
            ])),
        ),
        (
            "t",
            Arc::new(TimestampSecondArray::from(vec![1, 2, 3, i64::MAX])),
        ),
    ];
    let records = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    );
    let records = records.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sink = ParquetSinkConfig::new(folder.path())
        .sink(records.schema_ref())
        .unwrap();
    let mut writer = sink.open(identity()).unwrap();
    let encoder = writer.batch_encoder().unwrap();
    let mut rejects = RejectCollector::default();
    let batch = Batch::new(records, Provenance::rows(Split::new("a"), 10..14));
    let encoded = encoder.encode(batch, &mut rejects).unwrap();
    let rejects: Vec<_> = rejects
        .into_vec()
        .into_iter()
        .map(|reject| (reject.ordinal, reject.code, reject.reason))
        .collect();
    assert_eq!(rejects.len(), 2);
    assert_eq!((rejects[0].0, rejects[0].1), (2, RejectCode::Mismatch));
    assert!(
        rejects[0].2.starts_with("column `d`: ")
            && rejects[0].2.contains("86400001 ms is not a whole"),
        "{}",
        rejects[0].2
    );
    assert_eq!(rejects[1].0, 3);
    assert!(rejects[1].2.starts_with("column `t`: "), "{}", rejects[1].2);
    assert_eq!(encoded.row_ordinals, [0, 1]);
    writer.write(&encoded).unwrap();
    writer.commit().unwrap();
    let stored = read(&folder.path().join("part-00000.parquet"));
    let dates = stored["d"].as_primitive::<Date32Type>();
    assert_eq!(dates.iter().collect::<Vec<_>>(), [Some(1), None]);
    let times = stored["t"].as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.values(), &[1000, 2000]);
    let unit = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(stored.schema().field(1).data_type(), &unit);
}

#[test]
fn columns_whose_values_always_fit_have_no_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let writer = sink(folder.path()).open(identity()).unwrap();
    assert!(writer.batch_encoder().is_none());
}

#[test]
fn values_that_do_not_fit_the_dataset_are_rejects() {
    use arrow::array::{AsArray, Float64Array, Int64Array};
    use arrow::datatypes::Float64Type;
    let folder = tempfile::tempdir().unwrap();
    let records = |column: ArrayRef| RecordBatch::try_from_iter([("x", column)]).unwrap();
    let sink = |input: &RecordBatch| {
        let mut config = ParquetSinkConfig::new(folder.path());
        config.sink(input.schema_ref()).unwrap()
    };
    let earlier = records(Arc::new(Float64Array::from(vec![0.5])));
    run(
        sink(&earlier),
        &[Batch::new(earlier, Provenance::rows(Split::new("a"), 0..1))],
    );

    let integers = records(Arc::new(Int64Array::from(vec![1, (1 << 53) + 1, 2])));
    let mut writer = sink(&integers).open(identity()).unwrap();
    let encoder = writer.batch_encoder().unwrap();
    let mut rejects = RejectCollector::default();
    let batch = Batch::new(integers, Provenance::rows(Split::new("b"), 0..3));
    let encoded = encoder.encode(batch, &mut rejects).unwrap();
    assert_eq!(encoded.records.schema(), encoder.schema());
    writer.write(&encoded).unwrap();
    writer.commit().unwrap();

    let rejects = rejects.into_vec();
    assert_eq!(rejects.len(), 1);
    assert_eq!(
        (rejects[0].ordinal, rejects[0].code),
        (1, RejectCode::Mismatch)
    );
    assert!(
        rejects[0].reason.starts_with("column `x`: ")
            && rejects[0].reason.contains("9007199254740993")
            && rejects[0].reason.contains("Float64"),
        "{}",
        rejects[0].reason
    );
    let stored = read(&folder.path().join("part-00001.parquet"));
    assert_eq!(
        stored["x"].as_primitive::<Float64Type>().values(),
        &[1., 2.]
    );
}

#[test]
fn file_bytes_limits_files() {
    let folder = tempfile::tempdir().unwrap();
    let batches: Vec<Batch> = (0..6).map(|n| batch(n * 4..n * 4 + 4)).collect();
    let two = record_bytes(&batches[0].records) + record_bytes(&batches[1].records);
    run(
        sink_with(folder.path(), |config| {
            config.file.bytes = ByteSize(two + 20)
        }),
        &batches,
    );
    assert_eq!(records_of(folder.path()), [8, 8, 8]);
}

#[test]
fn footer_has_identity_version_and_source_rows() {
    let folder = tempfile::tempdir().unwrap();
    run(
        sink(folder.path()),
        &[dropped(0..5), batch(5..10), dropped(10..12), batch(20..22)],
    );
    let footer = footer(&folder.path().join("part-00000.parquet"));
    assert_eq!(footer.identity, identity());
    assert_eq!(footer.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        serde_json::to_string(&footer.coverage).unwrap(),
        r#"{"a":[[0,12],[20,22]]}"#
    );
}

#[test]
fn rows_without_records_are_committed_without_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = sink(folder.path()).open(identity()).unwrap();
    for rows in [0..5, 5..9] {
        writer.write(&dropped(rows)).unwrap();
        writer.commit().unwrap();
    }
    assert_eq!(writer.stats(), CommitStats::default());
    drop(writer);
    assert_eq!(committed(folder.path()).unwrap(), r#"{"a":[[0,9]]}"#);
    run(sink(folder.path()), &[dropped(9..12)]);
    assert_eq!(committed(folder.path()).unwrap(), r#"{"a":[[0,12]]}"#);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn run_without_batches_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/out");
    assert_eq!(committed(&path).unwrap(), "{}");
    assert_eq!(run(sink(&path), &[]), CommitStats::default());
    assert_eq!(committed(&path).unwrap(), "{}");
}

#[test]
fn second_run_continues_with_next_file_number() {
    let folder = tempfile::tempdir().unwrap();
    run(sink(folder.path()), &[batch(0..5), dropped(5..7)]);
    run(sink(folder.path()), &[batch(7..9)]);
    assert_eq!(
        names(folder.path()),
        ["part-00000.parquet", "part-00001.parquet"]
    );
    assert_eq!(committed(folder.path()).unwrap(), r#"{"a":[[0,9]]}"#);
    fs::remove_file(folder.path().join("part-00000.parquet")).unwrap();
    run(sink(folder.path()), &[batch(9..11)]);
    assert_eq!(
        names(folder.path()),
        ["part-00001.parquet", "part-00002.parquet"]
    );
}

#[test]
fn uncommitted_file_is_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("notes.tmp");
    let mut writer = sink(folder.path()).open(identity()).unwrap();
    writer.write(&batch(0..5)).unwrap();
    drop(writer);
    fs::write(&foreign, "keep").unwrap();
    let temporary = folder.path().join(".latentflow-part-00000.parquet.tmp");
    let snapshot = folder
        .path()
        .join("_latentflow/.latentflow-coverage.json.tmp");
    fs::write(&snapshot, "{").unwrap();
    assert!(temporary.exists());
    assert_eq!(committed(folder.path()).unwrap(), "{}");
    drop(sink(folder.path()).open(identity()).unwrap());
    assert!(!temporary.exists() && !snapshot.exists() && foreign.exists());
}

#[test]
fn folder_with_file_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let mut writer = parquet::arrow::ArrowWriter::try_new(
        fs::File::create(&path).unwrap(),
        Arc::new(schema()),
        None,
    )
    .unwrap();
    writer.write(&batch(0..2).records).unwrap();
    writer.close().unwrap();
    let error = committed(folder.path()).unwrap_err();
    assert!(
        error.contains("table.parquet: this file was not written by latentflow"),
        "{error}"
    );
}

#[test]
fn file_with_invalid_footer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(sink(folder.path()), &[batch(0..5)]);
    let path = folder.path().join("part-00000.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let error = committed(folder.path()).unwrap_err();
    assert!(
        error.contains("part-00000.parquet: invalid or truncated Parquet file"),
        "{error}"
    );
}

#[test]
fn allowed_mixing_is_stored_with_the_rows_of_each_writer() {
    let folder = tempfile::tempdir().unwrap();
    run(sink(folder.path()), &[batch(0..5)]);
    let other = OutputIdentity {
        digest: "d2".into(),
        ..identity()
    };
    let sink2 = sink(folder.path());
    assert!(
        sink2
            .history()
            .unwrap()
            .check_compatible(&folder.path().into(), &other, IdentityScope::Sink)
            .is_err()
    );
    sink2.allow_mixing(&["d1".into(), "d2".into()]).unwrap();
    let mut writer = sink2.open(other.clone()).unwrap();
    writer.write(&batch(5..9)).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let history = sink(folder.path()).history().unwrap();
    history
        .check_compatible(&folder.path().into(), &other, IdentityScope::Sink)
        .unwrap();
    let writers: Vec<_> = history
        .writers
        .iter()
        .map(|(identity, rows)| (identity.digest.as_str(), rows.len()))
        .collect();
    assert_eq!(writers, [("d1", 5), ("d2", 4)]);
}

#[test]
fn folded_files_may_be_removed_or_merged() {
    let folder = tempfile::tempdir().unwrap();
    let one = |config: &mut ParquetSinkConfig| config.file.records = NonZeroU64::new(1);
    let rows = u16::try_from(FOLD_FILES).unwrap() + 10;
    let batches: Vec<Batch> = (0..rows).map(|row| batch(row..row + 1)).collect();
    run(sink_with(folder.path(), one), &batches);
    let snapshot = CoverageSnapshot::load(&folder.path().into()).unwrap();
    assert_eq!(snapshot.folded_below, FOLD_FILES);
    assert_eq!(snapshot.history.coverage().len(), u64::from(FOLD_FILES));
    for number in 0..FOLD_FILES {
        fs::remove_file(folder.path().join(format!("part-{number:05}.parquet"))).unwrap();
    }
    let merged = folder.path().join("all.parquet");
    let mut writer = parquet::arrow::ArrowWriter::try_new(
        fs::File::create(&merged).unwrap(),
        Arc::new(schema()),
        None,
    )
    .unwrap();
    writer.write(&batch(0..2).records).unwrap();
    writer.close().unwrap();
    assert_eq!(
        committed(folder.path()).unwrap(),
        format!(r#"{{"a":[[0,{rows}]]}}"#)
    );
    run(sink_with(folder.path(), one), &[batch(rows..rows + 1)]);
    assert!(
        folder
            .path()
            .join(format!("part-{rows:05}.parquet"))
            .exists(),
        "the next file number is kept"
    );
}

#[test]
fn reset_removes_files_and_coverage() {
    let folder = tempfile::tempdir().unwrap();
    run(sink(folder.path()), &[batch(0..5), dropped(5..6)]);
    run(sink(folder.path()), &[dropped(6..7)]);
    let bytes = fs::metadata(folder.path().join("part-00000.parquet"))
        .unwrap()
        .len();
    let counted = sink(folder.path()).reset(false).unwrap();
    assert_eq!(
        counted,
        CommitStats {
            files: 1,
            bytes,
            records: 5
        }
    );
    assert_eq!(committed(folder.path()).unwrap(), r#"{"a":[[0,7]]}"#);
    assert_eq!(sink(folder.path()).reset(true).unwrap(), counted);
    assert_eq!(committed(folder.path()).unwrap(), "{}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn second_writer_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = sink(folder.path());
    first.history().unwrap();
    assert!(
        committed(folder.path())
            .unwrap_err()
            .contains("another sink of this pipeline or of another running pipeline")
    );
    let writer = first.open(identity()).unwrap();
    assert!(sink(folder.path()).open(identity()).is_err());
    drop(writer);
    committed(folder.path()).unwrap();
}

#[test]
fn bytes_do_not_depend_on_memory_layout_of_batches() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let all = batch(0..40).records;
    let slices = [0..10, 10..20, 20..40].map(|rows: Range<u16>| {
        let records = all.slice(rows.start.into(), rows.len());
        Batch {
            records,
            ..batch(rows)
        }
    });
    let small = |config: &mut ParquetSinkConfig| {
        config.row_group.bytes = ByteSize(500);
        config.file.bytes = ByteSize(1500);
    };
    run(
        sink_with(folders[0].path(), small),
        &[batch(0..10), batch(10..20), batch(20..40)],
    );
    run(sink_with(folders[1].path(), small), &slices);
    let bytes = |folder: &tempfile::TempDir| -> Vec<Vec<u8>> {
        data_files(&folder.path().into())
            .unwrap()
            .iter()
            .map(|file| fs::read(file.location.to_path()).unwrap())
            .collect()
    };
    assert!(bytes(&folders[0]).len() > 1);
    assert_eq!(bytes(&folders[0]), bytes(&folders[1]));
}

#[test]
fn all_faults_of_the_options_are_reported() {
    let mut config = ParquetSinkConfig::new(Path::new(""));
    config.columns = Some(vec!["latend".into()]);
    config.row_group.bytes = ByteSize(0);
    let faults = config.sink(&schema()).err().unwrap();
    let found: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.key, fault.message))
        .collect();
    assert_eq!(
        found,
        [
            "path: is empty; expected a folder",
            "row_group.bytes: is 0; expected a size such as \"64MiB\"",
            "columns: no column `latend` (did you mean `latent`?); the input has: source, latent, \
             pixels, image",
        ]
    );
}
