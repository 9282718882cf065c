//! Pipelines with known input and the expected records of each output, each exactly once.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use super::inputs;
use super::leftovers::unfinished;
use super::outputs::{Record, files, ids, records};
use super::runs::latentflow;

/// A pipeline, its input and its expected outputs.
pub struct Scenario {
    /// The name of the scenario.
    pub name: &'static str,
    /// Writes the input to a folder.
    pub prepare: fn(&Path),
    /// The pipeline file. It reads below `in` and writes below `OUT`.
    pub pipeline: String,
    /// The pipeline of the first runs, if it changes between runs.
    pub earlier: Option<String>,
    /// The expected outputs.
    pub outputs: Vec<Expected>,
}

/// An output and its expected records.
pub struct Expected {
    folder: &'static str,
    kind: Kind,
    ids: Vec<String>,
}

enum Kind {
    Table,
    Rejects,
    Pictures,
}

impl Expected {
    fn new(folder: &'static str, kind: Kind, mut ids: Vec<String>) -> Self {
        ids.sort();
        Self { folder, kind, ids }
    }

    /// The records of the output.
    fn read(&self, root: &Path) -> Vec<Record> {
        let folder = root.join(self.folder);
        match self.kind {
            Kind::Table => records(&folder, &["source", "row"]),
            Kind::Rejects => records(&folder, &["source", "row", "stage"]),
            Kind::Pictures => files(&folder),
        }
    }
}

impl Scenario {
    /// The records of all outputs below `root`; panics if one is lost, duplicated or unexpected.
    fn read(&self, root: &Path) -> Vec<Vec<Record>> {
        let outputs = self.outputs.iter().map(|expected| {
            let found = expected.read(root);
            let (found_ids, expected_ids) = (ids(&found), &expected.ids);
            if found_ids != *expected_ids {
                let lost: Vec<_> = expected_ids
                    .iter()
                    .filter(|id| !found_ids.contains(&id.as_str()))
                    .take(5)
                    .collect();
                let more = |pair: &&[&str]| {
                    pair[0] == pair[1]
                        && expected_ids.iter().filter(|id| *id == pair[0]).count() < 2
                };
                let duplicated: Vec<_> = found_ids
                    .windows(2)
                    .filter(more)
                    .map(|pair| pair[0])
                    .take(5)
                    .collect();
                let output = format!("{} of `{}`", expected.folder, self.name);
                panic!(
                    "{output}: {} records of {}; lost {lost:?}, duplicated {duplicated:?}",
                    found_ids.len(),
                    expected_ids.len()
                );
            }
            found
        });
        outputs.collect()
    }
}

/// A scenario with its input in a temporary folder.
pub struct Site {
    /// The scenario.
    pub scenario: Scenario,
    root: TempDir,
}

impl Site {
    /// Writes the input to a new temporary folder.
    pub fn new(scenario: Scenario) -> Self {
        let root = tempfile::tempdir().unwrap();
        (scenario.prepare)(&root.path().join("in"));
        Self { scenario, root }
    }

    /// The folder that holds the input, and that runs write below.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A run of the pipeline that writes below the folder `out`; its log goes to the file `log`.
    pub fn command(&self, pipeline: &str, out: &str, workers: u32) -> Command {
        fs::write(self.root().join("p.toml"), pipeline.replace("OUT", out)).unwrap();
        let mut command = latentflow(
            self.root(),
            &["run", "p.toml", "--workers", &workers.to_string()],
        );
        command.stderr(File::create(self.root().join("log")).unwrap());
        command
    }

    /// Asserts that the last run succeeded.
    pub fn assert_done(&self, status: ExitStatus) {
        let log = || fs::read_to_string(self.root().join("log")).unwrap();
        assert_eq!(
            status.code(),
            Some(0),
            "`{}` failed: {}",
            self.scenario.name,
            log()
        );
    }

    /// Runs a pipeline to the end.
    pub fn run(&self, pipeline: &str, out: &str) {
        let status = self.command(pipeline, out, 2).status().unwrap();
        self.assert_done(status);
    }

