//! Tests of what a second run reads from files that grew, were touched, or changed otherwise.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::json;

use crate::batch::SourceBatch;
use crate::coverage::{Coverage, ResumeState};
use crate::source::Source;
use crate::source::table::arrays::npz::config::NpzSourceConfig;
use crate::source::table::file_source::testing::{drain, plan};
use crate::source::table::text::csv::config::CsvSourceConfig;
use crate::source::table::text::ndjson;
use crate::storage::Location;

const NOTHING: [i64; 0] = [];

/// A folder of input files, and the coverage of the runs over it.
struct Runs {
    folder: tempfile::TempDir,
    coverage: Coverage,
    /// The modification time of the last change in seconds. Each change is 10 s later than the one
    /// before it, because clocks are coarse.
    clock: u64,
    batch: u32,
}

impl Runs {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            coverage: Coverage::default(),
            clock: 1_000_000,
            batch: 2,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&mut self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.touch(name);
    }

    fn append(&mut self, name: &str, text: &str) {
        let content = fs::read_to_string(self.path(name)).unwrap() + text;
        self.write(name, &content);
    }

    fn touch(&mut self, name: &str) {
        self.clock += 10;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock);
        File::options()
            .write(true)
            .open(self.path(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    fn resume(&self) -> ResumeState {
        let state = Some(Location::from(self.path("state").as_path()));
        ResumeState {
            sinks: Arc::new(vec![self.coverage.clone()]),
            state,
        }
    }

    /// Runs to the end, or until `max_batches` are committed, like a run that is killed. Returns
    /// the new batches.
    fn run(&mut self, source: Box<dyn Source>, max_batches: usize) -> Vec<SourceBatch> {
        let resume = self.resume();
        let mut new = Vec::new();
        for batch in drain(source, &resume)
            .unwrap()
            .into_iter()
            .take(max_batches)
        {
            for part in resume.uncommitted_ranges(&batch.batch.provenance) {
                new.push(batch.slice(part));
            }
        }
        new.iter()
            .for_each(|batch| self.coverage.insert(&batch.batch.provenance));
        new
    }

    /// The values of column `n` that a run over the CSV files adds.
    fn csv(&mut self) -> Vec<i64> {
        let source =
            plan::<CsvSourceConfig>(json!({ "path": self.path("*.csv") }), self.batch).unwrap();
        values(&self.run(source, usize::MAX))
    }

    fn ndjson(&mut self) -> Vec<i64> {
        let source = plan::<ndjson::NdjsonSourceConfig>(
            json!({ "path": self.path("*.ndjson") }),
            self.batch,
        )
        .unwrap();
        values(&self.run(source, usize::MAX))
    }

    fn splits(&self) -> usize {
        self.coverage.splits().len()
    }
}

fn values(batches: &[SourceBatch]) -> Vec<i64> {
    let of = |batch: &SourceBatch| {
        batch.batch.records["n"]
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    batches.iter().flat_map(of).collect()
}

#[test]
fn only_appended_records_are_new_in_each_run() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n3\n");
    assert_eq!(runs.csv(), [1, 2, 3]);
    assert_eq!(runs.csv(), NOTHING);
    for generation in [[4, 5], [6, 7], [8, 9]] {
        runs.append("a.csv", &format!("{}\n{}\n", generation[0], generation[1]));
        assert_eq!(runs.csv(), generation);
        assert_eq!(runs.csv(), NOTHING);
    }
    assert_eq!(runs.splits(), 1);
    assert_eq!(runs.coverage.len(), 9);
}

#[test]
fn touched_file_has_no_new_records() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n");
    assert_eq!(runs.csv(), [1, 2]);
    runs.touch("a.csv");
    assert_eq!(runs.csv(), NOTHING);
    runs.append("a.csv", "3\n");
    assert_eq!(runs.csv(), [3]);
}

#[test]
fn last_line_without_end_may_be_ended_but_not_continued() {
    for (added, expected) in [
        ("\n3\n", vec![3]),
        ("\r\n3\r\n", vec![3]),
        ("5\n3\n", vec![1, 25, 3]),
    ] {
        let mut runs = Runs::new();
        runs.write("a.csv", "n\n1\n2");
        assert_eq!(runs.csv(), [1, 2]);
        runs.append("a.csv", added);
        assert_eq!(runs.csv(), expected, "{added:?}");
    }
}

