//! What a crash, a disk or a person did to the output between two runs.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;

use super::blocked_sink::BlockedRun;
use super::{COPY, assert_all_rows, assert_failed, assert_goes_on, folder_with_rows};
use crate::common::inputs;
use crate::common::outputs::data_files;
use crate::common::runs::{errors, run};

/// A folder whose rows are copied up to `limit`.
fn begun(limit: &str) -> tempfile::TempDir {
    let folder = folder_with_rows();
    let (output, _) = run(folder.path(), COPY, &["--limit", limit]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    folder
}

fn second_file(folder: &Path) -> PathBuf {
    data_files(&folder.join("out")).swap_remove(1)
}

#[test]
fn a_truncated_file_of_ours_is_named_and_once_it_is_removed_its_rows_are_done_anew() {
    let folder = begun("500");
    let file = second_file(folder.path());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: out: out/part-00001.parquet: this is no whole Parquet file: Parquet error: Invalid Parquet file. Corrupt footer; restore or remove it"
        ],
    );
    fs::write(&file, "").unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: out: out/part-00001.parquet: this is no whole Parquet file: EOF: Parquet file too small. Size is 0 but need 8; restore or remove it"
        ],
    );
    fs::remove_file(&file).unwrap();
    assert_goes_on(folder.path(), COPY);
    assert_all_rows(folder.path());
}

#[test]
fn a_file_of_ours_with_a_damaged_footer_is_named() {
    let folder = begun("500");
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
            "latentflow: out: out/part-00001.parquet: this is no whole Parquet file: Parquet error: Empty struct has fields; restore or remove it"
        ],
    );
}

#[test]
fn what_a_crash_left_half_written_is_removed_and_nothing_else() {
    let folder = begun("500");
    let out = folder.path().join("out");
    let (half, theirs) = (
        out.join(".latentflow-part-00009.parquet.tmp"),
        out.join(".theirs.tmp"),
    );
    let reject = out.join("_latentflow/rejects/.latentflow-part-00000.parquet.tmp");
    [&half, &theirs, &reject]
        .into_iter()
        .for_each(|path| fs::write(path, "half").unwrap());
    assert_goes_on(folder.path(), COPY);
    assert!(!half.exists() && !reject.exists() && theirs.exists());
    assert_all_rows(folder.path());
}

#[test]
fn a_damaged_marker_is_named() {
    let folder = folder_with_rows();
    let nothing = COPY.replace(
        "[stages.out]",
        "[stages.none]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"b\"\nabove = 2\n[stages.out]",
    );
    let nothing = nothing.replace(
        "kind = \"parquet\"\ninputs = [\"in\"]",
        "kind = \"parquet\"\ninputs = [\"none\"]",
    );
    assert_goes_on(folder.path(), &nothing);
    let marker = folder.path().join("out/_latentflow/coverage.json");
    let text = fs::read(&marker).unwrap();
    fs::write(&marker, &text[..1]).unwrap();
    let (output, _) = run(folder.path(), &nothing, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: out: out/_latentflow/coverage.json: this is no marker of ours: EOF while parsing an object at line 1 column 1; restore or remove it"
        ],
    );
}

#[test]
fn a_damaged_journal_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 40);
    assert_goes_on(folder.path(), BlockedRun::PIPELINE);
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
            "latentflow: files: out/_latentflow/listings/files-0.ndjson:40: this is no line of a listing: EOF while parsing an object at line 1 column 1; restore the file, or begin anew"
        ],
    );
}
