//! Tests of injected read errors: no row is lost or duplicated, and only the affected input is left
//! for the next run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use rustix::io::Errno;

use super::read_sources::{FILES, SOURCES, Source, labeled_rows, write_labeled};
use super::rejects;
use crate::common::outputs::{ids, records};
use crate::common::runs::{errors, latentflow};

/// The preloaded library that injects the errors.
pub static SHIM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/faults/shim.c");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl");
    assert!(compiler.status().unwrap().success());
    (folder, library)
});

/// The call or the position in a file at which the error occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    Stat,
    List,
    First,
    Middle,
    Last,
}

impl At {
    /// The value of `FAULT_AT` for a file of this length.
    fn setting(self, length: u64) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Stat => "stat".to_owned(),
            Self::List => "list".to_owned(),
            Self::First => "0".to_owned(),
            // The footer is half of a small Parquet file.
            Self::Middle => (length / 4).to_string(),
            Self::Last => (length - 1).to_string(),
        }
    }
}

/// Runs the pipeline in `folder`. With a fault, calls on paths that contain its first field fail.
fn run(folder: &Path, arguments: &[&str], fault: Option<(&str, String, Errno)>) -> Output {
    let arguments = [&["run", "p.toml"], arguments].concat();
    let mut command = latentflow(folder, &arguments);
    if let Some((path, at, errno)) = fault {
        command
            .env("LD_PRELOAD", &SHIM.1)
            .env("FAULT_PATH", path)
            .env("FAULT_AT", at);
        command.env("FAULT_ERRNO", errno.raw_os_error().to_string());
    }
    command.output().unwrap()
}

/// The rows of the output; panics on a duplicate.
fn written_rows(folder: &Path) -> BTreeSet<String> {
    let found = records(&folder.join("out"), &["source", "row"]);
    let rows: BTreeSet<String> = ids(&found).into_iter().map(str::to_owned).collect();
    assert_eq!(rows.len(), found.len(), "a row is duplicated");
    rows
}

fn rows_of<'a>(source: &Source, files: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    files.into_iter().flat_map(source.rows).collect()
}

/// One fault in one file of one source.
struct FaultCase {
    source: &'static Source,
    file: &'static str,
    at: At,
    errno: Errno,
}

impl FaultCase {
    /// Runs the pipeline with the fault and once more without it, and checks both results.
    fn check(&self) {
        let Self {
            source,
            file,
            at,
            errno,
        } = self;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        source.write(folder);
        fs::write(folder.join("p.toml"), source.pipeline()).unwrap();
        let place = format!("in/{file}.");
        let length = fs::metadata(source.file(folder, file)).unwrap().len();
        let output = run(folder, &[], Some((&place, at.setting(length), *errno)));
        let (code, text) = (output.status.code(), errors(&output));
        let context = format!(
            "{} {file} {at:?} {errno:?}: {code:?}\n{text}",
            source.options
        );

        let others = rows_of(source, FILES.into_iter().filter(|name| name != file));
        let all = rows_of(source, FILES);
        let rows = written_rows(folder);
        assert!(rows.is_subset(&all), "{context}");
        let is_gone = *errno == Errno::NOENT;
        match *errno {
            Errno::NOENT => {
                assert_eq!(code, Some(0), "{context}");
                assert_eq!(rows, others, "{context}");
            }
            Errno::MFILE | Errno::NOMEM if source.plans_all_files() => {
                assert_eq!(code, Some(1), "the plan reads every file: {context}");
            }
            Errno::MFILE | Errno::NOMEM => {
                assert_eq!(code, Some(1), "{context}");
                assert!(
                    rows.is_superset(&rows_of(
                        source,
                        FILES.into_iter().filter(|name| name < file)
                    )),
                    "{context}"
                );
            }
            _ if code == Some(0) => {
                assert!(matches!(at, At::First | At::Last), "{context}");
                assert_eq!(rows, all, "the source does not read this byte: {context}");
            }
            _ => {
                assert_eq!(code, Some(1), "{context}");
                assert!(rows.is_superset(&others), "{context}");
                assert!(text.contains("the next run retries it"), "{context}");
                assert!(rows != all, "{context}");
            }
        }
        if code != Some(0) {
            assert!(
                text.contains(&place) && text.contains(&errno.to_string()),
                "{context}"
            );
        }
        assert_eq!(
            rejects(folder).lines().count(),
            usize::from(is_gone),
            "{context}"
        );

        let resumed = run(folder, &[], None);
        let context = format!("{context}\nthen {}", errors(&resumed));
        assert_eq!(resumed.status.code(), Some(0), "{context}");
        let resumed_rows = written_rows(folder);
        // A listing of images keeps the row of each image, so the reject of a missing one stays.
        assert!(
            resumed_rows == all || (is_gone && resumed_rows == others && source.extension == "pgm"),
            "{context}"
        );
        assert_eq!(
            rejects(folder).lines().count(),
            usize::from(is_gone),
            "{context}"
        );
    }
}

