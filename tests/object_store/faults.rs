//! Tests of failing requests: each is retried, no record is lost or duplicated, and a permanent
//! failure is an error of the environment.

use std::path::Path;
use std::process::{Command, Output};

use super::Store as _;
use super::fault_proxy::Fault::{
    ErrorAfterEffect, LostResponse, Reset, Response, SlowRequest, SlowResponse, StalledRequest,
    StalledResponse, TruncatedResponse,
};
use super::fault_proxy::{FaultProxy, Rule, rule};
use super::server::Bucket;
use super::{assert_done, data_keys, latentflow, rows};

const RECORDS: u64 = 3000;
/// The number of times of a permanent fault.
const ALWAYS: usize = usize::MAX;

/// The binary, which reaches the bucket through a proxy and times out after two seconds without a
/// byte.
fn latentflow_through(
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

/// Writes three objects of records, and a pipeline that reads them into files of 700 records below
/// `out`.
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
        "[stages.in]\nkind = \"csv\"\npath = \"{}\"\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"{}\"\n\
         file = {{ records = 700 }}\n",
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

/// Asserts that one run with these faults reads all records, that each fault occurs, and that a
/// second run has nothing to do.
fn assert_survives(bucket: &Bucket, out: &str, rules: &[Rule]) {
    let folder = tempfile::tempdir().unwrap();
    write_pipeline(folder.path(), bucket, out);
    let proxy = FaultProxy::to(bucket.port(), rules);
    let output = latentflow_through(&proxy, folder.path(), bucket, 8, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}: {}", text(&output));
    let expected: Vec<usize> = rules.iter().map(|rule| rule.times).collect();
    assert_eq!(proxy.applied(), expected, "{out}: not every fault occurred");
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
        "{out}: the record of an upload remains"
    );
    let rerun = latentflow(folder.path(), bucket, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&rerun);
    assert_eq!(data_keys(bucket, &prefix).len(), 5, "{out}");
}

#[test]
fn failing_listing_is_retried() {
    let Some(bucket) = Bucket::new("fault-list") else {
        return;
    };
    let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    for (out, fault) in [
        ("cut", TruncatedResponse),
        ("lost", LostResponse),
        ("reset", Reset),
        ("error", Response(200, error)),
        ("empty", Response(200, "")),
    ] {
        assert_survives(&bucket, out, &[rule("GET list-type=2", 3, fault)]);
    }
}

#[test]
fn epoch_claim_with_lost_response_is_recognized() {
    let Some(bucket) = Bucket::new("fault-claim") else {
        return;
    };
    let conflict = "<Error><Code>ConditionalRequestConflict</Code></Error>";
    for (out, fault) in [
        ("reset", Reset),
        ("lost", LostResponse),
        ("error", ErrorAfterEffect(500)),
        (
            "busy",
            Response(503, "<Error><Code>SlowDown</Code></Error>"),
        ),
        ("conflict", Response(409, conflict)),
    ] {
        assert_survives(&bucket, out, &[rule("PUT _latentflow/epoch-", 1, fault)]);
        let epochs = bucket.keys(&format!("{out}/_latentflow/epoch-"));
        assert_eq!(
            epochs,
            [format!("{out}/_latentflow/epoch-000002")],
            "each run claims one epoch"
        );
    }
}

#[test]
fn upload_that_fails_at_any_step_is_retried() {
    let Some(bucket) = Bucket::new("fault-upload") else {
        return;
    };
    let begin = "POST ?uploads";
    let (part, completion) = ("PUT partNumber=1", "POST uploadId=");
    assert_survives(
        &bucket,
        "begin",
        &[
            rule(begin, 1, TruncatedResponse),
            rule(begin, 1, Reset),
            rule(begin, 1, Response(429, "")),
        ],
    );
    assert_survives(
        &bucket,
        "part",
        &[
            rule(part, 1, Reset),
            rule(part, 1, LostResponse),
            rule(part, 1, ErrorAfterEffect(500)),
        ],
    );
    assert_survives(
        &bucket,
        "note",
        &[rule("PUT _latentflow/upload-", 2, LostResponse)],
    );
    for (out, fault) in [
        ("lost", LostResponse),
        ("cut", TruncatedResponse),
        ("reset", Reset),
        ("after", ErrorAfterEffect(500)),
        (
            "error",
            Response(
                200,
                "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>",
            ),
        ),
    ] {
        assert_survives(&bucket, out, &[rule(completion, 2, fault)]);
    }
    let stalled = Response(400, "<Error><Code>RequestTimeout</Code></Error>");
    assert_survives(
        &bucket,
        "stalled",
        &[
            rule(part, 1, stalled),
            rule("POST ?delete", 2, LostResponse),
        ],
    );
}