    /// Runs to the end and returns the records of all outputs; panics if they are not as expected
    /// or temporary files remain.
    pub fn finish(&self, out: &str) -> Vec<Vec<Record>> {
        self.run(&self.scenario.pipeline, out);
        let folder = self.root().join(out);
        assert_eq!(
            unfinished(&folder),
            [],
            "temporary files of an earlier run remain"
        );
        self.scenario.read(&folder)
    }

    /// As [`Site::finish`]; asserts that the outputs equal `calm`, bit for bit.
    pub fn finish_as(&self, out: &str, calm: &[Vec<Record>]) {
        for ((expected, reference), found) in
            self.scenario.outputs.iter().zip(calm).zip(self.finish(out))
        {
            let different = reference
                .iter()
                .zip(&found)
                .find(|(reference, found)| reference != found);
            let (different, name) = (different.map(|(record, _)| &record.0), self.scenario.name);
            assert!(
                *reference == found,
                "{} of `{name}`: the values of {different:?} differ",
                expected.folder
            );
        }
    }
}

/// Number of images that are written to tables.
const TABLE_IMAGES: usize = 4000;
/// Number of images that are written as image files, enough for several commits. There are fewer,
/// since each file is synced on its own.
const FILE_IMAGES: usize = 600;

fn image_ids(
    count: usize,
    is_selected: fn(usize) -> bool,
    id: fn(String) -> String,
) -> Vec<String> {
    (0..count)
        .filter(|&number| is_selected(number))
        .map(|number| id(inputs::image_name(number)))
        .collect()
}

const PIXELS: &str = r#"
[stages.files]
kind = "images"
path = "in/images"
batch = { records = 16 }

[stages.pixels]
kind = "pixels"
inputs = ["files"]
size = [6, 6]

[rejects]
path = "OUT/rejects"
"#;

const TABLE_SINK: &str = r#"
[stages.table]
kind = "parquet"
inputs = ["pixels"]
path = "OUT/table"
file.records = 50
"#;

const PICTURE_SINK: &str = r#"
[stages.pictures]
kind = "images"
inputs = ["pixels"]
path = "OUT/pictures"
"#;

/// Image files, some broken, into one table.
pub fn images() -> Scenario {
    from_images::<TABLE_IMAGES>("images", &[TABLE_SINK], vec![table_of_images(TABLE_IMAGES)])
}

/// Image files, some broken, into image files.
pub fn pictures() -> Scenario {
    from_images::<FILE_IMAGES>(
        "pictures",
        &[PICTURE_SINK],
        vec![pictures_of_images(FILE_IMAGES)],
    )
}

/// Image files, some broken, into a table and into image files.
pub fn both_forms() -> Scenario {
    let outputs = vec![
        table_of_images(FILE_IMAGES),
        pictures_of_images(FILE_IMAGES),
    ];
    from_images::<FILE_IMAGES>("both forms", &[TABLE_SINK, PICTURE_SINK], outputs)
}

fn from_images<const COUNT: usize>(
    name: &'static str,
    sinks: &[&str],
    mut outputs: Vec<Expected>,
) -> Scenario {
    let broken = image_ids(COUNT, inputs::is_broken, |image| {
        format!("{image} 0 pixels")
    });
    outputs.push(Expected::new("rejects", Kind::Rejects, broken));
    Scenario {
        name,
        prepare: |folder| inputs::images(&folder.join("images"), COUNT),
        pipeline: [&[PIXELS], sinks].concat().concat(),
        earlier: None,
        outputs,
    }
}

fn table_of_images(count: usize) -> Expected {
    Expected::new(
        "table",
        Kind::Table,
        image_ids(count, |n| !inputs::is_broken(n), |name| format!("{name} 0")),
    )
}

fn pictures_of_images(count: usize) -> Expected {
    let picture = |name: String| format!("{}.png", name.split('.').next().unwrap());
    let sound = image_ids(count, |n| !inputs::is_broken(n), picture);
    Expected::new("pictures", Kind::Pictures, sound)
}

/// Number of files of [`tables`].
const TABLES: u64 = 3;
/// Rows of each file of [`tables`].
const ROWS: u64 = 2000;

