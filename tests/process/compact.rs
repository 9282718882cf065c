//! Tests of `compact`: small files become large ones with the same records in the same order, and
//! later runs continue as if no compaction had happened.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use parquet::file::reader::{FileReader as _, SerializedFileReader};

use crate::common::outputs::{Record, data_files, records};
use crate::common::runs::{errors, latentflow};
use crate::common::scenarios::{self, Site};

const SIGABRT: i32 = 6;

fn compact(root: &Path, arguments: &[&str]) -> Output {
    latentflow(root, &[&["compact"], arguments].concat())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A site whose run has ended, and its output.
fn site() -> (Site, Vec<Vec<Record>>) {
    let site = Site::new(scenarios::many_files());
    let calm = site.finish("out");
    (site, calm)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The number of rows of each file.
fn rows(folder: &Path) -> Vec<i64> {
    let count = |path: &PathBuf| {
        let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        file.metadata().file_metadata().num_rows()
    };
    data_files(folder).iter().map(count).collect()
}

#[test]
fn compaction_merges_files_and_the_next_run_adds_nothing() {
    let (site, calm) = site();
    let folder = site.root().join("out/all");
    let (files, before) = (data_files(&folder), rows(&folder));
    assert!(
        files.len() > 256,
        "{} files are too few for their footers to be folded",
        files.len()
    );
    let dry = stdout(&compact(site.root(), &["out/all", "--dry-run"]));
    assert!(dry.contains("would be merged into 1 file"), "{dry}");
    assert_eq!(data_files(&folder), files);
    let text = stdout(&compact(site.root(), &["out/all"]));
    assert!(
        text.contains(&format!("out/all: {} files", files.len()))
            && text.contains("merged into 1 file"),
        "{text}"
    );
    // The merged file has the name of the last, so the number of the next file is unaffected.
    assert_eq!(data_files(&folder), files[files.len() - 1..]);
    assert_eq!(rows(&folder), [before.iter().sum::<i64>()]);
    assert_eq!(records(&folder, &["source", "row"]), calm[0]);
    let names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");

    let output = site
        .command(&site.scenario.pipeline, "out", 2)
        .args(["--summary", "json"])
        .output()
        .unwrap();
    site.assert_done(output.status);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["records"], 0, "{summary}");
    let again = stdout(&compact(site.root(), &["out/all"]));
    assert!(again.contains("nothing to merge"), "{again}");
    site.finish_as("out", &calm);
}

#[test]
fn files_reach_the_target_size_and_larger_ones_are_not_copied() {
    let (site, calm) = site();
    let folder = site.root().join("out/all");
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    let small = data_files(&folder).iter().map(size).max().unwrap();
    let target = format!("{}B", 10 * small);
    stdout(&compact(site.root(), &["out/all", "--target", &target]));
    let files = data_files(&folder);
    assert!((20..60).contains(&files.len()), "{} files", files.len());
    assert!(
        files.iter().map(size).all(|bytes| bytes <= 10 * small),
        "a file is larger than {target}"
    );
    let times = |paths: &[PathBuf]| -> Vec<_> {
        paths
            .iter()
            .map(|path| path.metadata().unwrap().modified().unwrap())
            .collect()
    };
    let before = times(&files);
    // Files that have reached the target size stay unchanged.
    stdout(&compact(
        site.root(),
        &["out/all", "--target", &format!("{small}B")],
    ));
    assert_eq!(
        (data_files(&folder), times(&files)),
        (files.clone(), before)
    );
    assert_eq!(records(&folder, &["source", "row"]), calm[0]);
    site.finish_as("out", &calm);
}

#[test]
fn crash_at_any_step_loses_and_duplicates_no_record() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    let (site, calm) = site();
    let steps = [
        ("written", 2),
        ("closed", 1),
        ("synced", 2),
        ("renamed", 1),
        ("durable", 2),
        ("atomic-written", 1),
        ("atomic-synced", 2),
        ("atomic-renamed", 1),
        ("exchange-noted", 2),
        ("exchange-renamed", 1),
        ("exchange-removed", 1),
        ("exchange-removed", 30),
        ("exchange-cleared", 2),
    ];
    let small = data_files(&site.root().join("out/all"))
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .max();
    let target = format!("{}B", 100 * small.unwrap());
    for (step, passing) in steps {
        let out = format!("{step}-{passing}");
        let place = format!("{out}/all");
        copy_folder(&site.root().join("out"), &site.root().join(&out));
        let mut command = latentflow(site.root(), &["compact", &place, "--target", &target]);
        let output = command
            .env("LATENTFLOW_CRASH_AT", format!("{step}:{passing}"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(SIGABRT),
            "the crash point `{step}` is not reached {passing} times"
        );
        // After the first passing, a run follows before the next compaction.
        if passing == 1 {
            site.run(&site.scenario.pipeline, &out);
            assert_eq!(
                records(&site.root().join(&place), &["source", "row"]),
                calm[0],
                "{step}"
            );
        }
        stdout(&compact(site.root(), &[&place, "--target", &target]));
        assert!(data_files(&site.root().join(&place)).len() < 10);
        site.finish_as(&out, &calm);
    }
}

#[test]
fn unreadable_files_are_named_and_left_unchanged() {
    let (site, _) = site();
    let folder = site.root().join("out/all");
    let files = data_files(&folder);
    let (truncated, damaged) = (&files[40], &files[80]);
    fs::write(truncated, &fs::read(truncated).unwrap()[..200]).unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    bytes[10..60].fill(0xff);
    fs::write(damaged, bytes).unwrap();
    let output = compact(site.root(), &["out/all"]);
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    for broken in [truncated, damaged] {
        let name = broken.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name), "{name} is not named: {text}");
        assert!(broken.exists());
    }
    assert!(
        text.contains("files that cannot be read and were not merged: 2;"),
        "{text}"
    );
    // The files before, between and after the two are merged.
    assert!(data_files(&folder).len() <= 5, "{:?}", data_files(&folder));
}

