//! Tests of unfinished outputs, journals and trainings of earlier versions: this version reads each
//! of them and continues it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::leftovers;
use crate::common::outputs::{Record, data_files, files, ids, records};
use crate::common::runs::{errors, latentflow};
use crate::daemon::daemon_process::Daemon;

/// The modification time of every input file, since 1970. A run recognizes finished input by path,
/// size and time, and Git does not store times.
const TIME: Duration = Duration::from_nanos(1_700_000_000_123_456_700);

/// A copy of a site that an earlier version left.
struct OldSite {
    /// The folder of the version.
    version: PathBuf,
    name: String,
    root: TempDir,
}

/// The sites of this name of all versions.
fn old_sites(name: &str) -> Vec<OldSite> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat");
    let versions = all
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join(name).is_dir());
    let found: Vec<_> = versions
        .map(|version| OldSite::copy(&version, name))
        .collect();
    assert!(!found.is_empty(), "no version has a site `{name}`");
    found
}

impl OldSite {
    /// Copies the site `name` of a version, and sets the times of its input.
    fn copy(version: &Path, name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy_folder(&version.join(name), root.path());
        ["in", "later"]
            .iter()
            .for_each(|folder| set_times(&root.path().join(folder)));
        Self {
            version: version.to_path_buf(),
            name: name.to_owned(),
            root,
        }
    }