fn write_tables(folder: &Path) {
    for table in 0..TABLES {
        inputs::table(
            &folder.join(format!("tables/{table}.parquet")),
            table * ROWS..(table + 1) * ROWS,
            300,
        );
    }
}

/// The identities of the rows of all tables whose numbers, counted over all tables, satisfy
/// `is_selected`.
fn table_ids(is_selected: fn(u64) -> bool, suffix: &str) -> Vec<String> {
    let rows = (0..TABLES * ROWS).filter(|&number| is_selected(number));
    rows.map(|number| format!("{}.parquet {}{suffix}", number / ROWS, number % ROWS))
        .collect()
}

const TABLE_SOURCE: &str = r#"
[stages.in]
kind = "parquet"
path = "in/tables"
batch = { records = 32 }

[rejects]
path = "OUT/rejects"
"#;

const FEATURES: &str = r#"
[stages.vectors]
kind = "features"
inputs = ["in"]
columns = ["a", "b"]
keep = true
"#;

/// Parquet files, some rows bad, into two tables that fill at different paces, one behind a filter.
pub fn tables() -> Scenario {
    let sinks = r#"
[stages.all]
kind = "parquet"
inputs = ["vectors"]
path = "OUT/all"
file.records = 130

[stages.high]
kind = "filter"
inputs = ["vectors"]
column = "b"
at_least = 0.5

[stages.some]
kind = "parquet"
inputs = ["high"]
path = "OUT/some"
file.records = 41
row_group.records = 10
"#;
    Scenario {
        name: "tables",
        prepare: write_tables,
        pipeline: format!("{TABLE_SOURCE}{FEATURES}{sinks}"),
        earlier: None,
        outputs: vec![
            Expected::new(
                "all",
                Kind::Table,
                table_ids(|n| !inputs::is_bad_row(n), ""),
            ),
            Expected::new(
                "some",
                Kind::Table,
                table_ids(|n| !inputs::is_bad_row(n) && inputs::share(n) >= 0.5, ""),
            ),
            Expected::new(
                "rejects",
                Kind::Rejects,
                table_ids(inputs::is_bad_row, " vectors"),
            ),
        ],
    }
}

/// Enough files that their footers are folded into a coverage snapshot while the run writes.
pub fn many_files() -> Scenario {
    into_one_table("many files", "file.records = 16\n")
}

/// One file, which is complete only at the end of the run.
pub fn one_file() -> Scenario {
    into_one_table("one file", "")
}

fn into_one_table(name: &'static str, file: &str) -> Scenario {
    let source = TABLE_SOURCE.replace("records = 32", "records = 20");
    let sink = "[stages.all]\nkind = \"parquet\"\ninputs = [\"vectors\"]\npath = \"OUT/all\"\n";
    Scenario {
        name,
        prepare: write_tables,
        pipeline: format!("{source}{FEATURES}{sink}{file}"),
        earlier: None,
        outputs: vec![
            Expected::new(
                "all",
                Kind::Table,
                table_ids(|n| !inputs::is_bad_row(n), ""),
            ),
            Expected::new(
                "rejects",
                Kind::Rejects,
                table_ids(inputs::is_bad_row, " vectors"),
            ),
        ],
    }
}

/// A table of the input, to which later runs add two more: a copy, and one behind a transform that
/// rejects rows which the first table has already committed.
pub fn added() -> Scenario {
    let first = format!(
        "{TABLE_SOURCE}\n[stages.raw]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"OUT/raw\"\n\
         file.records = 130\n"
    );
    let more = r#"
[stages.copy]
kind = "parquet"
inputs = ["in"]
path = "OUT/copy"
columns = ["source", "row", "id"]
file.records = 60

[stages.late]
kind = "parquet"
inputs = ["vectors"]
path = "OUT/late"
file.records = 90
"#;
    Scenario {
        name: "added",
        prepare: write_tables,
        pipeline: format!("{first}{FEATURES}{more}"),
        earlier: Some(first),
        outputs: vec![
            Expected::new("raw", Kind::Table, table_ids(|_| true, "")),
            Expected::new("copy", Kind::Table, table_ids(|_| true, "")),
            Expected::new(
                "late",
                Kind::Table,
                table_ids(|n| !inputs::is_bad_row(n), ""),
            ),
            Expected::new(
                "rejects",
                Kind::Rejects,
                table_ids(inputs::is_bad_row, " vectors"),
            ),
        ],
    }
}