#[test]
fn object_with_truncated_response_is_read_completely() {
    let Some(bucket) = Bucket::new("fault-read") else {
        return;
    };
    let rules = [
        rule("GET /in/1.csv", 1, TruncatedResponse),
        rule("GET /in/1.csv", 1, Reset),
        rule("HEAD in", 1, Reset),
    ];
    assert_survives(&bucket, "cut", &rules);
    assert_survives(
        &bucket,
        "busy",
        &[
            rule("GET /in/", 1, Response(503, "")),
            rule("GET /in/2.csv", 1, Response(429, "")),
        ],
    );
}

/// A slow transfer takes longer than the timeout, but each of its steps takes less.
#[test]
fn slow_transfer_does_not_time_out() {
    let Some(bucket) = Bucket::new("fault-slow") else {
        return;
    };
    let slow = [
        rule("GET /in/1.csv", 1, SlowResponse),
        rule("GET list-type=2", 1, SlowResponse),
        rule("PUT partNumber=1", 1, SlowRequest),
    ];
    let folder = tempfile::tempdir().unwrap();
    write_pipeline(folder.path(), &bucket, "slow");
    let proxy = FaultProxy::to(bucket.port(), &slow);
    // With one attempt, a timeout ends the run.
    let output = latentflow_through(&proxy, folder.path(), &bucket, 1, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&output);
    assert_eq!(proxy.applied(), [1, 1, 1]);
    assert!(values(&bucket, "slow/") == all());
}

#[test]
fn stalled_transfer_is_retried() {
    let Some(bucket) = Bucket::new("fault-still") else {
        return;
    };
    assert_survives(
        &bucket,
        "read",
        &[
            rule("GET list-type=2", 1, StalledResponse),
            rule("GET /in/1.csv", 1, StalledResponse),
        ],
    );
    assert_survives(
        &bucket,
        "write",
        &[
            rule("PUT partNumber=1", 1, StalledRequest),
            rule("POST uploadId=", 1, StalledRequest),
        ],
    );
}

#[test]
fn permanent_fault_ends_the_run_and_the_next_continues() {
    let Some(bucket) = Bucket::new("fault-last") else {
        return;
    };
    let busy = Response(503, "<Error><Code>SlowDown</Code></Error>");
    for (out, request, fault) in [
        ("input", "GET prefix=in", TruncatedResponse),
        ("object", "GET /in/2.csv", busy),
        ("claim", "PUT _latentflow/epoch-", Reset),
        ("begin", "POST ?uploads", busy),
        ("part", "PUT partNumber=1", Reset),
        ("completion", "POST uploadId=", busy),
        ("lost", "POST uploadId=", LostResponse),
        ("epochs", "GET _latentflow", TruncatedResponse),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_pipeline(folder.path(), &bucket, out);
        let proxy = FaultProxy::to(bucket.port(), &[rule(request, ALWAYS, fault)]);
        let output = latentflow_through(&proxy, folder.path(), &bucket, 2, &["run", "p.toml"])
            .output()
            .unwrap();
        let prefix = format!("{out}/");
        assert_eq!(output.status.code(), Some(1), "{out}: {}", text(&output));
        assert!(
            values(&bucket, &prefix).is_sorted_by(|a, b| a < b),
            "{out}: a row is duplicated"
        );
        assert!(proxy.applied()[0] > 1, "{out}: a request was not retried");
        let resumed = latentflow(folder.path(), &bucket, &["run", "p.toml"])
            .output()
            .unwrap();
        assert_done(&resumed);
        assert!(values(&bucket, &prefix) == all(), "{out}");
    }
}

#[test]
fn faults_of_all_requests_lose_and_duplicate_no_row() {
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
        LostResponse,
        TruncatedResponse,
        ErrorAfterEffect(500),
        Response(503, ""),
    ];
    let requests = ["GET /", "PUT /", "POST /", "HEAD /", "DELETE /"];
    let rules: Vec<Rule> = faults
        .iter()
        .flat_map(|fault| requests.iter().map(|request| rule(request, 1, *fault)))
        .collect();
    let proxy = FaultProxy::to(bucket.port(), &rules);
    let output = latentflow_through(&proxy, folder.path(), &bucket, 8, &["run", "p.toml"])
        .output()
        .unwrap();
    assert_done(&output);
    assert!(rows(&bucket, "out/") == (0..20_000).collect::<Vec<_>>());
    assert!(proxy.applied().iter().sum::<usize>() > 10);
}
