//! Tests of a full disk and of a limit on the size of files.

use std::fs;
use std::process::Command;

use expect_test::expect;

use super::{COPY, assert_all_rows, assert_failed, assert_finishes, folder_with_rows};

use crate::common::leftovers::unfinished;
use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow_by};
use serde_json::Value;

#[test]
fn file_size_limit_ends_the_run_and_the_next_continues() {
    let folder = folder_with_rows();
    // A file of 500 records exceeds the limit; files of 100 records do not.
    let growing = COPY.replace(
        "file.records = 100",
        "file.records = 100\ncompression = \"none\"",
    );
    fs::write(
        folder.path().join("p.toml"),
        growing.replace("records = 100", "records = 500"),
    )
    .unwrap();
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"];
    let output = latentflow_by(
        &limited,
        folder.path(),
        &["run", "p.toml", "--summary", "none"],
    )
    .output()
    .unwrap();
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[disk_full]: out: out/part-00000.parquet: File too large (os error 27); raise the \
             limit on the size of files (ulimit -f) or lower `file.bytes`, then run again; \
             committed records are kept"
        ],
    );
    assert_eq!(data_files(&folder.path().join("out")).len(), 0);
    assert_finishes(folder.path(), &growing);
    assert_eq!(unfinished(folder.path()), []);
    assert_all_rows(folder.path());
}

#[test]
fn failed_run_has_its_code_in_the_json_log_and_summary() {
    let folder = folder_with_rows();
    let large = COPY.replace(
        "file.records = 100",
        "file.records = 500\ncompression = \"none\"",
    );
    fs::write(folder.path().join("p.toml"), large).unwrap();
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"];
    let arguments = ["run", "p.toml", "--summary", "json", "--log-format", "json"];
    let output = latentflow_by(&limited, folder.path(), &arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["outcome"], "failed");
    assert_eq!(summary["error"]["stage"], "out");
    assert_eq!(summary["error"]["code"], "disk_full");
    let text = errors(&output);
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
    assert_eq!(last["fields"]["code"], "disk_full");
}

#[test]
fn full_disk_ends_the_run_and_the_next_continues_with_space() {
    let mounts = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "skipped: only root may mount a small file system, if the system allows it at all"
        );
        return;
    }
    let folder = folder_with_rows();
    fs::create_dir(folder.path().join("small")).unwrap();
    fs::write(
        folder.path().join("p.toml"),
        COPY.replace("\"out\"", "\"small/out\""),
    )
    .unwrap();
    let script = "mount -t tmpfs -o size=20k tmpfs small && { \
                  \"$@\"; first=$?; ls -A small/out >first; \
                  mount -o remount,size=8m small && \"$@\" 2>second; \
                  echo $first $? >codes; cp -r small/out out; }";
    let mounted = ["unshare", "-m", "sh", "-c", script, "sh"];
    let output = latentflow_by(
        &mounted,
        folder.path(),
        &["run", "p.toml", "--summary", "none"],
    )
    .output()
    .unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        read("codes"),
        "1 0\n",
        "{} {}",
        errors(&output),
        read("second")
    );
    let visible = read("first")
        .lines()
        .filter(|name| !name.starts_with(['.', '_']))
        .count();
    assert!(
        visible > 0,
        "expected the files that were complete before the disk was full"
    );
    let message = errors(&output);
    let message = message
        .lines()
        .find(|line| line.starts_with("latentflow: "))
        .unwrap();
    expect![
        "latentflow: error[disk_full]: out: small/out/part-NNNNN.parquet: No space left on device (os error NN); \
             free disk space or write to another path, then run again; committed records are \
             kept"
    ]
    .assert_eq(&message.replace(|digit: char| digit.is_ascii_digit(), "N"));
    assert_all_rows(folder.path());
    assert_eq!(unfinished(&folder.path().join("out")), []);
}
