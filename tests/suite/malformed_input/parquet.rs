//! Tests of Parquet files with broken footers, pages and checksums, and of files that decode to far
//! more than their size.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::Int32Type;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::run::{RunResult, run};
use crate::common::test_data::test_data;

const MEMORY_MEBIBYTES: u64 = 512;

fn read(file: &Path, workers: &str) -> (RunResult, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "[limits]\nmemory = \"{MEMORY_MEBIBYTES}MiB\"\n\
         [stages.in]\nkind = \"parquet\"\npath = {file:?}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         [rejects]\npath = \"bad\"\n"
    );
    let result = run(folder.path(), &pipeline, &["--workers", workers]);
    let written = ["out", "bad"].iter().flat_map(|part| {
        let mut files: Vec<PathBuf> = fs::read_dir(folder.path().join(part))
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| path.is_file())
                    .collect()
            })
            .unwrap_or_default();
        files.sort();
        files.into_iter().map(|path| fs::read(path).unwrap())
    });
    let written = written.collect();
    (result, written)
}

/// A summary of a run: the error, or the numbers of records read and written and the rejects.
fn describe(result: &RunResult, name: &str) -> String {
    match result.code {
        Some(0) => {
            result.assert_complete();
            format!(
                "{} records, {} written, {:?}",
                result.records, result.written, result.rejects
            )
        }
        Some(1 | 2) => {
            let clear = result.log.contains("stages.in")
                || result.log.contains("in: ")
                || result.log.contains("out: ");
            assert!(
                clear && !result.log.contains("panicked"),
                "{name}: {}",
                result.log
            );
            format!("refused: {}", result.log)
        }
        code => panic!("{name}: {code:?}: {}", result.log),
    }
}

#[test]
fn files_of_parquet_testing_are_read_or_refused() {
    let Some(folder) = test_data("bad/parquet-testing") else {
        return;
    };
    let mut files: Vec<PathBuf> = ["data", "data/geospatial", "bad_data"]
        .iter()
        .flat_map(|part| {
            fs::read_dir(folder.join(part))
                .unwrap()
                .map(|entry| entry.unwrap().path())
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "parquet")
        })
        .collect();
    files.sort();
    assert!(files.len() > 60, "{}", files.len());
    let mut complete = 0;
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (one, written) = read(file, "1");
        let description = describe(&one, &name);
        eprintln!("{name}: {} MiB: {}", one.peak >> 20, description.trim_end());
        one.assert_memory_within(MEMORY_MEBIBYTES);
        let (three, written_by_three) = read(file, "3");
        assert_eq!(description, describe(&three, &name), "{name}");
        assert!(written == written_by_three, "{name}: files differ");
        three.assert_memory_within(MEMORY_MEBIBYTES);
        complete += u64::from(one.code == Some(0) && one.written == one.records);
    }
    assert!(
        complete > 45,
        "{complete} of {} files are read completely",
        files.len()
    );
}

#[test]
fn rows_of_pages_with_wrong_checksums_are_rejected() {
    let Some(folder) = test_data("bad/parquet-testing/data") else {
        return;
    };
    for name in [
        "datapage_v1-corrupt-checksum.parquet",
        "rle-dict-uncompressed-corrupt-checksum.parquet",
    ] {
        let (result, _) = read(&folder.join(name), "2");
        result.assert_complete();
        assert!(result.written < result.records, "{name}");
        assert!(
            result
                .rejects
                .iter()
                .all(|reject| reject.reason.contains("CRC")),
            "{name}: {:?}",
            result.rejects
        );
    }
}

#[test]
fn truncated_or_changed_file_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.csv");
    let text: String = (0..200)
        .map(|n| format!("{n},{},word{}\n", f64::from(n) / 7.0, n % 13))
        .collect();
    fs::write(&source, format!("a,b,c\n{text}")).unwrap();
    let pipeline = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n\
        [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n[rejects]\n\
        path = \"bad\"\n";
    run(folder.path(), pipeline, &[]).assert_complete();
    let file = fs::read_dir(folder.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|p| p.is_file());
    let whole = fs::read(file.unwrap()).unwrap();
    let place = folder.path().join("hostile.parquet");
    let mut state = 1_u32;
    for round in 0..60 {
        let mut bytes = whole.clone();
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = (state >> 8) as usize % bytes.len();
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 0xff,
            // The other bytes of the file are only reached through the footer.
            _ => {
                let at = bytes.len() - 8 - at % 1500;
                bytes[at] = bytes[at].wrapping_add(1);
            }
        }
        fs::write(&place, bytes).unwrap();
        let (result, _) = read(&place, "1");
        describe(&result, &format!("round {round}, byte {at}"));
        result.assert_memory_within(MEMORY_MEBIBYTES);
    }
}

fn compressed() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build()
}

fn write_texts(path: &Path, texts: StringArray) {
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(
        File::create(path).unwrap(),
        batch.schema(),
        Some(compressed()),
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn long_dictionary_value_is_decoded_in_small_batches() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.parquet");
    let word = "w".repeat(1 << 19);
    write_texts(
        &file,
        StringArray::from_iter_values(std::iter::repeat_n(word, 1300)),
    );
    assert!(fs::metadata(&file).unwrap().len() < 10_000);
    let (result, _) = read(&file, "2");
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (1300, 1300),
        "{:?}",
        result.rejects
    );
    result.assert_memory_within(MEMORY_MEBIBYTES);
}

#[test]
fn value_larger_than_the_memory_limit_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.parquet");
    write_texts(
        &file,
        StringArray::from_iter_values([&"v".repeat(300 << 20)]),
    );
    let (result, _) = read(&file, "2");
    result.assert_complete();
    assert_eq!((result.records, result.written), (1, 0));
    assert!(
        result.rejects[0]
            .reason
            .contains("decoding the pages takes"),
        "{:?}",
        result.rejects
    );
    result.assert_memory_within(MEMORY_MEBIBYTES);
}

#[test]
fn compressed_list_of_millions_of_items_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.parquet");
    let schema =
        "message m { optional group v (LIST) { repeated group list { optional int32 item; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(&file).unwrap(), schema, Arc::new(compressed()))
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    const ITEMS: usize = 40 << 20;
    let mut in_list = vec![1; ITEMS];
    in_list[0] = 0;
    column
        .typed::<Int32Type>()
        .write_batch(&[], Some(&vec![2; ITEMS]), Some(&in_list))
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    assert!(
        fs::metadata(&file).unwrap().len() < 100_000,
        "{}",
        fs::metadata(&file).unwrap().len()
    );
    let (result, _) = read(&file, "2");
    result.assert_complete();
    assert_eq!((result.records, result.written), (1, 0));
    assert!(
        result.rejects[0].reason.contains("limits.record_bytes"),
        "{:?}",
        result.rejects
    );
    result.assert_memory_within(MEMORY_MEBIBYTES);
}
