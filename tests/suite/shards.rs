//! Tests of `--shard`: the shards of a run together have the rows of a run without shards, and an
//! output belongs to one number of shards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::inputs;
use crate::common::outputs::{self, Record, data_files, files, ids};
use crate::common::runs::{self, errors, latentflow};

/// The columns of rejects that identify a reject.
const REJECT: [&str; 5] = ["source", "row", "split_row", "stage", "code"];

fn site(pipeline: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

/// A pipeline of a source and, for a sink, the stage whose output it writes to `out`.
fn pipeline(source: &str, transforms: &str, last: &str) -> String {
    format!(
        "[stages.in]\n{source}\n{transforms}\n[stages.out]\nkind = \"parquet\"\n\
         inputs = [\"{last}\"]\npath = \"out\"\n"
    )
}

/// A pipeline that adds noise to images, so that values depend on the identity of the records.
fn noisy_images() -> String {
    let transforms = "[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [4, 4]\n\
                      channels = \"gray\"\n\
                      [stages.noisy]\nkind = \"corrupt\"\ninputs = [\"pixels\"]\n\
                      noise = \"gaussian\"\nsigma = 25\n";
    pipeline("kind = \"images\"\npath = \"in\"", transforms, "noisy")
}

/// A pipeline that adds noise to the features of tables.
fn noisy_tables() -> String {
    let transforms = "[stages.features]\nkind = \"features\"\ninputs = [\"in\"]\n\
                      columns = [\"a\", \"b\"]\n\
                      [stages.noisy]\nkind = \"corrupt\"\ninputs = [\"features\"]\n\
                      noise = \"masking\"\nrate = 0.5\n";
    pipeline("kind = \"parquet\"\npath = \"in\"", transforms, "noisy")
}

fn execute(folder: &Path, arguments: &[&str]) -> Output {
    latentflow(folder, arguments).output().unwrap()
}

fn assert_code(output: &Output, code: i32) -> String {
    let text = errors(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Asserts that a command ends with exit code 2 and a message that contains `expected`.
fn assert_refused(folder: &Path, arguments: &[&str], expected: &str) {
    let text = assert_code(&execute(folder, arguments), 2);
    assert!(text.contains(expected), "{text}");
}

/// Runs `p.toml` without shards into the folder `whole`.
fn run_whole(folder: &Path) {
    let path = ["--set", "stages.out.path=whole"];
    assert_code(
        &execute(folder, &[&["run", "p.toml"], &path[..]].concat()),
        0,
    );
}

/// Starts all shards at the same time. Returns their results in the order of their indices.
fn start_shards(folder: &Path, counts: &[u32]) -> Vec<(u32, Output)> {
    let shards = counts
        .iter()
        .flat_map(|&count| (0..count).map(move |index| (index, count)));
    let started: Vec<_> = shards
        .map(|(index, count)| {
            let shard = format!("{index}/{count}");
            let arguments = ["run", "p.toml", "--summary", "json", "--shard", &shard];
            let mut command = latentflow(folder, &arguments);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (count, command.spawn().unwrap())
        })
        .collect();
    started
        .into_iter()
        .map(|(count, child)| (count, child.wait_with_output().unwrap()))
        .collect()
}

/// Runs all shards to their end, and returns their summaries.
fn run_shards(folder: &Path, count: u32) -> Vec<Value> {
    let results = start_shards(folder, &[count]).into_iter();
    results
        .map(|(_, output)| {
            assert_code(&output, 0);
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .collect()
}

/// The folders of the shards in an output.
fn shard_folders(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_shard = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("shard-")
    };
    let mut folders: Vec<_> = entries.filter(is_shard).collect();
    folders.sort();
    folders
}

/// The records that `read` finds in the folders of all shards, sorted.
fn union(out: &Path, read: impl Fn(&Path) -> Vec<Record>) -> Vec<Record> {
    let mut all: Vec<Record> = shard_folders(out)
        .iter()
        .flat_map(|folder| read(folder))
        .collect();
    all.sort();
    all
}

fn rows(folder: &Path) -> Vec<Record> {
    outputs::records(folder, &["source", "row"])
}

fn rejects(folder: &Path) -> Vec<Record> {
    outputs::records(&folder.join("_latentflow/rejects"), &REJECT)
}

/// Asserts that the shards have the rows and the rejects of the run without shards, to the bit.
fn assert_union_is_whole(folder: &Path) {
    let (out, whole) = (folder.join("out"), folder.join("whole"));
    let all = rows(&whole);
    assert!(!all.is_empty());
    let found = union(&out, rows);
    let differs = ids(&found)
        .into_iter()
        .zip(ids(&all))
        .find(|(found, all)| found != all);
    assert_eq!((found.len(), differs), (all.len(), None));
    assert!(found == all, "values differ");
    let rejected = rejects(&whole);
    assert_eq!(ids(&union(&out, rejects)), ids(&rejected));
    assert!(union(&out, rejects) == rejected, "rejects differ");
}

#[test]
fn shards_of_images_equal_a_run_without_shards() {
    let site = site(&noisy_images());
    inputs::images(&site.path().join("in"), 40);
    run_whole(site.path());
    run_shards(site.path(), 3);
    assert_union_is_whole(site.path());
    // New files are a second listing, in which they have the same rows as without shards. The
    // others have another time and the same content.
    inputs::images(&site.path().join("in"), 70);
    run_whole(site.path());
    let again = run_shards(site.path(), 3);
    assert_union_is_whole(site.path());
    let records = again
        .iter()
        .map(|summary| summary["records"].as_u64().unwrap());
    assert_eq!(
        records.sum::<u64>(),
        30,
        "files of the first runs are not read again"
    );
}

#[test]
fn shards_of_text_files_equal_a_run_without_shards() {
    type Write = fn(&Path, u64);
    let kinds: [(&str, Write, u32); 2] = [("csv", inputs::csv, 8), ("ndjson", inputs::ndjson, 2)];
    for (kind, write, count) in kinds {
        let source = format!("kind = \"{kind}\"\npath = \"in\"");
        let site = site(&pipeline(&source, "", "in"));
        for number in 0..6 {
            let name = format!("in/{number}/table.{kind}");
            write(&site.path().join(name), 60 + number);
        }
        run_whole(site.path());
        let summaries = run_shards(site.path(), count);
        assert_union_is_whole(site.path());
        if count > 6 {
            assert!(
                summaries.iter().any(|summary| summary["records"] == 0),
                "a shard without files succeeds"
            );
        }
        let again = run_shards(site.path(), count);
        assert!(again.iter().all(|summary| summary["records"] == 0));
    }
}

#[test]
fn shards_of_row_groups_equal_a_run_without_shards() {
    for count in [2, 5] {
        let site = site(&noisy_tables());
        inputs::table(&site.path().join("in/large.parquet"), 0..2000, 100);
        inputs::table(&site.path().join("in/small.parquet"), 5000..5050, 1000);
        fs::write(site.path().join("in/broken.parquet"), "not a Parquet file").unwrap();
        run_whole(site.path());
        run_shards(site.path(), count);
        assert_union_is_whole(site.path());
        let used = shard_folders(&site.path().join("out"))
            .into_iter()
            .filter(|folder| rows(folder).iter().any(|(id, _)| id.starts_with("large")))
            .count();
        assert!(used > 1, "the row groups of one file are divided");
    }
}

#[test]
fn rejects_of_a_misfit_table_count_its_records_once() {
    let site = site(&noisy_tables());
    for number in 0..2 {
        let name = format!("in/{number}.parquet");
        inputs::table(&site.path().join(name), 0..300, 100);
    }
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..90).map(|_| "x")));
    let batch =
        arrow::array::RecordBatch::try_from_iter([("a", text.clone()), ("b", text)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder();
    let properties = properties.set_max_row_group_row_count(Some(10)).build();
    let file = File::create(site.path().join("in/misfit.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    run_whole(site.path());
    run_shards(site.path(), 3);
    let records = |folder: &Path| -> u64 {
        let misfits = outputs::records(&folder.join("_latentflow/rejects"), &["source", "records"]);
        let of_file = misfits
            .iter()
            .filter_map(|(id, _)| id.strip_prefix("misfit.parquet "));
        of_file.map(|records| records.parse::<u64>().unwrap()).sum()
    };
    assert_eq!(records(&site.path().join("whole")), 90);
    let shards = shard_folders(&site.path().join("out"));
    assert_eq!(shards.iter().map(|folder| records(folder)).sum::<u64>(), 90);
    let (out, whole) = (site.path().join("out"), site.path().join("whole"));
    assert!(union(&out, rows) == rows(&whole));
}

#[test]
fn killed_shard_is_resumed_without_loss_or_repetition() {
    let site = site(&noisy_tables());
    inputs::table(&site.path().join("in/large.parquet"), 0..40_000, 500);
    run_whole(site.path());
    let small_files = ["--set", "stages.out.file.records=100", "--workers", "1"];
    let shard = ["run", "p.toml", "--summary", "none", "--shard", "1/2"];
    let mut command = latentflow(site.path(), &[&shard[..], &small_files].concat());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let folder = site.path().join("out/shard-1-of-2");
    while data_files(&folder).is_empty() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before its first file"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "the run was not killed");
    let before = rows(&folder).len();
    let summaries = run_shards(site.path(), 2);
    assert_union_is_whole(site.path());
    let sink = &summaries[1]["stages"].as_array().unwrap()[3];
    let written = usize::try_from(sink["written"]["records"].as_u64().unwrap()).unwrap();
    assert_eq!(
        before + written,
        rows(&folder).len(),
        "committed rows are kept"
    );
}

#[test]
fn shards_of_tar_files_and_synthetic_data_are_divided() {
    let tar = site(&noisy_images().replace("kind = \"images\"", "kind = \"tar\""));
    inputs::images(&tar.path().join("images"), 30);
    fs::create_dir(tar.path().join("in")).unwrap();
    for number in 0..5 {
        let file = File::create(tar.path().join(format!("in/{number}.tar"))).unwrap();
        let mut archive = tar::Builder::new(file);
        for image in number * 6..(number + 1) * 6 {
            let name = inputs::image_name(image);
            let path = tar.path().join("images").join(&name);
            archive.append_path_with_name(path, name).unwrap();
        }
        archive.finish().unwrap();
    }
    let source = "kind = \"synthetic\"\ncontent = \"features\"\nrecords = 1001\nwidth = 4\n\
                  batch = { records = 64 }";
    let synthetic = site(&pipeline(source, "", "in"));
    for folder in [tar.path(), synthetic.path()] {
        run_whole(folder);
        run_shards(folder, 3);
        assert_union_is_whole(folder);
    }
}

#[test]
fn shards_of_the_sink_images_write_all_files() {
    let transforms = "[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [4, 4]\n";
    let images = pipeline("kind = \"images\"\npath = \"in\"", transforms, "pixels");
    let site = site(&images.replace("kind = \"parquet\"", "kind = \"images\""));
    inputs::images(&site.path().join("in"), 30);
    run_whole(site.path());
    run_shards(site.path(), 4);
    let all = files(&site.path().join("whole"));
    assert!(all.len() > 20);
    let written = union(&site.path().join("out"), files);
    assert_eq!(ids(&written), ids(&all));
    assert!(written == all);
    let refused = execute(site.path(), &["run", "p.toml", "--shard", "0/5"]);
    assert!(assert_code(&refused, 2).contains("holds the output of 4 shards"));
    let undivided = execute(site.path(), &["run", "p.toml"]);
    assert!(assert_code(&undivided, 2).contains("holds the output of 4 shards"));
    let shard = [
        "run",
        "p.toml",
        "--set",
        "stages.out.path=whole",
        "--shard",
        "0/5",
    ];
    let reverse = assert_code(&execute(site.path(), &shard), 2);
    assert!(
        reverse.contains("holds the output of a run without `--shard`"),
        "{reverse}"
    );
}

fn text_site() -> TempDir {
    let site = site(&pipeline("kind = \"csv\"\npath = \"in\"", "", "in"));
    for number in 0..4 {
        inputs::csv(&site.path().join(format!("in/{number}.csv")), 20);
    }
    site
}

#[test]
fn output_of_other_number_of_shards_is_refused() {
    let site = text_site();
    run_shards(site.path(), 2);
    let contents = outputs::below(&site.path().join("out"));
    for command in ["run", "check"] {
        assert_refused(
            site.path(),
            &[command, "p.toml", "--shard", "1/3"],
            "out: out: holds the output of 2 shards, and this run is shard 1/3, so readers would find \
             rows twice; use 2 shards, use another path, or delete the folder",
        );
        assert_refused(
            site.path(),
            &[command, "p.toml", "--allow-change"],
            "out: out: holds the output of 2 shards (`shard-0-of-2` to `shard-1-of-2`), and readers \
             would find rows twice; run with `--shard 0/2` to `--shard 1/2`, use another path, or \
             delete the folder",
        );
    }
    assert_eq!(outputs::below(&site.path().join("out")), contents);
    // The folder of a shard is the output of its number of shards as well.
    fs::rename(
        site.path().join("out/shard-0-of-2"),
        site.path().join("moved"),
    )
    .unwrap();
    fs::create_dir(site.path().join("other")).unwrap();
    fs::rename(
        site.path().join("moved"),
        site.path().join("other/shard-0-of-3"),
    )
    .unwrap();
    let moved = [
        "run",
        "p.toml",
        "--set",
        "stages.out.path=other",
        "--shard",
        "0/3",
    ];
    let text = assert_code(&execute(site.path(), &moved), 2);
    assert!(
        text.contains("`shards` of the stage `in` was 2 and is 3 now"),
        "{text}"
    );
}

#[test]
fn shards_after_a_run_without_shards_require_a_reset() {
    let site = text_site();
    assert_code(&execute(site.path(), &["run", "p.toml"]), 0);
    for command in ["run", "check"] {
        let text = assert_code(
            &execute(site.path(), &[command, "p.toml", "--shard", "0/2"]),
            2,
        );
        assert!(
            text.contains(
                "out: out: holds the output of a run without `--shard`, and this run is shard 0/2"
            ),
            "{text}"
        );
    }
    assert!(shard_folders(&site.path().join("out")).is_empty());
    let resumed = execute(site.path(), &["run", "p.toml"]);
    assert_code(&resumed, 0);
    assert_code(&execute(site.path(), &["reset", "p.toml", "--yes"]), 0);
    run_whole(site.path());
    run_shards(site.path(), 2);
    assert_union_is_whole(site.path());
}

#[test]
fn rejects_and_state_belong_to_the_shard() {
    let site = text_site();
    let paths = ["--set", "state=state", "--set", "rejects.path=bad"];
    let run = |shard: &str, out: &str| {
        let out = format!("stages.out.path={out}");
        let run = ["run", "p.toml", "--shard", shard, "--set", &out];
        execute(site.path(), &[&run[..], &paths].concat())
    };
    for shard in ["0/2", "1/2"] {
        assert_code(&run(shard, "out"), 0);
    }
    for (folder, kept) in [("state", 2), ("bad", 2), ("out", 2)] {
        assert_eq!(
            shard_folders(&site.path().join(folder)).len(),
            kept,
            "{folder}"
        );
    }
    assert!(
        !site
            .path()
            .join("out/shard-0-of-2/_latentflow/rejects")
            .exists()
    );
    let text = assert_code(&run("0/3", "other"), 2);
    assert!(
        text.contains("rejects: bad: holds the output of 2 shards"),
        "{text}"
    );
}

#[test]
fn runs_with_other_shards_at_the_same_time_are_refused() {
    for counts in [&[3, 2][..], &[2, 3]] {
        let site = text_site();
        let results = start_shards(site.path(), counts);
        let codes = |of: Option<i32>| {
            let ended = results
                .iter()
                .filter(|(_, output)| output.status.code() == of);
            ended.map(|(count, _)| *count).collect::<Vec<_>>()
        };
        let (done, refused) = (codes(Some(0)), codes(Some(2)));
        let winner = done[0];
        assert!(
            done.iter().all(|&count| count == winner),
            "{counts:?}: {done:?}"
        );
        assert!(refused.iter().filter(|&&count| count == winner).count() == 0);
        let folders = shard_folders(&site.path().join("out"));
        assert_eq!(folders.len(), usize::try_from(winner).unwrap());
        run_whole(site.path());
        run_shards(site.path(), winner);
        assert_union_is_whole(site.path());
    }
}

#[test]
fn source_without_files_is_refused_by_name() {
    let source = "kind = \"http\"\nlisten = \"127.0.0.1:0\"\nrecords = \"images\"";
    let site = site(&pipeline(source, "", "in"));
    for command in ["run", "check"] {
        let text = assert_code(
            &execute(site.path(), &[command, "p.toml", "--shard", "0/2"]),
            2,
        );
        assert!(
            text.contains(
                "stages.in.kind: the inputs of a source `http` cannot be listed and divided into \
                 shards; run the pipeline without --shard, or use a source that reads files"
            ),
            "{text}"
        );
    }
    assert!(!site.path().join("out").exists());
}

#[test]
fn invalid_shards_are_refused_before_the_pipeline_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "8/8",
            "the index counts from 0, so the shards are 0/8 to 7/8",
        ),
        (
            "0/0",
            "the number of shards in `0/0` is out of range; expected 1 to 65536",
        ),
        (
            "0/65537",
            "the number of shards in `0/65537` is out of range; expected 1 to 65536",
        ),
        (
            "3",
            "`3` is not a shard; expected an index and the number of shards, such as 0/8",
        ),
        ("$(INDEX)/8", "`$(INDEX)/8` is not a shard"),
    ];
    for (shard, expected) in cases {
        let text = assert_code(
            &execute(folder.path(), &["run", "none.toml", "--shard", shard]),
            2,
        );
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn commands_describe_the_folder_of_shards() {
    let site = text_site();
    run_shards(site.path(), 5);
    let shards = shard_folders(&site.path().join("out"));
    let (used, empty): (Vec<_>, Vec<_>) = shards
        .iter()
        .partition(|folder| !data_files(folder).is_empty());
    assert!(!used.is_empty() && !empty.is_empty());
    for folder in [used[0], empty[0]] {
        for command in ["inspect", "report"] {
            assert_code(
                &execute(site.path(), &[command, folder.to_str().unwrap()]),
                0,
            );
        }
        assert_code(
            &execute(site.path(), &["compact", folder.to_str().unwrap()]),
            0,
        );
    }
    let parent = |arguments: &[&str], code| assert_code(&execute(site.path(), arguments), code);
    for command in ["inspect", "report"] {
        let text = parent(&[command, "out"], 1);
        assert!(text.contains("holds the output of 5 shards; name the folder of one of them, such as out/shard-0-of-5"), "{text}");
    }
    let compacted = parent(&["compact", "out"], 1);
    assert!(
        compacted.contains("`latentflow compact out/shard-*-of-5`"),
        "{compacted}"
    );
    let reset = ["reset", "p.toml", "--yes"];
    assert_refused(
        site.path(),
        &reset,
        "run with `--shard 0/5` to `--shard 4/5`",
    );
    for (target, code) in [("out", 1), ("p.toml", 2)] {
        let purge = ["rejects", "purge", target, "--source", "*", "--yes"];
        let purged = parent(&purge, code);
        assert!(purged.contains("holds the output of 5 shards"), "{purged}");
    }
    let index = shards.iter().position(|folder| folder == used[0]).unwrap();
    let shard = format!("{index}/5");
    let purge = [
        "rejects", "purge", "p.toml", "--source", "*", "--yes", "--shard", &shard,
    ];
    parent(&purge, 0);
    let before = rows(used[0]);
    parent(&["reset", "p.toml", "--yes", "--shard", &shard], 0);
    assert!(rows(used[0]).is_empty());
    parent(&["run", "p.toml", "--shard", &shard], 0);
    assert!(rows(used[0]) == before);
}

#[test]
fn check_counts_the_share_of_a_shard() {
    let text = text_site();
    let tables = site(&noisy_tables());
    inputs::table(&tables.path().join("in/large.parquet"), 0..1000, 100);
    for (folder, unit) in [(text.path(), "4 files"), (tables.path(), "10 row groups")] {
        let mut sum = 0;
        for index in 0..3 {
            let shard = format!("{index}/3");
            let output = execute(folder, &["check", "p.toml", "--shard", &shard]);
            assert_code(&output, 0);
            let plan = String::from_utf8(output.stdout).unwrap();
            assert!(plan.contains(&format!("\nshard    {shard}\n")), "{plan}");
            let written = format!("writes out/shard-{index}-of-3\n");
            assert!(plan.contains(&written), "{plan}");
            let line = plan
                .lines()
                .find(|line| line.contains("the share of this shard"))
                .unwrap();
            let line = line.trim().strip_prefix("reads ").unwrap();
            let (count, rest) = line.split_once(" of ").unwrap();
            assert_eq!(rest, format!("{unit}, the share of this shard"));
            sum += count.parse::<u64>().unwrap();
        }
        assert_eq!(sum, unit.split_once(' ').unwrap().0.parse::<u64>().unwrap());
    }
}

#[test]
fn summary_and_log_name_the_shard() {
    let site = text_site();
    let output = execute(site.path(), &["run", "p.toml", "--shard", "1/2"]);
    let text = assert_code(&output, 0);
    assert!(text.contains("p shard 1/2 finished: "), "{text}");
    assert!(
        text.contains("the run reads the inputs of one shard shard=1/2"),
        "{text}"
    );
    assert_eq!(run_shards(site.path(), 2)[0]["shard"], "0/2");
    let (_, summary) = runs::run(
        site.path(),
        &pipeline("kind = \"csv\"\npath = \"in\"", "", "in"),
        &["--set", "stages.out.path=whole"],
    );
    assert_eq!(summary.get("shard"), None);
}