#[test]
fn quoted_value_that_was_open_at_the_end_is_a_change() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n,t\n1,\"a\nb\"\n2,\"open\n");
    assert_eq!(runs.csv(), [1]);
    runs.append("a.csv", "closed\"\n3,x\n");
    assert_eq!(
        runs.csv(),
        [1, 2, 3],
        "the rejected record is read again, with its file"
    );
    runs.append("a.csv", "4,\"y\nz\"\n");
    assert_eq!(runs.csv(), [4]);
}

#[test]
fn changed_header_or_content_makes_a_new_file() {
    for changed in ["m,n\n0,1\n0,2\n0,3\n", "n\n1\n9\n3\n", "n\n1\n"] {
        let mut runs = Runs::new();
        runs.write("a.csv", "n\n1\n2\n");
        assert_eq!(runs.csv(), [1, 2]);
        runs.write("a.csv", changed);
        let expected = changed
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().unwrap().parse().unwrap());
        assert_eq!(runs.csv(), expected.collect::<Vec<i64>>());
        assert_eq!(runs.splits(), 2);
    }
}

#[test]
fn truncated_file_that_grows_back_continues_its_first_split() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n3\n");
    assert_eq!(runs.csv(), [1, 2, 3]);
    runs.write("a.csv", "n\n1\n");
    assert_eq!(runs.csv(), [1], "a truncated file is a new one");
    runs.write("a.csv", "n\n1\n2\n3\n4\n");
    assert_eq!(runs.csv(), [4], "the longest known content is continued");
    runs.write("a.csv", "n\n1\n7\n");
    assert_eq!(runs.csv(), [7], "the truncated file has grown otherwise");
}

#[test]
fn only_appended_lines_are_new() {
    let mut runs = Runs::new();
    runs.write("a.ndjson", "{\"n\": 1}\n{\"n\": 2}");
    assert_eq!(runs.ndjson(), [1, 2]);
    runs.append("a.ndjson", "\n{\"n\": 3}\n");
    assert_eq!(runs.ndjson(), [3]);
    runs.append("a.ndjson", "{\"n\": 4}\n{\"n\"");
    assert_eq!(runs.ndjson(), [4]);
    runs.append("a.ndjson", ": 5}\n");
    assert_eq!(
        runs.ndjson(),
        [1, 2, 3, 4, 5],
        "the last line was continued"
    );
}

#[test]
fn partly_read_file_is_continued_after_it_grew() {
    let line = |n: i64| format!("{n}{}\n", " ".repeat(100_000));
    let text: String = (0..40).map(line).collect();
    let read = |runs: &mut Runs, max_batches| {
        let options = json!({ "path": runs.path("*.csv"), "types": { "n": "string" } });
        let batches = runs.run(plan::<CsvSourceConfig>(options, 4).unwrap(), max_batches);
        let of = |batch: &SourceBatch| {
            batch.batch.records["n"]
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(|n| n.trim().parse::<i64>().unwrap())
                .collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect::<Vec<_>>()
    };
    let mut runs = Runs::new();
    runs.write("a.csv", &format!("n\n{text}"));
    assert_eq!(read(&mut runs, 3), (0..12).collect::<Vec<_>>());
    // The state of a killed run: the checkpoint of its last batch, and none of the complete file.
    let records = runs.path("state/inputs/in.ndjson");
    assert!(fs::read_to_string(&records).unwrap().ends_with("}\n"));
    fs::write(&records, "").unwrap();
    let added: String = (40..44).map(line).collect();
    runs.append("a.csv", &added);
    assert_eq!(read(&mut runs, usize::MAX), (12..44).collect::<Vec<_>>());
    assert_eq!(runs.splits(), 1);
}

#[test]
fn rows_beyond_the_checkpoint_make_the_file_a_new_one() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n3\n");
    assert_eq!(runs.csv(), [1, 2, 3]);
    // The state after a power failure that lost the end of the checkpoints.
    for name in ["in.ndjson", "in.reading"] {
        fs::remove_file(runs.path("state/inputs").join(name)).unwrap();
    }
    runs.append("a.csv", "4\n");
    assert_eq!(runs.csv(), [1, 2, 3, 4]);
    runs.append("a.csv", "5\n");
    assert_eq!(runs.csv(), [5]);
}

