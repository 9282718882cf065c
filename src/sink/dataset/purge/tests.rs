//! Tests of purging.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::batch::Batch;
use crate::batch::provenance::{Provenance, Split};
use crate::batch::reject::RejectCode;
use crate::coverage::Coverage;
use crate::sink::dataset::data_files::data_files;
use crate::sink::dataset::rejects::RejectEntry;
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::source::rejects::format::OriginalFormat;

/// The original of a reject, which is unique and not compressible.
fn original(row: u64) -> Vec<u8> {
    let mut bytes = vec![0; 300];
    ChaCha8Rng::seed_from_u64(row).fill_bytes(&mut bytes);
    bytes
}

fn purge(folder: &Path, filter: &PurgeFilter, dry: bool) -> Result<PurgeSummary, StageError> {
    super::purge(folder, filter, dry, &mut |_, _| {})
}

const SOURCES: [&str; 4] = ["a/1.jpg", "a/2.jpg", "b/[1].jpg", "b/none.jpg"];

/// Writes three files of four rejects each, of which the last has no original.
fn dataset(folder: &Path) {
    let sink = crate::sink::dataset::rejects::plan(&folder.into()).unwrap();
    let mut writer = sink
        .open(OutputIdentity {
            digest: "d".into(),
            ..OutputIdentity::default()
        })
        .unwrap();
    for file in 0..3_u64 {
        let originals: Vec<Vec<u8>> = (0..4).map(|row| original(file * 4 + row)).collect();
        let entries =
            SOURCES
                .iter()
                .zip(&originals)
                .zip(0_u64..)
                .map(|((source, original), row)| RejectEntry {
                    source,
                    row: 0,
                    split: "photos/listing-0",
                    split_row: file * 10 + row,
                    stage: "pixels",
                    code: RejectCode::Malformed,
                    reason: "not an image",
                    records: 1,
                    record: (row < 3).then_some((OriginalFormat::Image, original.as_slice())),
                });
        let records = crate::sink::dataset::rejects::records(&entries.collect::<Vec<_>>()).unwrap();
        let rows = file * 10..file * 10 + 10;
        let provenance = Arc::new(Provenance::rows(Split::new("photos/listing-0"), rows));
        writer
            .write(&Batch {
                records,
                row_ordinals: vec![0, 1, 2, 3],
                provenance,
            })
            .unwrap();
        writer.commit().unwrap();
    }
}

/// The rows of the twelve originals that occur in any file below the folder.
fn traces(folder: &Path) -> Vec<u64> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap);
    let files = files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| fs::read(entry.path()).unwrap());
    let all = files.collect::<Vec<_>>().concat();
    (0..12)
        .filter(|&row| {
            all.windows(32)
                .any(|window| window == &original(row)[100..132])
        })
        .collect()
}

fn coverage(folder: &Path) -> Coverage {
    let mut all = Coverage::default();
    for file in data_files(&folder.into()).unwrap() {
        all.union(&file.footer().unwrap().unwrap().coverage);
    }
    all
}

/// The source, the reason and the presence of the original of all rows.
fn rows(folder: &Path) -> Vec<(String, String, bool)> {
    let mut rows = Vec::new();
    for file in data_files(&folder.into()).unwrap() {
        let found = RewriteCandidate::read(file).unwrap().unwrap();
        let read = found.file.read(None, |records| {
            let text = |name: &str, row| {
                records
                    .column_by_name(name)
                    .unwrap()
                    .as_string::<i32>()
                    .value(row)
                    .to_owned()
            };
            let columns = RejectColumns::from_batch(&records)?;
            for row in 0..records.num_rows() {
                let has_original = columns.record.is_valid(row);
                assert_eq!(has_original, columns.format.is_valid(row));
                rows.push((text("source", row), text("reason", row), has_original));
            }
            Ok(())
        });
        read.unwrap().unwrap();
    }
    rows
}

fn filter_by(source: &str) -> PurgeFilter {
    PurgeFilter {
        source: Some(SourcePattern::new(source).unwrap()),
        before: None,
    }
}

