//! Requests that fail on their way: each is made again, no record is lost or there twice, and what
//! lasts is an error of the environment.

use std::path::Path;
use std::process::{Command, Output};

use super::fault_proxy::Fault::{
    Answer, AnswerStandstill, CutAnswer, ErrorAfterEffect, LostAnswer, Reset, SlowAnswer,
    SlowRequest, Standstill,
};
use super::fault_proxy::{FaultProxy, Rule, rule};
use super::server::Bucket;
use super::{assert_done, data_keys, latentflow, rows};

const RECORDS: u64 = 3000;
/// More than any fault that passes.
const ALWAYS: usize = usize::MAX;

/// The binary, which reaches the bucket through a proxy and takes two seconds without a byte for a
/// standstill.
fn through(
    proxy: &FaultProxy,
    folder: &Path,
    bucket: &Bucket,
    attempts: u32,
    arguments: &[&str],
) -> Command {
    let mut command = latentflow(folder, bucket, arguments);
    command.env(
        "AWS_ENDPOINT_URL",
        format!("http://127.0.0.1:{}", proxy.port),
    );
    command
        .env("AWS_READ_TIMEOUT", "2s")
        .env("AWS_MAX_ATTEMPTS", attempts.to_string());
    command
}

/// Three objects of records, read into files of 700 records below `out`.
fn write_pipeline(folder: &Path, bucket: &Bucket, out: &str) {
    let lines = |file: u64| {
        (0..RECORDS / 3)
            .map(move |row| format!("{}\n", file * 1000 + row))
            .collect::<String>()
    };
    for file in 0..3 {
        bucket.put(
            &format!("in/{file}.csv"),
            format!("a\n{}", lines(file)).as_bytes(),
        );
    }
    let pipeline = format!(
        "[stages.in]\nkind = \"csv\"\npath = \"{}\"\n[stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\n\
         path = \"{}\"\nfile = {{ records = 700 }}\n",
        bucket.url("in"),
        bucket.url(out)
    );
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
}

fn values(bucket: &Bucket, out: &str) -> Vec<i64> {
    use arrow::array::AsArray as _;
    let Some(records) = super::records(bucket, out) else {
        return Vec::new();
    };
    let column = super::column(&records, "a");
    let mut values = column
        .as_primitive::<arrow::datatypes::Int64Type>()
        .values()
        .to_vec();
    values.sort_unstable();
    values
}