#[test]
fn concurrent_compaction_or_missing_folder_is_refused() {
    let (site, _) = site();
    let lock = site.root().join("out/all/_latentflow/compact-lock");
    let held = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)
        .unwrap();
    held.lock().unwrap();
    let concurrent = compact(site.root(), &["out/all"]);
    assert!(
        concurrent.status.code() == Some(1)
            && errors(&concurrent)
                .contains("another compaction or purge of this folder is running")
    );
    drop(held);
    for (place, reason) in [
        (
            "s3://bucket/prefix",
            "s3://bucket/prefix: cannot compact a bucket, only a local folder",
        ),
        ("nowhere", "nowhere: no such folder"),
    ] {
        let output = compact(site.root(), &[place]);
        assert!(
            output.status.code() == Some(1) && errors(&output).contains(reason),
            "{}",
            errors(&output)
        );
    }
    let output = compact(site.root(), &["out/all", "--target", "12"]);
    assert!(
        output.status.code() == Some(2) && errors(&output).contains("`12` has no unit"),
        "{}",
        errors(&output)
    );
}

#[test]
fn small_files_next_to_a_large_one_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..12_000_u64)
        .map(|row| format!("{row},{}\n", row * 2_654_435_761 % (1 << 32)))
        .collect();
    fs::write(folder.path().join("in.csv"), format!("a,b\n{lines}")).unwrap();
    let pipeline = "[stages.rows]\nkind = \"csv\"\npath = \"in.csv\"\n[stages.out]\n\
                    kind = \"parquet\"\n\
                    inputs = [\"rows\"]\npath = \"out\"\nfile = { records = 100 }\n";
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let out = folder.path().join("out");
    let run = |limit: &str| {
        let output = latentflow(folder.path(), &["run", "p.toml", "--limit", limit])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", errors(&output));
    };
    run("11000");
    assert_eq!(rows(&out), vec![100; 110]);
    stdout(&compact(folder.path(), &["out"]));
    assert_eq!(rows(&out), [11_000]);
    run("500");
    let dry = stdout(&compact(folder.path(), &["out", "--dry-run"]));
    assert!(
        dry.contains("6 files") && dry.contains("would be merged into 2 files"),
        "{dry}"
    );
    stdout(&compact(folder.path(), &["out"]));
    assert_eq!(
        rows(&out),
        [11_000, 500],
        "the large file exceeds the others together and stays unchanged"
    );
    assert!(stdout(&compact(folder.path(), &["out"])).contains("nothing to merge"));
    run("500");
    assert_eq!(rows(&out), [vec![11_000, 500], vec![100; 5]].concat());
    stdout(&compact(folder.path(), &["out", "--records", "250"]));
    assert_eq!(
        rows(&out),
        [11_000, 500, 200, 200, 100],
        "`--records` limits the size of a file"
    );
    stdout(&compact(folder.path(), &["out"]));
    assert_eq!(rows(&out), [11_000, 1000]);
}