#[test]
fn originals_of_a_source_are_removed_and_rows_stay() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let (before, covered) = (rows(folder.path()), coverage(folder.path()));
    assert_eq!(traces(folder.path()), [0, 1, 2, 4, 5, 6, 8, 9, 10]);
    fs::write(
        folder.path().join(".latentflow-part-00003.parquet.tmp"),
        original(0),
    )
    .unwrap();
    let mut progress = Vec::new();
    let mut on_progress = |done, total| progress.push((done, total));
    let dry = super::purge(folder.path(), &filter_by("a/*.jpg"), true, &mut on_progress).unwrap();
    assert!(
        progress
            .last()
            .is_some_and(|&(done, total)| done == total && total > 0),
        "{progress:?}"
    );
    assert_eq!(
        dry,
        PurgeSummary {
            rejects: 12,
            originals: 6,
            bytes: 1800,
            files: 3,
            left: Vec::new()
        }
    );
    assert_eq!(traces(folder.path()).len(), 9);
    assert_eq!(
        purge(folder.path(), &filter_by("a/*.jpg"), false).unwrap(),
        dry
    );
    assert_eq!(traces(folder.path()), [2, 6, 10]);
    let left = before.iter().map(|(source, reason, has)| {
        (source.clone(), reason.clone(), *has && source == SOURCES[2])
    });
    assert_eq!(rows(folder.path()), left.collect::<Vec<_>>());
    assert_eq!(coverage(folder.path()), covered);
    assert_eq!(
        purge(folder.path(), &filter_by("a/*.jpg"), false)
            .unwrap()
            .originals,
        0
    );
    // A name that is also a glob of other names matches itself.
    assert_eq!(
        purge(folder.path(), &filter_by("b/[1].jpg"), false)
            .unwrap()
            .originals,
        3
    );
    assert_eq!(
        (traces(folder.path()), coverage(folder.path())),
        (Vec::new(), covered)
    );
}

#[test]
fn originals_of_older_files_are_removed_and_times_stay() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let day = |day: u64| UNIX_EPOCH + Duration::from_secs(day * 86400);
    let paths: Vec<_> = (0..3)
        .map(|number| folder.path().join(format!("part-{number:05}.parquet")))
        .collect();
    for (path, number) in paths.iter().zip(1..) {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(day(number))
            .unwrap();
    }
    let filter = PurgeFilter {
        before: Some(day(3)),
        source: Some(SourcePattern::new("a/1.jpg").unwrap()),
    };
    assert_eq!(purge(folder.path(), &filter, false).unwrap().originals, 2);
    assert_eq!(traces(folder.path()), [1, 2, 5, 6, 8, 9, 10]);
    let by_time = PurgeFilter {
        before: Some(day(2)),
        source: None,
    };
    assert_eq!(purge(folder.path(), &by_time, false).unwrap().originals, 2);
    assert_eq!(traces(folder.path()), [5, 6, 8, 9, 10]);
    let times: Vec<_> = paths
        .iter()
        .map(|path| fs::metadata(path).unwrap().modified().unwrap())
        .collect();
    assert_eq!(times, [day(1), day(2), day(3)]);
}

#[test]
fn files_without_rejects_are_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let truncated = folder.path().join("part-00001.parquet");
    fs::write(&truncated, &fs::read(&truncated).unwrap()[..100]).unwrap();
    let purged = purge(folder.path(), &filter_by("**"), false).unwrap();
    assert_eq!((purged.originals, purged.left.len()), (6, 1));
    assert!(
        purged.left[0].contains("part-00001.parquet: invalid or truncated Parquet file"),
        "{:?}",
        purged.left
    );
    assert_eq!(fs::metadata(&truncated).unwrap().len(), 100);

    let other = tempfile::tempdir().unwrap();
    let records =
        RecordBatch::try_from_iter([("x", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)])
            .unwrap();
    let mut config = crate::sink::parquet::config::ParquetSinkConfig::new(other.path());
    let mut writer = config
        .sink(&records.schema())
        .unwrap()
        .open(OutputIdentity::default())
        .unwrap();
    writer
        .write(&Batch::new(
            records,
            Provenance::rows(Split::new("x"), 0..1),
        ))
        .unwrap();
    writer.commit().unwrap();
    drop(writer);
    let error = purge(other.path(), &filter_by("**"), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a file of rejects"), "{error}");
}

#[test]
fn purge_during_a_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path());
    let lock = FileLock::acquire(folder.path()).unwrap();
    let error = purge(folder.path(), &filter_by("**"), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("another sink of this pipeline or of another running pipeline"),
        "{error}"
    );
    drop(lock);
    purge(folder.path(), &filter_by("**"), false).unwrap();
    assert!(traces(folder.path()).is_empty() && folder.path().join(STATE_DIR).exists());
}