fn all() -> Vec<i64> {
    (0..RECORDS as i64).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One run with these faults does everything, each of them is met, and a second run finds nothing
/// to do.
fn passes(bucket: &Bucket, out: &str, rules: &[Rule]) {
    let folder = tempfile::tempdir().unwrap();
    write_pipeline(folder.path(), bucket, out);
    let proxy = FaultProxy::to(bucket.port(), rules);
    let output = through(&proxy, folder.path(), bucket, 8, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}: {}", text(&output));
    let expected: Vec<usize> = rules.iter().map(|rule| rule.times).collect();
    assert_eq!(proxy.spoiled(), expected, "{out}: not every fault was met");
    let prefix = format!("{out}/");
    assert!(values(bucket, &prefix) == all(), "{out}");
    assert_eq!(
        data_keys(bucket, &prefix).len(),
        5,
        "{out}: files of 700 records"
    );
    assert!(
        bucket
            .keys(&format!("{out}/_latentflow/upload-"))
            .is_empty(),
        "{out}: an upload is still noted"
    );
    let output = latentflow(folder.path(), bucket, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&output);
    assert_eq!(data_keys(bucket, &prefix).len(), 5, "{out}");
}

#[test]
fn listing_that_fails_is_read_again() {
    let Some(bucket) = Bucket::new("fault-list") else {
        return;
    };
    let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    for (out, fault) in [
        ("cut", CutAnswer),
        ("lost", LostAnswer),
        ("reset", Reset),
        ("error", Answer(200, error)),
        ("empty", Answer(200, "")),
    ] {
        passes(&bucket, out, &[rule("GET list-type=2", 3, fault)]);
    }
}

#[test]
fn claim_whose_answer_is_lost_is_recognized() {
    let Some(bucket) = Bucket::new("fault-claim") else {
        return;
    };
    let conflict = "<Error><Code>ConditionalRequestConflict</Code></Error>";
    for (out, fault) in [
        ("reset", Reset),
        ("lost", LostAnswer),
        ("error", ErrorAfterEffect(500)),
        ("busy", Answer(503, "<Error><Code>SlowDown</Code></Error>")),
        ("conflict", Answer(409, conflict)),
    ] {
        passes(&bucket, out, &[rule("PUT _latentflow/epoch-", 1, fault)]);
        let epochs = bucket.keys(&format!("{out}/_latentflow/epoch-"));
        assert_eq!(
            epochs,
            [format!("{out}/_latentflow/epoch-000002")],
            "one claim for each run"
        );
    }
}

#[test]
fn upload_that_fails_at_any_step_is_made_again() {
    let Some(bucket) = Bucket::new("fault-upload") else {
        return;
    };
    let begin = "POST ?uploads";
    let (part, completion) = ("PUT partNumber=1", "POST uploadId=");
    passes(
        &bucket,
        "begin",
        &[
            rule(begin, 1, CutAnswer),
            rule(begin, 1, Reset),
            rule(begin, 1, Answer(429, "")),
        ],
    );
    passes(
        &bucket,
        "part",
        &[
            rule(part, 1, Reset),
            rule(part, 1, LostAnswer),
            rule(part, 1, ErrorAfterEffect(500)),
        ],
    );
    passes(
        &bucket,
        "note",
        &[rule("PUT _latentflow/upload-", 2, LostAnswer)],
    );
    for (out, fault) in [
        ("lost", LostAnswer),
        ("cut", CutAnswer),
        ("reset", Reset),
        ("after", ErrorAfterEffect(500)),
        (
            "error",
            Answer(
                200,
                "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>",
            ),
        ),
    ] {
        passes(&bucket, out, &[rule(completion, 2, fault)]);
    }
    let stalled = Answer(400, "<Error><Code>RequestTimeout</Code></Error>");
    passes(
        &bucket,
        "stalled",
        &[rule(part, 1, stalled), rule("POST ?delete", 2, LostAnswer)],
    );
}

#[test]
fn object_whose_answer_is_cut_or_late_is_read_whole() {
    let Some(bucket) = Bucket::new("fault-read") else {
        return;
    };
    let rules = [
        rule("GET /in/1.csv", 1, CutAnswer),
        rule("GET /in/1.csv", 1, Reset),
        rule("HEAD in", 1, Reset),
    ];
    passes(&bucket, "cut", &rules);
    passes(
        &bucket,
        "busy",
        &[
            rule("GET /in/", 1, Answer(503, "")),
            rule("GET /in/2.csv", 1, Answer(429, "")),
        ],
    );
}

/// A slow transfer takes longer than the standstill, and no byte of it moves late.
#[test]
fn slow_transfer_is_no_standstill() {
    let Some(bucket) = Bucket::new("fault-slow") else {
        return;
    };
    let slow = [
        rule("GET /in/1.csv", 1, SlowAnswer),
        rule("GET list-type=2", 1, SlowAnswer),
        rule("PUT partNumber=1", 1, SlowRequest),
    ];
    let folder = tempfile::tempdir().unwrap();
    write_pipeline(folder.path(), &bucket, "slow");
    let proxy = FaultProxy::to(bucket.port(), &slow);
    // With one attempt, a transfer that is taken for a standstill ends the run.
    let output = through(&proxy, folder.path(), &bucket, 1, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&output);
    assert_eq!(proxy.spoiled(), [1, 1, 1]);
    assert!(values(&bucket, "slow/") == all());
}

#[test]
fn standstill_of_a_transfer_is_tried_again() {
    let Some(bucket) = Bucket::new("fault-still") else {
        return;
    };
    passes(
        &bucket,
        "read",
        &[
            rule("GET list-type=2", 1, AnswerStandstill),
            rule("GET /in/1.csv", 1, AnswerStandstill),
        ],
    );
    passes(
        &bucket,
        "write",
        &[
            rule("PUT partNumber=1", 1, Standstill),
            rule("POST uploadId=", 1, Standstill),
        ],
    );
}

#[test]
fn fault_that_lasts_ends_the_run_and_the_next_goes_on() {
    let Some(bucket) = Bucket::new("fault-last") else {
        return;
    };
    let busy = Answer(503, "<Error><Code>SlowDown</Code></Error>");
    for (out, request, fault) in [
        ("input", "GET prefix=in", CutAnswer),
        ("object", "GET /in/2.csv", busy),
        ("claim", "PUT _latentflow/epoch-", Reset),
        ("begin", "POST ?uploads", busy),
        ("part", "PUT partNumber=1", Reset),
        ("completion", "POST uploadId=", busy),
        ("lost", "POST uploadId=", LostAnswer),
        ("epochs", "GET _latentflow", CutAnswer),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_pipeline(folder.path(), &bucket, out);
        let proxy = FaultProxy::to(bucket.port(), &[rule(request, ALWAYS, fault)]);
        let output = through(&proxy, folder.path(), &bucket, 2, &["run", "p.toml"])
            .output()
            .unwrap();
        let prefix = format!("{out}/");
        assert_eq!(output.status.code(), Some(1), "{out}: {}", text(&output));
        assert!(
            values(&bucket, &prefix).is_sorted_by(|a, b| a < b),
            "{out}: a row is there twice"
        );
        assert!(
            proxy.spoiled()[0] > 1,
            "{out}: a request was not tried again"
        );
        let output = latentflow(folder.path(), &bucket, &["run", "p.toml"])
            .output()
            .unwrap();
        assert_done(&output);
        assert!(values(&bucket, &prefix) == all(), "{out}");
    }
}

/// Of rows that a generator makes, so that several sinks are at work.
#[test]
fn store_that_fails_at_random_loses_and_doubles_nothing() {
    let Some(bucket) = Bucket::new("fault-mixed") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("p.toml"),
        super::numbers(&bucket, 20_000, 8, "records = 3000"),
    )
    .unwrap();
    let faults = [
        Reset,
        LostAnswer,
        CutAnswer,
        ErrorAfterEffect(500),
        Answer(503, ""),
    ];
    let requests = ["GET /", "PUT /", "POST /", "HEAD /", "DELETE /"];
    let rules: Vec<Rule> = faults
        .iter()
        .flat_map(|fault| requests.iter().map(|request| rule(request, 1, *fault)))
        .collect();
    let proxy = FaultProxy::to(bucket.port(), &rules);
    let output = through(&proxy, folder.path(), &bucket, 8, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&output);
    assert!(rows(&bucket, "out/") == (0..20_000).collect::<Vec<_>>());
    assert!(proxy.spoiled().iter().sum::<usize>() > 10);
}
