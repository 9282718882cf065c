//! Parquet files with footers, pages and checksums that are broken, and one that unpacks to a
//! million times its size.

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

use super::run::{Ran, run};
use crate::common::test_data::test_data;

const MEMORY_MEBIBYTES: u64 = 512;

fn read(file: &Path, workers: &str) -> (Ran, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "[limits]\nmemory = \"{MEMORY_MEBIBYTES}MiB\"\n\
         [stages.in]\nkind = \"parquet\"\npath = {file:?}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         [rejects]\npath = \"bad\"\n"
    );
    let ran = run(folder.path(), &pipeline, &["--workers", workers]);
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
        files.into_iter().map(|file| fs::read(file).unwrap())
    });
    let written = written.collect();
    (ran, written)
}

/// What a file came to, in a line: a fault of the plan, or how many rows there are, kept and
/// refused.
fn verdict(ran: &Ran, name: &str) -> String {
    match ran.code {
        Some(0) => {
            ran.adds_up();
            format!(
                "{} records, {} kept, {:?}",
                ran.records, ran.kept, ran.rejects
            )
        }
        Some(1 | 2) => {
            let clear = ran.log.contains("stages.in")
                || ran.log.contains("in: ")
                || ran.log.contains("out: ");
            assert!(
                clear && !ran.log.contains("panicked"),
                "{name}: {}",
                ran.log
            );
            format!("refused: {}", ran.log)
        }
        code => panic!("{name}: {code:?}: {}", ran.log),
    }
}

#[test]
fn every_good_and_bad_file_of_the_format_s_own_tests_is_read_or_refused_clearly() {
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
    let mut whole = 0;
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (one, written) = read(file, "1");
        let told = verdict(&one, &name);
        eprintln!("{name}: {} MiB: {}", one.peak >> 20, told.trim_end());
        one.took_at_most(MEMORY_MEBIBYTES);
        let (three, written_by_three) = read(file, "3");
        assert_eq!(told, verdict(&three, &name), "{name}");
        assert!(written == written_by_three, "{name}: files differ");
        three.took_at_most(MEMORY_MEBIBYTES);
        whole += u64::from(one.code == Some(0) && one.kept == one.records);
    }
    assert!(
        whole > 45,
        "{whole} of {} files are read as a whole",
        files.len()
    );
}

#[test]
fn a_file_whose_pages_do_not_match_their_checksums_gives_none_of_their_rows() {
    let Some(folder) = test_data("bad/parquet-testing/data") else {
        return;
    };
    for name in [
        "datapage_v1-corrupt-checksum.parquet",
        "rle-dict-uncompressed-corrupt-checksum.parquet",
    ] {
        let (ran, _) = read(&folder.join(name), "2");
        ran.adds_up();
        assert!(ran.kept < ran.records, "{name}");
        assert!(
            ran.rejects
                .iter()
                .all(|reject| reject.reason.contains("CRC")),
            "{name}: {:?}",
            ran.rejects
        );
    }
}

#[test]
fn a_good_file_that_is_cut_or_flipped_anywhere_ends_in_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in.csv");
    let text: String = (0..200)
        .map(|n| format!("{n},{},word{}\n", f64::from(n) / 7.0, n % 13))
        .collect();
    fs::write(&source, format!("a,b,c\n{text}")).unwrap();
    let pipeline = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n\
        [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n[rejects]\npath = \"bad\"\n";
    run(folder.path(), pipeline, &[]).adds_up();
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
            // The footer is what is believed.
            _ => {
                let at = bytes.len() - 8 - at % 1500;
                bytes[at] = bytes[at].wrapping_add(1);
            }
        }
        fs::write(&place, bytes).unwrap();
        let (ran, _) = read(&place, "1");
        verdict(&ran, &format!("round {round}, byte {at}"));
        ran.took_at_most(MEMORY_MEBIBYTES);
    }
}

fn packed() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build()
}

fn write_texts(path: &Path, texts: StringArray) {
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(packed())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_long_word_that_a_dictionary_repeats_is_decoded_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.parquet");
    let word = "w".repeat(1 << 19);
    write_texts(
        &file,
        StringArray::from_iter_values(std::iter::repeat_n(word, 1300)),
    );
    assert!(fs::metadata(&file).unwrap().len() < 10_000);
    let (ran, _) = read(&file, "2");
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (1300, 1300), "{:?}", ran.rejects);
    ran.took_at_most(MEMORY_MEBIBYTES);
}

#[test]
fn a_value_that_is_larger_than_the_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.parquet");
    write_texts(
        &file,
        StringArray::from_iter_values([&"v".repeat(300 << 20)]),
    );
    let (ran, _) = read(&file, "2");
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (1, 0));
    assert!(
        ran.rejects[0].reason.contains("must be held at once"),
        "{:?}",
        ran.rejects
    );
    ran.took_at_most(MEMORY_MEBIBYTES);
}

#[test]
fn a_list_of_millions_that_takes_a_few_bytes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.parquet");
    let schema =
        "message m { optional group v (LIST) { repeated group list { optional int32 item; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(&file).unwrap(), schema, Arc::new(packed()))
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
    let (ran, _) = read(&file, "2");
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (1, 0));
    assert!(
        ran.rejects[0].reason.contains("limits.record_bytes"),
        "{:?}",
        ran.rejects
    );
    ran.took_at_most(MEMORY_MEBIBYTES);
}