#[test]
fn output_without_checkpoints_identifies_files_by_time() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n3\n");
    assert_eq!(runs.csv(), [1, 2, 3]);
    fs::remove_dir_all(runs.path("state")).unwrap();
    assert_eq!(runs.csv(), NOTHING);
    runs.append("a.csv", "4\n");
    assert_eq!(runs.csv(), [4], "the previous run recorded the file");
}

#[test]
fn error_of_refused_change_names_file_and_growth_is_allowed() {
    let source = |runs: &Runs, refuse: &str| {
        plan::<CsvSourceConfig>(
            json!({ "path": runs.path("*.csv"), "on_change": refuse }),
            2,
        )
        .unwrap()
    };
    let mut runs = Runs::new();
    for name in ["a.csv", "b.csv", "c.csv"] {
        runs.write(name, "n\n1\n2\n");
    }
    assert_eq!(runs.csv(), [1, 2, 1, 2, 1, 2]);
    runs.append("a.csv", "3\n");
    runs.touch("c.csv");
    source(&runs, "refuse")
        .admit_inputs(&runs.resume())
        .unwrap();
    runs.write("b.csv", "n\n1\n3\n");
    source(&runs, "new").admit_inputs(&runs.resume()).unwrap();
    let error = source(&runs, "refuse")
        .admit_inputs(&runs.resume())
        .unwrap_err()
        .to_string();
    let expected = "b.csv: has changed since an earlier run read it, other than by \
         appended text, which `on_change = \"refuse\"` does not allow; restore the file, or write \
         `on_change = \"new\"` to read it as a new file";
    assert_eq!(error, expected);
    let read_error = drain(source(&runs, "refuse"), &runs.resume())
        .unwrap_err()
        .to_string();
    assert_eq!(read_error, expected);
}

#[test]
fn array_files_are_recognized_by_content_and_not_continued() {
    let array = |rows: u8| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows},), }}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len() + 1).unwrap().to_le_bytes());
        bytes.extend(header.bytes().chain(*b"\n"));
        bytes.extend(0..rows);
        bytes
    };
    let read = |runs: &mut Runs| {
        let source = plan::<NpzSourceConfig>(json!({ "path": runs.path("*.npy") }), 10).unwrap();
        runs.run(source, usize::MAX)
            .iter()
            .map(|batch| batch.batch.records.num_rows())
            .sum::<usize>()
    };
    let mut runs = Runs::new();
    fs::write(runs.path("a.npy"), array(5)).unwrap();
    assert_eq!(read(&mut runs), 5);
    runs.touch("a.npy");
    assert_eq!(read(&mut runs), 0);
    fs::write(runs.path("a.npy"), array(6)).unwrap();
    runs.touch("a.npy");
    assert_eq!(read(&mut runs), 6);
}

#[test]
fn damaged_checkpoint_affects_only_its_own_file() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n2\n");
    runs.write("b.csv", "n\n5\n6\n");
    assert_eq!(runs.csv(), [1, 2, 5, 6]);
    let records = runs.path("state/inputs/in.ndjson");
    let text = fs::read_to_string(&records).unwrap();
    let length = text.trim_end().len() - 20;
    fs::write(&records, &text[..length]).unwrap();
    fs::remove_file(runs.path("state/inputs/in.reading")).unwrap();
    runs.append("a.csv", "3\n");
    runs.append("b.csv", "7\n");
    assert_eq!(runs.csv(), [3, 5, 6, 7]);
    runs.append("a.csv", "4\n");
    assert_eq!(runs.csv(), [4]);
}

#[test]
fn checkpoints_of_a_file_are_bounded() {
    let mut runs = Runs::new();
    runs.batch = 100;
    for number in 0..40 {
        runs.write("a.csv", &format!("n\n{number}\n"));
        assert_eq!(runs.csv(), [number]);
    }
    let records: &Path = &runs.path("state/inputs/in.ndjson");
    for _ in 0..300 {
        runs.touch("a.csv");
        assert_eq!(runs.csv(), NOTHING);
    }
    assert!(fs::read_to_string(records).unwrap().lines().count() < 300);
}

#[test]
fn reset_of_a_stage_removes_its_checkpoints() {
    let mut runs = Runs::new();
    runs.write("a.csv", "n\n1\n");
    assert_eq!(runs.csv(), [1]);
    let state = Location::from(runs.path("state").as_path());
    crate::source::discovery::delete_state("in", &state).unwrap();
    assert_eq!(fs::read_dir(runs.path("state/inputs")).unwrap().count(), 0);
}