/// Lines of each of the files of [`diamond`].
const LINES: u64 = 2500;

/// A predicate over the number of a line.
type Rule = fn(u64) -> bool;

/// CSV and NDJSON, each with invalid lines, through two overlapping arms that reject different
/// records.
pub fn diamond() -> Scenario {
    let types = "types = { id = \"int\", x = \"float\", a = \"float\", b = \"float\" }\n\
                 batch = { records = 64 }\n";
    let source = |kind: &str| {
        format!("[stages.{kind}]\nkind = \"{kind}\"\npath = \"in/lines.{kind}\"\n{types}")
    };
    // The keys of JSON objects are not ordered.
    let sorted = "[stages.sorted]\nkind = \"select\"\ninputs = [\"ndjson\"]\n\
                  columns = [\"source\", \"row\", \"id\", \"x\", \"a\", \"b\"]\n";
    let arm = |name: &str, comparison: &str, column: &str| {
        format!(
            "[stages.{name}]\nkind = \"filter\"\ninputs = [\"csv\", \"sorted\"]\ncolumn = \"x\"\n\
             {comparison}\n\
             [stages.{name}-v]\nkind = \"features\"\ninputs = [\"{name}\"]\n\
             columns = [\"{column}\"]\nto = \"v\"\n\
             [stages.{name}-end]\nkind = \"select\"\ninputs = [\"{name}-v\"]\n\
             columns = [\"source\", \"row\", \"id\", \"v\"]\n"
        )
    };
    let left = arm("left", "at_least = 0.5", "a");
    let right = arm("right", "below = 0.8", "b");
    let sink = "[stages.out]\nkind = \"parquet\"\ninputs = [\"left-end\", \"right-end\"]\n\
                path = \"OUT/both\"\n\
                file.records = 100\n[rejects]\npath = \"OUT/rejects\"\n";
    let ids = |is_selected: Rule, suffix: &str| -> Vec<String> {
        let lines = (0..LINES).filter(|&n| is_selected(n));
        lines
            .flat_map(|n| {
                [
                    format!("lines.csv {n}{suffix}"),
                    format!("lines.ndjson {n}{suffix}"),
                ]
            })
            .collect()
    };
    let good: [Rule; 2] = [
        |n| !inputs::is_bad_line(n) && inputs::share(n) >= 0.5 && !inputs::lacks("a", n),
        |n| !inputs::is_bad_line(n) && inputs::share(n) < 0.8 && !inputs::lacks("b", n),
    ];
    let by_left: Rule =
        |n| !inputs::is_bad_line(n) && inputs::share(n) >= 0.5 && inputs::lacks("a", n);
    let by_right: Rule =
        |n| !inputs::is_bad_line(n) && inputs::share(n) < 0.8 && inputs::lacks("b", n);
    let unread = (0..LINES).filter(|&n| inputs::is_bad_line(n));
    let unread: Vec<String> = unread
        .flat_map(|n| ["csv", "ndjson"].map(|kind| format!("lines.{kind} {n} {kind}")))
        .collect();
    Scenario {
        name: "diamond",
        prepare: |folder| {
            inputs::csv(&folder.join("lines.csv"), LINES);
            inputs::ndjson(&folder.join("lines.ndjson"), LINES);
        },
        pipeline: [
            source("csv"),
            source("ndjson"),
            sorted.to_owned(),
            left,
            right,
            sink.to_owned(),
        ]
        .concat(),
        earlier: None,
        outputs: vec![
            Expected::new("both", Kind::Table, good.map(|rule| ids(rule, "")).concat()),
            Expected::new(
                "rejects",
                Kind::Rejects,
                [ids(by_left, " left-v"), ids(by_right, " right-v"), unread].concat(),
            ),
        ],
    }
}