    /// A copy of the site without its output.
    fn without_output(&self) -> Self {
        let copy = Self::copy(&self.version, &self.name);
        fs::remove_dir_all(copy.path("out")).unwrap();
        copy
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Runs the program in the site and asserts that it succeeds; returns its standard output.
    fn execute(&self, arguments: &[&str]) -> String {
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

    /// Runs a pipeline to its end; returns the numbers of records done before and of records read.
    fn run(&self, pipeline: &str) -> (u64, u64) {
        let summary: Value =
            serde_json::from_str(&self.execute(&["run", pipeline, "--summary", "json"])).unwrap();
        (
            summary["done_before"].as_u64().unwrap(),
            summary["records"].as_u64().unwrap(),
        )
    }

    /// Moves the input that arrives later to the rest.
    fn add_later_input(&self) {
        let later = self.path("later");
        for file in walk(&later) {
            let target = self.path("in").join(file.strip_prefix(&later).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::rename(&file, target).unwrap();
        }
    }

    /// The records of all outputs, rejects included.
    fn outputs(&self, tables: &[&str]) -> Vec<Vec<Record>> {
        let tables = tables
            .iter()
            .map(|table| records(&self.path(table), &["source", "row"]));
        let rejects = records(
            &self.path(state_folder(&self.root)).join("rejects"),
            &["source", "row", "stage", "code"],
        );
        // The splits and the reasons of rejects differ between versions.
        let rejects = rejects
            .into_iter()
            .map(|(id, _)| (id, Box::default()))
            .collect();
        let pictures = files(&self.path("out/pictures"));
        tables.chain([rejects, pictures]).collect()
    }
}

/// The folder of the state of the only pipeline.
fn state_folder(root: &TempDir) -> &'static str {
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

fn set_times(folder: &Path) {
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

/// Continues an output, adds later input, and compares the result with an output that this version
/// writes from the same input.
fn assert_continues(
    site: &OldSite,
    tables: &[&str],
    same: impl Fn(&[Vec<Record>], &[Vec<Record>]),
) {
    let before = contents(
        &tables
            .iter()
            .flat_map(|table| data_files(&site.path(table)))
            .collect::<Vec<_>>(),
    );
    assert!(!before.is_empty(), "{}: the output is empty", site.name);
    let (done, now) = site.run("p.toml");
    assert!(
        done > 0 && now > 0,
        "{}: {done} done before, {now} now",
        site.name
    );
    site.add_later_input();
    let (before_later, later) = site.run("p.toml");
    assert_eq!(before_later, done + now, "{}", site.name);
    assert_eq!(site.run("p.toml"), (done + now + later, 0), "{}", site.name);
    let earlier: Vec<_> = before.keys().cloned().collect();
    assert!(
        contents(&earlier) == before,
        "{}: the earlier files have changed",
        site.name
    );

    let fresh = site.without_output();
    fresh.add_later_input();
    assert_eq!(fresh.run("p.toml").0, 0);
    let calm = fresh.outputs(tables);
    same(&site.outputs(tables), &calm);
    for table in tables {
        let text = site.execute(&["inspect", table]);
        assert!(
            text.contains("digest       sha256:") && text.contains("version      latentflow"),
            "{text}"
        );
        site.execute(&["report", table]);
        site.execute(&["compact", table]);
        assert_eq!(
            data_files(&site.path(table)).len(),
            1,
            "{}: files of equal digests are merged into one",
            site.name
        );
    }
    site.execute(&["compact", &format!("{}/rejects", state_folder(&site.root))]);
    same(&site.outputs(tables), &calm);
    assert_eq!(site.run("p.toml"), (done + now + later, 0), "{}", site.name);
}

fn assert_same_values(found: &[Vec<Record>], expected: &[Vec<Record>]) {
    for (output, expected_output) in found.iter().zip(expected) {
        assert_eq!(ids(output), ids(expected_output));
        assert!(output == expected_output, "values differ");
    }
}

/// As [`assert_same_values`], for outputs of images that continue the names of an earlier version:
/// `a.pgm.png`, not `a.png`.
fn assert_same_values_by_stem(found: &[Vec<Record>], expected: &[Vec<Record>]) {
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
    assert_same_values(&by_stem(found), &by_stem(expected));
}

/// Compares identities only, since the outputs of models differ in their last bits between
/// processors.
fn assert_same_ids(found: &[Vec<Record>], expected: &[Vec<Record>]) {
    for (output, expected_output) in found.iter().zip(expected) {
        assert_eq!(ids(output), ids(expected_output));
    }
}

#[test]
fn output_of_each_bounded_source_is_continued() {
    for name in [
        "csv", "ndjson", "parquet", "encoded", "idx", "npz", "npy", "arrow", "tar",
    ] {
        old_sites(name)
            .iter()
            .for_each(|site| assert_continues(site, &["out"], assert_same_values));
    }
}

/// Replaces texts of a pipeline; panics if one is missing.
fn edit_pipeline(site: &OldSite, pairs: &[(&str, &str)]) {
    let mut text = fs::read_to_string(site.path("p.toml")).unwrap();
    for (from, to) in pairs {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(site.path("p.toml"), text).unwrap();
}

#[test]
fn equivalent_pipeline_continues_earlier_output() {
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
            "path = \"./out/\"\ncolumns = [\"source\", \"row\", \"id\", \"a\", \"b\", \"word\", \
             \"features\"]\ncompression = \"lz4\"",
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
        for site in old_sites(name) {
            edit_pipeline(&site, pairs);
            let (done, now) = site.run("p.toml");
            assert!(done > 0 && now > 0, "{name}: {done} done before, {now} now");
            site.execute(&["compact", "out"]);
            assert_eq!(data_files(&site.path("out")).len(), 1, "{name}: one digest");
            // The same pipeline with an absolute path.
            let absolute = format!(
                "path = \"{}\"",
                site.path("in").canonicalize().unwrap().display()
            );
            edit_pipeline(
                &site,
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
            assert_eq!(site.run("p.toml"), (done + now, 0), "{name}");
        }
    }
}

#[test]
fn changed_pipeline_is_refused_with_the_changed_options() {
    for site in old_sites("csv") {
        edit_pipeline(
            &site,
            &[
                ("path = \"in\"", "path = \"./in\"\nquote = \"'\""),
                ("keep = true", "keep = true\nto = \"v\""),
            ],
        );
        let output = latentflow(site.root.path(), &["run", "p.toml"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
        let text = errors(&output);
        assert!(
            text.contains(
                "): `quote` of the stage `in` was \"\\\"\" and is \"'\" now, \
                 `to` of the stage `vectors` was \"features\" and is \"v\" now;"
            ),
            "{text}"
        );
    }
}

#[test]
fn listing_table_and_image_files_are_continued() {
    old_sites("images")
        .iter()
        .for_each(|site| assert_continues(site, &["out/table"], assert_same_values_by_stem));
}

#[test]
fn folded_footers_of_compacted_files_are_continued() {
    old_sites("folded")
        .iter()
        .for_each(|site| assert_continues(site, &["out"], assert_same_values));
}

#[test]
fn partial_replay_of_rejects_is_continued() {
    old_sites("replay").iter().for_each(|site| {
        let (done, now) = site.run("p.toml");
        assert!(done > 0 && now > 0, "{done} done before, {now} now");
        let fresh = site.without_output();
        fresh.run("p.toml");
        assert_same_values(&site.outputs(&["out"]), &fresh.outputs(&["out"]));
        // A replay of all rejects into another output.
        let again = fs::read_to_string(site.path("p.toml"))
            .unwrap()
            .replace("\"out\"", "\"again\"");
        fs::write(site.path("again.toml"), again).unwrap();
        assert_eq!(site.run("again.toml"), (0, done + now));
    });
}

#[test]
fn output_of_two_allowed_pipelines_accepts_both() {
    old_sites("changed").iter().for_each(|site| {
        let first = site.run("p.toml");
        assert!(first.0 > 0 && first.1 > 0, "{first:?}");
        assert_eq!(
            site.run("first.toml"),
            (first.0 + first.1, 0),
            "both pipelines are accepted"
        );
        let read = site.execute(&["inspect", "out"]);
        assert!(read.matches("digest       sha256:").count() >= 2, "{read}");
    });
}

#[test]
fn records_in_flight_at_crashes_are_processed_one_at_a_time() {
    old_sites("crashed").iter().for_each(|site| {
        let output = latentflow(site.root.path(), &["run", "p.toml", "--log-format", "text"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let log = errors(&output);
        assert!(
            log.contains("the previous runs crashed without progress") && log.contains("crashes=2"),
            "{log}"
        );
        site.add_later_input();
        site.run("p.toml");
        let fresh = site.without_output();
        fresh.add_later_input();
        fresh.run("p.toml");
        assert_same_values(&site.outputs(&["out"]), &fresh.outputs(&["out"]));
        assert_eq!(leftovers::unfinished(&site.path("out")), []);
    });
}

/// A daemon that commits after 50 ms, since the pipelines of the sites commit only at their end.
fn daemon(site: &OldSite) -> Daemon {
    Daemon::start_with(site.root.path(), &[("LATENTFLOW__COMMIT__AGE", "50ms")])
}

/// Waits until exactly these rows are committed, and stops the daemon.
fn stop_with(daemon: Daemon, site: &OldSite, expected: &[Vec<u64>; 2]) {
    daemon.wait("all rows", || (rows(site) == *expected).then_some(()));
    daemon.stop();
    assert_eq!(rows(site), *expected);
}

/// The rows of the table and those of its rejects.
fn rows(site: &OldSite) -> [Vec<u64>; 2] {
    ["out", "out/_latentflow/rejects"].map(|folder| {
        let found = records(&site.path(folder), &["row"]);
        let mut rows: Vec<u64> = ids(&found).iter().map(|row| row.parse().unwrap()).collect();
        rows.sort_unstable();
        rows
    })
}

#[test]
fn acknowledged_requests_and_their_keys_are_read() {
    old_sites("requests").iter().for_each(|site| {
        edit_pipeline(site, &[("window = ", "idempotency_window = ")]);
        let line = |n: u32| {
            format!(
                "{}\n",
                json!({ "id": n, "a": f64::from(n) / 4.0, "b": f64::from(n) / 2.0 })
            )
        };
        let body = |numbers: std::ops::Range<u32>| {
            numbers.map(line).collect::<String>().replace(": ", ":")
        };
        let daemon = daemon(site);
        let post = |key: &str, content: &str| {
            let headers = [
                ("Content-Type", "application/x-ndjson"),
                ("Idempotency-Key", key),
            ];
            daemon
                .source()
                .request("POST", "/v1/records", &headers, content.as_bytes())
        };
        let response = post("new", &body(20..22));
        assert_eq!(
            (response.status, &response.json()["first"]),
            (202, &13.into())
        );
        // A known key with another body is refused.
        assert_eq!(
            [post("first", "{}\n").status, post("third", "{}\n").status],
            [422, 422]
        );
        stop_with(
            daemon,
            site,
            &[[0..7, 8..15].into_iter().flatten().collect(), vec![7]],
        );
    });
}

#[test]
fn acknowledged_images_are_read() {
    old_sites("sent").iter().for_each(|site| {
        let daemon = daemon(site);
        assert_eq!(
            daemon
                .source()
                .post("/v1/records", "image/x", b"P5 4 4 255\n0123456789abcdef")
                .status,
            202
        );
        stop_with(daemon, site, &[vec![0, 1, 2, 4, 5, 6, 7], vec![3]]);
    });
}

#[test]
fn files_of_a_watched_folder_are_read_once() {
    old_sites("watched").iter().for_each(|site| {
        let daemon = daemon(site);
        site.add_later_input();
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
        let sources = || {
            ["out", "out/_latentflow/rejects"].map(|folder| {
                let found = records(&site.path(folder), &["source"]);
                ids(&found)
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
        };
        let expected = [false, true].map(sorted);
        daemon.wait("all files", || (sources() == expected).then_some(()));
        daemon.stop();
        assert_eq!(sources(), expected);
    });
}

/// Changes the digits of a file but not its size and time, so that a read would give other values.
#[cfg(feature = "train")]
fn change_digits(file: &Path) {
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
fn trainings_resume_from_checkpoints_and_prepared_data() {
    old_sites("trained").iter().for_each(|site| {
        for name in ["stopped", "killed"] {
            // The prepared images are used again: a read of the changed input would start another
            // training. Features are prepared again, because version 0 rounded them to float32.
            if name == "killed" {
                change_digits(&site.path("in/images.idx"));
            }
            let file = format!("{name}.toml");
            let arguments = ["train", &file, "--threads", "1", "--log-format", "text"];
            let output = latentflow(site.root.path(), &arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", errors(&output));
            assert!(
                errors(&output).contains("resuming the training"),
                "{name}: {}",
                errors(&output)
            );
            assert!(!site.path(&format!("{name}/.training")).exists());
            site.execute(&["inspect", name]);
        }
    });
}

#[test]
fn earlier_model_encodes_and_evaluates_as_before() {
    old_sites("model").iter().for_each(|site| {
        assert_continues(site, &["out"], assert_same_ids);
        site.execute(&[
            "evaluate",
            "models/m",
            "--prepared",
            "prepared",
            "--json",
            "now.json",
        ]);
        let read = |name: &str| {
            serde_json::from_slice::<Value>(&fs::read(site.path(name)).unwrap()).unwrap()
        };
        let mut before = read("evaluation.json");
        // Features are prepared in float64 now, so the digest of their values differs.
        before["data"].as_object_mut().unwrap().remove("digest");
        assert_close("", &before, &read("now.json"));
        site.execute(&["report", "models/m", "--prepared", "prepared"]);
        site.execute(&["inspect", "models/m"]);
    });
}

/// Asserts that `now` has all values of `before`, numbers within a relative tolerance of 0.001.
fn assert_close(place: &str, before: &Value, now: &Value) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            before
                .iter()
                .for_each(|(key, value)| assert_close(&format!("{place}.{key}"), value, &now[key]));
        }
        (Value::Array(before), Value::Array(now)) => {
            assert_eq!(before.len(), now.len(), "{place}");
            before
                .iter()
                .zip(now)
                .for_each(|(before, now)| assert_close(place, before, now));
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
