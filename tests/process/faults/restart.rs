//! Tests of runs whose output was damaged by a crash, a disk or a person since the last run.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;

use super::blocked_sink::BlockedRun;
use super::{COPY, assert_all_rows, assert_failed, assert_finishes, folder_with_rows};
use crate::common::inputs;
use crate::common::outputs::data_files;
use crate::common::runs::{errors, run};

/// A folder with an output of the first `limit` rows.
fn partial_output(limit: &str) -> tempfile::TempDir {
    let folder = folder_with_rows();
    let (output, _) = run(folder.path(), COPY, &["--limit", limit]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    folder
}

fn second_file(folder: &Path) -> PathBuf {
    data_files(&folder.join("out")).swap_remove(1)
}

#[test]
fn truncated_output_file_is_named_and_rewritten_once_removed() {
    let folder = partial_output("500");
    let file = second_file(folder.path());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[dataset_corrupt]: out: out/part-00001.parquet: invalid or truncated Parquet file: Parquet \
             error: Invalid Parquet file. Corrupt footer; restore or remove it"
        ],
    );
    fs::write(&file, "").unwrap();
    let (rerun, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &rerun,
        &expect![
            "latentflow: error[dataset_corrupt]: out: out/part-00001.parquet: invalid or truncated Parquet file: EOF: \
             Parquet file too small. Size is 0 but need 8; restore or remove it"
        ],
    );
    fs::remove_file(&file).unwrap();
    assert_finishes(folder.path(), COPY);
    assert_all_rows(folder.path());
}

#[test]
fn output_file_with_damaged_footer_is_named() {
    let folder = partial_output("500");
    let file = second_file(folder.path());
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.len() - 20;
    bytes[place..]
        .iter_mut()
        .take(8)
        .for_each(|byte| *byte ^= 0xff);
    fs::write(&file, bytes).unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[dataset_corrupt]: out: out/part-00001.parquet: invalid or truncated Parquet file: Parquet \
             error: Empty struct has fields; restore or remove it"
        ],
    );
}

#[test]
fn only_own_temporary_files_are_removed() {
    let folder = partial_output("500");
    let out = folder.path().join("out");
    let (half, theirs) = (
        out.join(".latentflow-part-00009.parquet.tmp"),
        out.join(".theirs.tmp"),
    );
    let reject = out.join("_latentflow/rejects/.latentflow-part-00000.parquet.tmp");
    [&half, &theirs, &reject]
        .into_iter()
        .for_each(|path| fs::write(path, "half").unwrap());
    assert_finishes(folder.path(), COPY);
    assert!(!half.exists() && !reject.exists() && theirs.exists());
    assert_all_rows(folder.path());
}

#[test]
fn damaged_coverage_snapshot_is_named() {
    let folder = folder_with_rows();
    let nothing = COPY.replace(
        "[stages.out]",
        "[stages.none]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"b\"\nabove = 2\n\
         [stages.out]",
    );
    let nothing = nothing.replace(
        "kind = \"parquet\"\ninputs = [\"in\"]",
        "kind = \"parquet\"\ninputs = [\"none\"]",
    );
    assert_finishes(folder.path(), &nothing);
    let marker = folder.path().join("out/_latentflow/coverage.json");
    let text = fs::read(&marker).unwrap();
    fs::write(&marker, &text[..1]).unwrap();
    let (output, _) = run(folder.path(), &nothing, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[state_corrupt]: out: out/_latentflow/coverage.json: invalid coverage snapshot: EOF while \
             parsing an object at line 1 column 1; restore or remove it"
        ],
    );
}

#[test]
fn damaged_listing_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 40);
    assert_finishes(folder.path(), BlockedRun::PIPELINE);
    let journal = folder
        .path()
        .join("out/_latentflow/listings/files-0.ndjson");
    let text = fs::read_to_string(&journal).unwrap();
    let last = text.rfind('{').unwrap();
    fs::write(&journal, &text[..=last]).unwrap();
    let (output, _) = run(folder.path(), BlockedRun::PIPELINE, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[state_corrupt]: files: out/_latentflow/listings/files-0.ndjson:40: invalid journal entry: \
             EOF while parsing an object at line 1 column 1; restore the file, or delete the output \
             and the state with `latentflow reset`"
        ],
    );
}