/// All faults in the second file of each source, and some in the first one, which the plan reads.
fn cases() -> Vec<FaultCase> {
    let opened = [
        Errno::ACCESS,
        Errno::IO,
        Errno::STALE,
        Errno::TIMEDOUT,
        Errno::MFILE,
        Errno::NOMEM,
        Errno::NOENT,
    ];
    let read = [At::First, At::Middle, At::Last]
        .map(|at| [(at, Errno::IO), (at, Errno::STALE)])
        .concat();
    let middle: Vec<(At, Errno)> = opened
        .map(|errno| (At::Open, errno))
        .into_iter()
        .chain(read)
        .chain([(At::Stat, Errno::IO)])
        .collect();
    let first = [
        (At::Open, Errno::IO),
        (At::Middle, Errno::IO),
        (At::Open, Errno::NOENT),
    ];
    let of = |source: &'static Source| {
        let middle = middle.iter().map(move |&(at, errno)| FaultCase {
            source,
            file: "b",
            at,
            errno,
        });
        middle
            .chain(first.map(|(at, errno)| FaultCase {
                source,
                file: "a",
                at,
                errno,
            }))
            .collect::<Vec<_>>()
    };
    SOURCES.iter().flat_map(of).collect()
}

#[test]
fn read_fault_of_any_source_loses_and_duplicates_no_row() {
    let cases = cases();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
            case.check();
        }
    };
    let threads = thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

#[test]
fn records_of_unreadable_labels_are_left_for_the_next_run() {
    let options = "kind = \"idx\"\npath = \"in/images\"\nlabels = \"in/labels\"";
    let pipeline = Source {
        options,
        extension: "",
        content: |_| Vec::new(),
        rows: |_| Vec::new(),
    }
    .pipeline();
    let all: BTreeSet<String> = labeled_rows().into_iter().collect();
    for at in [At::Open, At::First, At::Middle, At::Last] {
        let folder = tempfile::tempdir().unwrap();
        write_labeled(folder.path());
        fs::write(folder.path().join("p.toml"), &pipeline).unwrap();
        let length = fs::metadata(folder.path().join("in/labels")).unwrap().len();
        let output = run(
            folder.path(),
            &[],
            Some(("in/labels", at.setting(length), Errno::IO)),
        );
        assert_eq!(output.status.code(), Some(1), "{at:?}: {}", errors(&output));
        assert!(
            errors(&output).contains("in/labels: Input/output error"),
            "{}",
            errors(&output)
        );
        assert!(written_rows(folder.path()).len() < all.len());
        let resumed = run(folder.path(), &[], None);
        assert_eq!(
            resumed.status.code(),
            Some(0),
            "{at:?}: {}",
            errors(&resumed)
        );
        assert_eq!(
            (written_rows(folder.path()), rejects(folder.path())),
            (all.clone(), String::new())
        );
    }
}

#[test]
fn unlistable_folder_is_named_and_read_by_the_next_run() {
    for source in SOURCES
        .iter()
        .filter(|source| ["csv", "tar", "pgm"].contains(&source.extension))
    {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        source.write(folder);
        fs::create_dir(folder.join("in/sub")).unwrap();
        let hidden = format!("in/sub/b.{}", source.extension);
        fs::rename(source.file(folder, "b"), folder.join(&hidden)).unwrap();
        fs::write(folder.join("p.toml"), source.pipeline()).unwrap();
        let all: BTreeSet<String> = rows_of(source, ["a", "c"])
            .into_iter()
            .chain((source.rows)("sub/b"))
            .collect();
        let fault = || Some(("in/sub", At::List.setting(0), Errno::ACCESS));
        let fails = || {
            let output = run(folder, &[], fault());
            let text = errors(&output);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(
                text.contains("in/sub: Permission denied (os error 13); grant access"),
                "{text}"
            );
            assert_eq!(rejects(folder), "", "{text}");
        };
        fails();
        assert_eq!(written_rows(folder), rows_of(source, ["a", "c"]));
        assert_eq!(run(folder, &[], None).status.code(), Some(0));
        assert_eq!(
            (written_rows(folder), rejects(folder)),
            (all.clone(), String::new())
        );

        // Files that were listed before do not count as removed if their folder is unlistable.
        fs::remove_dir_all(folder.join("out")).unwrap();
        assert_eq!(run(folder, &["--limit", "1"], None).status.code(), Some(0));
        fails();
        assert_eq!(run(folder, &[], None).status.code(), Some(0));
        assert_eq!(
            (written_rows(folder), rejects(folder)),
            (all, String::new())
        );
    }
}

#[test]
fn run_without_readable_files_fails() {
    let source = &SOURCES[0];
    let folder = tempfile::tempdir().unwrap();
    source.write(folder.path());
    fs::write(folder.path().join("p.toml"), source.pipeline()).unwrap();
    let output = run(
        folder.path(),
        &[],
        Some(("in/", At::Open.setting(0), Errno::ACCESS)),
    );
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(
        errors(&output).contains("in/a.csv: Permission denied (os error 13); grant access"),
        "{}",
        errors(&output)
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn summary_counts_unreadable_inputs() {
    let source = &SOURCES[0];
    let folder = tempfile::tempdir().unwrap();
    source.write(folder.path());
    fs::write(folder.path().join("p.toml"), source.pipeline()).unwrap();
    let output = run(
        folder.path(),
        &["--summary", "json"],
        Some(("in/b.", "open".to_owned(), Errno::IO)),
    );
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            summary["unread_inputs"].as_u64(),
            summary["outcome"].as_str()
        ),
        (Some(1), Some("failed"))
    );
}
