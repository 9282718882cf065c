//! Unfinished outputs, journals and trainings of earlier versions: this version reads each of them
//! and goes on with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::leftovers;
use crate::common::outputs::{Record, data_files, files, ids, records};
use crate::common::runs::{errors, latentflow};
use crate::daemon::process::Daemon;

/// The time of every input file, since 1970: by path, size and time it is known which input is
/// done. Git keeps no times.
const TIME: Duration = Duration::from_nanos(1_700_000_000_123_456_700);

/// A copy of what some version left.
struct Left {
    /// The version's folder, and the copy's.
    version: PathBuf,
    name: String,
    root: TempDir,
}

/// What each version left under a name.
fn left(name: &str) -> Vec<Left> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat");
    let versions = all
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join(name).is_dir());
    let found: Vec<_> = versions.map(|version| Left::copy(&version, name)).collect();
    assert!(!found.is_empty(), "no version left `{name}`");
    found
}

impl Left {
    fn copy(version: &Path, name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy_folder(&version.join(name), root.path());
        ["in", "later"]
            .iter()
            .for_each(|folder| settle(&root.path().join(folder)));
        Self {
            version: version.to_path_buf(),
            name: name.to_owned(),
            root,
        }
    }

    /// The same input without any output.
    fn without_output(&self) -> Self {
        let copy = Self::copy(&self.version, &self.name);
        fs::remove_dir_all(copy.path("out")).unwrap();
        copy
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Runs the program here, which must end well; what it printed.
    fn does(&self, arguments: &[&str]) -> String {
        let output = latentflow(self.root.path(), arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}: {arguments:?}: {}",
            self.name,
            errors(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a pipeline to its end; how many records were done before, and how many were read.
    fn run(&self, pipeline: &str) -> (u64, u64) {
        let summary: Value =
            serde_json::from_str(&self.does(&["run", pipeline, "--summary", "json"])).unwrap();
        (
            summary["done_before"].as_u64().unwrap(),
            summary["records"].as_u64().unwrap(),
        )
    }

    /// Moves the input that comes later to the rest.
    fn bring(&self) {
        let later = self.path("later");
        for file in walk(&later) {
            let target = self.path("in").join(file.strip_prefix(&later).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::rename(&file, target).unwrap();
        }
    }

    /// What all outputs hold, rejects among them.
    fn outputs(&self, tables: &[&str]) -> Vec<Vec<Record>> {
        let tables = tables
            .iter()
            .map(|table| records(&self.path(table), &["source", "row"]));
        let rejects = records(
            &self.path(tables_state(&self.root)).join("rejects"),
            &["source", "row", "stage", "code"],
        );
        // The same file may stand in another listing, and reasons are for people.
        let rejects = rejects
            .into_iter()
            .map(|(id, _)| (id, Box::default()))
            .collect();
        let pictures = files(&self.path("out/pictures"));
        tables.chain([rejects, pictures]).collect()
    }
}

/// Where the state of the only pipeline lies.
fn tables_state(root: &TempDir) -> &'static str {
    if root.path().join("out/table").exists() {
        "out/table/_latentflow"
    } else {
        "out/_latentflow"
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn copy_folder(from: &Path, to: &Path) {
    for file in walk(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

fn settle(folder: &Path) {
    for file in walk(folder) {
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(UNIX_EPOCH + TIME)
            .unwrap();
    }
}

fn contents(files: &[PathBuf]) -> BTreeMap<PathBuf, Vec<u8>> {
    files
        .iter()
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect()
}

/// Goes on with an output, with what comes later too, and compares with an output that is made of
/// the same input now.
fn goes_on(left: &Left, tables: &[&str], same: impl Fn(&[Vec<Record>], &[Vec<Record>])) {
    let before = contents(
        &tables
            .iter()
            .flat_map(|table| data_files(&left.path(table)))
            .collect::<Vec<_>>(),
    );
    assert!(!before.is_empty(), "{}: nothing was done", left.name);
    let (done, now) = left.run("p.toml");
    assert!(
        done > 0 && now > 0,
        "{}: {done} done before, {now} now",
        left.name
    );
    left.bring();
    let (before_later, later) = left.run("p.toml");
    assert_eq!(before_later, done + now, "{}", left.name);
    assert_eq!(left.run("p.toml"), (done + now + later, 0), "{}", left.name);
    let kept: Vec<_> = before.keys().cloned().collect();
    assert!(
        contents(&kept) == before,
        "{}: what was done has been changed",
        left.name
    );

    let fresh = left.without_output();
    fresh.bring();
    assert_eq!(fresh.run("p.toml").0, 0);
    let calm = fresh.outputs(tables);
    same(&left.outputs(tables), &calm);
    for table in tables {
        let told = left.does(&["inspect", table]);
        assert!(
            told.contains("digest       sha256:") && told.contains("version      latentflow"),
            "{told}"
        );
        left.does(&["report", table]);
        left.does(&["compact", table]);
        assert_eq!(
            data_files(&left.path(table)).len(),
            1,
            "{}: one writer, under its digests",
            left.name
        );
    }
    left.does(&["compact", &format!("{}/rejects", tables_state(&left.root))]);
    same(&left.outputs(tables), &calm);
    assert_eq!(left.run("p.toml"), (done + now + later, 0), "{}", left.name);
}

fn every_value(found: &[Vec<Record>], wanted: &[Vec<Record>]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(ids(found), ids(wanted));
        assert!(found == wanted, "values differ");
    }
}

/// As [`every_value`], for pictures that an output names as it began to: `a.pgm.png`, not `a.png`.
fn every_value_by_stem(found: &[Vec<Record>], wanted: &[Vec<Record>]) {
    let stem = |name: &str| {
        let name = name.strip_suffix(".png").unwrap_or(name);
        name.strip_suffix(".pgm")
            .or(name.strip_suffix(".png"))
            .unwrap_or(name)
            .to_owned()
    };
    let by_stem = |outputs: &[Vec<Record>]| -> Vec<Vec<Record>> {
        let renamed = |records: &Vec<Record>| {
            records
                .iter()
                .map(|(id, value)| (stem(id), value.clone()))
                .collect()
        };
        outputs.iter().map(renamed).collect()
    };
    every_value(&by_stem(found), &by_stem(wanted));
}

/// Where processors differ in the last bits of what a model gives.
fn every_id(found: &[Vec<Record>], wanted: &[Vec<Record>]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(ids(found), ids(wanted));
    }
}

#[test]
fn outputs_of_each_source_that_ends_are_gone_on_with() {
    for name in [
        "csv", "ndjson", "parquet", "encoded", "idx", "npz", "npy", "arrow", "tar",
    ] {
        left(name)
            .iter()
            .for_each(|left| goes_on(left, &["out"], every_value));
    }
}

/// Replaces texts of a pipeline, each of which must be there.
fn respell(left: &Left, pairs: &[(&str, &str)]) {
    let mut text = fs::read_to_string(left.path("p.toml")).unwrap();
    for (from, to) in pairs {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(left.path("p.toml"), text).unwrap();
}

#[test]
fn pipelines_that_were_tidied_go_on_with_former_outputs() {
    let csv = [
        (
            "path = \"in\"",
            "path = \"./in//\"\nheader = true\ndelimiter = \",\"\ntypes = { b = \"float\" }",
        ),
        (
            "columns = [\"a\", \"b\"]",
            "columns = [\"a\", \"b\"]\nscaling = \"none\"\nto = \"features\"\nwidth = 2",
        ),
        (
            "path = \"out\"",
            "path = \"./out/\"\ncolumns = [\"source\", \"row\", \"id\", \"a\", \"b\", \"word\", \"features\"]\ncompression = \"lz4\"",
        ),
    ];
    let parquet = [
        (
            "path = \"in\"",
            "path = \"in/.\"\ncolumns = [\"id\", \"a\", \"b\", \"word\"]",
        ),
        ("at_least = 0.25", "at_least = 0.250"),
        (
            "drop = [\"a\"]",
            "columns = [\"source\", \"row\", \"id\", \"b\", \"word\"]",
        ),
    ];
    let pixels = [(
        "size = [4, 4]",
        "size = [4, 4]\nrange = [0, 1]\nto = \"pixels\"\nfit = \"stretch\"\nmean = []",
    )];
    for (name, pairs) in [
        ("csv", &csv[..]),
        ("parquet", &parquet[..]),
        ("tar", &pixels[..]),
        ("encoded", &pixels[..]),
    ] {
        for left in left(name) {
            respell(&left, pairs);
            let (done, now) = left.run("p.toml");
            assert!(done > 0 && now > 0, "{name}: {done} done before, {now} now");
            left.does(&["compact", "out"]);
            assert_eq!(data_files(&left.path("out")).len(), 1, "{name}: one writer");
            // The same pipeline, by a path that begins at the root.
            let absolute = format!(
                "path = \"{}\"",
                left.path("in").canonicalize().unwrap().display()
            );
            respell(
                &left,
                &[(
                    pairs[0]
                        .1
                        .split('\n')
                        .next()
                        .filter(|path| path.starts_with("path"))
                        .unwrap_or("path = \"in\""),
                    &absolute,
                )],
            );
            assert_eq!(left.run("p.toml"), (done + now, 0), "{name}");
        }
    }
}

#[test]
fn a_former_output_of_another_meaning_is_refused_by_what_differs() {
    for left in left("csv") {
        respell(
            &left,
            &[
                ("path = \"in\"", "path = \"./in\"\nquote = \"'\""),
                ("keep = true", "keep = true\nto = \"v\""),
            ],
        );
        let output = latentflow(left.root.path(), &["run", "p.toml"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
        let told = errors(&output);
        assert!(told.contains("made otherwise: `quote` of the stage `in` was \"\\\"\" and is \"'\" now, `to` of the stage `vectors` was \"features\" and is \"v\" now;"), "{told}");
    }
}

#[test]
fn listed_images_tables_and_pictures_are_gone_on_with() {
    left("images")
        .iter()
        .for_each(|left| goes_on(left, &["out/table"], every_value_by_stem));
}

#[test]
fn a_folded_history_of_compacted_files_is_gone_on_with() {
    left("folded")
        .iter()
        .for_each(|left| goes_on(left, &["out"], every_value));
}

#[test]
fn rejects_that_were_replayed_in_part_are_replayed_on() {
    left("replay").iter().for_each(|left| {
        let (done, now) = left.run("p.toml");
        assert!(done > 0 && now > 0, "{done} done before, {now} now");
        let fresh = left.without_output();
        fresh.run("p.toml");
        every_value(&left.outputs(&["out"]), &fresh.outputs(&["out"]));
        // All of them again, into a pipeline of today.
        let again = fs::read_to_string(left.path("p.toml"))
            .unwrap()
            .replace("\"out\"", "\"again\"");
        fs::write(left.path("again.toml"), again).unwrap();
        assert_eq!(left.run("again.toml"), (0, done + now));
    });
}

#[test]
fn rows_of_pipelines_that_were_mixed_stay_mixed() {
    left("changed").iter().for_each(|left| {
        let first = left.run("p.toml");
        assert!(first.0 > 0 && first.1 > 0, "{first:?}");
        assert_eq!(
            left.run("first.toml"),
            (first.0 + first.1, 0),
            "both were accepted"
        );
        let read = left.does(&["inspect", "out"]);
        assert!(read.matches("digest       sha256:").count() >= 2, "{read}");
    });
}

#[test]
fn records_that_were_in_flight_at_crashes_run_alone() {
    left("crashed").iter().for_each(|left| {
        let output = latentflow(left.root.path(), &["run", "p.toml", "--log-format", "text"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        assert!(
            errors(&output).contains("2 starts in a row ended"),
            "{}",
            errors(&output)
        );
        left.bring();
        left.run("p.toml");
        let fresh = left.without_output();
        fresh.bring();
        fresh.run("p.toml");
        every_value(&left.outputs(&["out"]), &fresh.outputs(&["out"]));
        assert_eq!(leftovers::unfinished(&left.path("out")), []);
    });
}

/// A daemon that commits what it takes before long; the pipelines commit nothing before they end.
fn daemon(left: &Left) -> Daemon {
    Daemon::start_with(left.root.path(), &[("LATENTFLOW__COMMIT__AGE", "50ms")])
}

/// Waits until all of these are committed, and ends it.
fn stop_with(daemon: Daemon, left: &Left, expected: &[Vec<u64>; 2]) {
    daemon.wait("all rows", || (rows(left) == *expected).then_some(()));
    daemon.stop();
    assert_eq!(rows(left), *expected);
}

/// The rows of a table, and those of its rejects.
fn rows(left: &Left) -> [Vec<u64>; 2] {
    ["out", "out/_latentflow/rejects"].map(|folder| {
        let found = records(&left.path(folder), &["row"]);
        let mut rows: Vec<u64> = ids(&found).iter().map(|row| row.parse().unwrap()).collect();
        rows.sort_unstable();
        rows
    })
}

#[test]
fn requests_that_were_acknowledged_are_taken_and_their_keys_known() {
    left("requests").iter().for_each(|left| {
        respell(left, &[("window = ", "idempotency_window = ")]);
        let line = |n: u32| {
            format!(
                "{}\n",
                json!({ "id": n, "a": f64::from(n) / 4.0, "b": f64::from(n) / 2.0 })
            )
        };
        let body = |numbers: std::ops::Range<u32>| {
            numbers.map(line).collect::<String>().replace(": ", ":")
        };
        let daemon = daemon(left);
        let post = |key: &str, body: &str| {
            let headers = [
                ("Content-Type", "application/x-ndjson"),
                ("Idempotency-Key", key),
            ];
            daemon
                .source()
                .ask("POST", "/v1/records", &headers, body.as_bytes())
        };
        let answer = post("new", &body(20..22));
        assert_eq!((answer.status, &answer.json()["first"]), (202, &13.into()));
        // The same key with another body is a mistake, if the key is known.
        assert_eq!(
            [post("first", "{}\n").status, post("third", "{}\n").status],
            [422, 422]
        );
        stop_with(
            daemon,
            left,
            &[[0..7, 8..15].into_iter().flatten().collect(), vec![7]],
        );
    });
}

#[test]
fn images_that_were_sent_are_taken() {
    left("sent").iter().for_each(|left| {
        let daemon = daemon(left);
        assert_eq!(
            daemon
                .source()
                .post("/v1/records", "image/x", b"P5 4 4 255\n0123456789abcdef")
                .status,
            202
        );
        stop_with(daemon, left, &[vec![0, 1, 2, 4, 5, 6, 7], vec![3]]);
    });
}

#[test]
fn files_that_came_while_a_folder_was_watched_are_taken_once() {
    left("watched").iter().for_each(|left| {
        let daemon = daemon(left);
        left.bring();
        let name =
            |n: &usize| format!("{}/{n:03}.{}", ["cat", "dog"][n % 2], ["pgm", "png"][n % 2]);
        let sorted = |bad: bool| {
            let mut names: Vec<String> = (0..15)
                .filter(|n| (n % 5 == 3) == bad)
                .map(|n| name(&n))
                .collect();
            names.sort();
            names
        };
        let kept = || {
            ["out", "out/_latentflow/rejects"].map(|folder| {
                let found = records(&left.path(folder), &["source"]);
                ids(&found)
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
        };
        let expected = [false, true].map(sorted);
        daemon.wait("all files", || (kept() == expected).then_some(()));
        daemon.stop();
        assert_eq!(kept(), expected);
    });
}

/// Changes a file but for its size and time: whoever reads it sees other values.
fn falsify(file: &Path) {
    let bytes = fs::read(file).unwrap().into_iter();
    let digits = bytes.map(|byte| {
        if byte.is_ascii_digit() {
            b'9' - (byte - b'0')
        } else {
            byte
        }
    });
    fs::write(file, digits.collect::<Vec<_>>()).unwrap();
    File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(UNIX_EPOCH + TIME)
        .unwrap();
}

#[cfg(feature = "train")]
#[test]
fn trainings_go_on_from_their_checkpoints_and_prepared_data() {
    left("trained").iter().for_each(|left| {
        for (name, input) in [("stopped", "in/rows.csv"), ("killed", "in/images.idx")] {
            // What was prepared is used again: this is not read, and would be another training.
            falsify(&left.path(input));
            let file = format!("{name}.toml");
            let arguments = ["train", &file, "--threads", "1", "--log-format", "text"];
            let output = latentflow(left.root.path(), &arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", errors(&output));
            assert!(
                errors(&output).contains("going on"),
                "{name}: {}",
                errors(&output)
            );
            assert!(!left.path(&format!("{name}/.training")).exists());
            left.does(&["inspect", name]);
        }
    });
}

#[test]
fn a_model_goes_on_and_is_measured_by_its_card() {
    left("model").iter().for_each(|left| {
        goes_on(left, &["out"], every_id);
        falsify(&left.path("in/training/rows.csv_"));
        left.does(&[
            "evaluate",
            "models/m",
            "--prepared",
            "prepared",
            "--json",
            "now.json",
        ]);
        let read = |name: &str| {
            serde_json::from_slice::<Value>(&fs::read(left.path(name)).unwrap()).unwrap()
        };
        alike("", &read("evaluation.json"), &read("now.json"));
        left.does(&["report", "models/m", "--prepared", "prepared"]);
        left.does(&["inspect", "models/m"]);
    });
}

/// All that `before` holds is in `now`, numbers but for rounding and times.
fn alike(place: &str, before: &Value, now: &Value) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            before
                .iter()
                .for_each(|(key, value)| alike(&format!("{place}.{key}"), value, &now[key]));
        }
        (Value::Array(before), Value::Array(now)) => {
            assert_eq!(before.len(), now.len(), "{place}");
            before
                .iter()
                .zip(now)
                .for_each(|(before, now)| alike(place, before, now));
        }
        (Value::Number(before), Value::Number(now)) => {
            let (before, now) = (before.as_f64().unwrap(), now.as_f64().unwrap());
            assert!(
                (before - now).abs() <= 1e-3 * before.abs().max(1e-3),
                "{place}: {before}, {now}"
            );
        }
        _ => assert_eq!(before, now, "{place}"),
    }
}
