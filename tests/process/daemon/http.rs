//! Tests of the `http` source: acknowledged records survive kills, requests above the limits are
//! refused, and clients do not block one another.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::outputs::{ids, records};

const NDJSON: &str = "application/x-ndjson";

/// A pipeline from an `http` source of features, with `lines` in its table, through a filter.
fn site(lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        r#"
[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = {{ x = "float", y = "float" }}
batch = {{ delay = "5ms" }}
{lines}

[stages.features]
kind = "features"
inputs = ["in"]
columns = ["x", "y"]
keep = true

[stages.positive]
kind = "filter"
inputs = ["features"]
column = "x"
at_least = 0.0

[stages.out]
kind = "parquet"
inputs = ["positive"]
path = "out"

[commit]
age = "50ms"
"#
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

fn rows(folder: &Path) -> Vec<u64> {
    let mut rows: Vec<u64> = ids(&records(folder, &["row"]))
        .iter()
        .map(|row| row.parse().unwrap())
        .collect();
    rows.sort_unstable();
    rows
}

/// Waits until `count` rows are committed.
fn wait_for_rows(daemon: &Daemon, folder: &Path, count: u64) {
    daemon.wait("all rows", || {
        (rows(&folder.join("out")).len() as u64 >= count).then_some(())
    });
}

fn line(x: f64) -> String {
    format!("{{\"x\": {x}, \"y\": 1}}\n")
}

#[test]
fn acknowledged_records_survive_kills_and_are_written_once() {
    let site = site("");
    let mut acknowledged = 0;
    for round in 0..5 {
        let daemon = Daemon::start(site.path());
        let source = daemon.source();
        for number in 0..20 {
            let response = source.post(
                "/v1/records",
                NDJSON,
                line(f64::from(number)).repeat(3).as_bytes(),
            );
            assert_eq!(
                response.status_and_json(),
                (
                    202,
                    json!({"first": acknowledged, "records": 3, "invalid": []})
                )
            );
            acknowledged += 3;
        }
        std::thread::sleep(Duration::from_millis(20 * round));
        if round < 4 {
            daemon.kill();
        } else {
            wait_for_rows(&daemon, site.path(), acknowledged);
            daemon.stop();
        }
    }
    assert!(rows(&site.path().join("out")) == (0..acknowledged).collect::<Vec<u64>>());
}

#[test]
fn idempotency_key_prevents_duplicate_after_crash_before_reply() {
    for step in ["request-written:3", "request-synced:3"] {
        let site = site("");
        let post = |daemon: &Daemon, number: u32| {
            let (key, body) = (format!("key-{number}"), line(f64::from(number)));
            let headers = [("Content-Type", NDJSON), ("Idempotency-Key", key.as_str())];
            daemon
                .source()
                .request("POST", "/v1/records", &headers, body.as_bytes())
                .status
        };
        let daemon = Daemon::start_with(site.path(), &[("LATENTFLOW_CRASH_AT", step)]);
        assert_eq!(
            [post(&daemon, 0), post(&daemon, 1), post(&daemon, 2)],
            [202, 202, 0],
            "{step}"
        );
        drop(daemon);
        let restarted = Daemon::start(site.path());
        assert_eq!(
            [
                post(&restarted, 2),
                post(&restarted, 1),
                post(&restarted, 3)
            ],
            [202, 202, 202]
        );
        wait_for_rows(&restarted, site.path(), 4);
        restarted.stop();
        assert_eq!(rows(&site.path().join("out")), [0, 1, 2, 3], "{step}");
    }
}

#[test]
fn committed_response_lists_outcome_of_each_record() {
    let site = site("");
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let body = format!(
        "{}{}{{\"x\": null}}\nnot json\n{}",
        line(1.0),
        line(-1.0),
        line(2.0)
    );
    let (status, response) = source
        .post(
            "/v1/records?ack=committed&source=me",
            NDJSON,
            body.as_bytes(),
        )
        .status_and_json();
    assert_eq!(
        (
            status,
            &response["committed"],
            &response["first"],
            &response["records"]
        ),
        (200, &json!(true), &json!(0), &json!(4))
    );
    assert_eq!(response["dropped"], json!([1]));
    assert_eq!(
        (
            &response["rejected"][0]["row"],
            &response["rejected"][0]["stage"]
        ),
        (&json!(2), &json!("features")),
        "{response}"
    );
    assert_eq!(response["invalid"][0]["record"], json!(3));
    // The records are visible once the response has been sent.
    assert_eq!(rows(&site.path().join("out")), [0, 3]);
    assert_eq!(
        ids(&records(&site.path().join("out"), &["source"])),
        ["me", "me"]
    );
    daemon.stop();
}

#[test]
fn idempotency_key_marks_repeated_requests() {
    let site = site("");
    let send = |daemon: &Daemon, body: &str| {
        let headers = [("Content-Type", NDJSON), ("Idempotency-Key", "one")];
        daemon
            .source()
            .request(
                "POST",
                "/v1/records?ack=committed",
                &headers,
                body.as_bytes(),
            )
            .status_and_json()
    };
    let daemon = Daemon::start(site.path());
    let first = send(&daemon, &line(1.0));
    assert_eq!(
        (first.0, &first.1["first"], first.1.get("duplicate")),
        (200, &json!(0), None)
    );
    assert_eq!(
        daemon
            .source()
            .post("/v1/records", NDJSON, line(2.0).as_bytes())
            .status,
        202
    );
    let again = send(&daemon, &line(1.0));
    assert_eq!(
        (again.0, &again.1["first"], &again.1["duplicate"]),
        (200, &json!(0), &json!(true))
    );
    assert_eq!(
        send(&daemon, &line(3.0)).0,
        422,
        "a different request with the same key"
    );
    let headers = [("Content-Type", NDJSON), ("Idempotency-Key", "one")];
    let other = daemon.source().request(
        "POST",
        "/v1/records?source=other",
        &headers,
        line(1.0).as_bytes(),
    );
    assert_eq!(other.status, 422, "the same body from another source");
    daemon.stop();
    let restarted = Daemon::start(site.path());
    assert_eq!(
        send(&restarted, &line(1.0)).1["duplicate"],
        json!(true),
        "after a restart"
    );
    wait_for_rows(&restarted, site.path(), 2);
    restarted.stop();
    assert_eq!(rows(&site.path().join("out")), [0, 1]);
}

#[test]
fn encode_returns_results_and_stores_no_record() {
    let site = site("");
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let body = format!("{}{}{{\"x\": null}}\n", line(1.5), line(-1.0));
    let (status, response) = source
        .post("/v1/encode?columns=x,features", NDJSON, body.as_bytes())
        .status_and_json();
    assert_eq!(status, 200);
    assert_eq!(
        response["records"][0],
        json!({"x": 1.5, "features": [1.5, 1.0]})
    );
    assert_eq!(response["records"][1], json!({"dropped": true}));
    assert_eq!(
        response["records"][2]["rejected"]["stage"],
        json!("features"),
        "{response}"
    );
    let (refused_status, refusal) = source
        .post("/v1/encode?columns=nothing", NDJSON, line(1.0).as_bytes())
        .status_and_json();
    assert!(
        refused_status == 400
            && refusal["error"]
                .as_str()
                .unwrap()
                .contains("no column `nothing`; expected one of "),
        "{refusal}"
    );
    let responses: Vec<Value> = std::thread::scope(|scope| {
        let send = |number: u32| {
            source
                .post(
                    "/v1/encode?columns=x",
                    NDJSON,
                    line(f64::from(number)).as_bytes(),
                )
                .json()
        };
        let threads: Vec<_> = (0..40)
            .map(|number| scope.spawn(move || send(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (number, encoded) in responses.iter().enumerate() {
        assert_eq!(
            encoded["records"],
            json!([{ "x": number as f64 }]),
            "each response belongs to its request"
        );
    }
    daemon.stop();
    assert!(records(&site.path().join("out"), &["row"]).is_empty());
}

#[test]
fn requests_beyond_limits_are_refused_while_others_succeed() {
    let site = site(
        "token = { file = \"token\" }\n\
         limits = { request = \"1MB\", timeout = \"1s\", requests = 4 }",
    );
    fs::write(site.path().join("token"), "0123456789abcdef\n").unwrap();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let bearer = ("Authorization", "Bearer 0123456789abcdef");
    let send = |body: &[u8]| {
        source.request(
            "POST",
            "/v1/records",
            &[bearer, ("Content-Type", NDJSON)],
            body,
        )
    };
    assert_eq!(
        source
            .post("/v1/records", NDJSON, line(1.0).as_bytes())
            .status,
        401
    );
    // A client that stalls, one that declares 10 GB, one that never ends, and one without HTTP.
    let mut slow = source.connect();
    let head = "POST /v1/records HTTP/1.1\r\nHost: a\r\n\
                Authorization: Bearer 0123456789abcdef\r\n\
                Content-Type: application/x-ndjson\r\n";
    slow.write_all(format!("{head}Content-Length: 1000\r\n\r\n{{").as_bytes())
        .unwrap();
    assert_eq!(
        source
            .send(format!("{head}Content-Length: 10000000000\r\n\r\n").as_bytes())
            .status,
        413
    );
    let endless = [
        format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes(),
        b"FFFFF\r\n".to_vec(),
        vec![b' '; 2 << 20],
    ];
    let refused = source.send(&endless.concat()).status;
    assert!(
        [413, 0].contains(&refused),
        "neither refused nor cut off: {refused}"
    );
    assert_eq!(source.send(b"\x16\x03\x01 garbage\r\n\r\n").status, 400);
    assert_eq!(send(line(1.0).as_bytes()).status, 202);
    let mut response = String::new();
    slow.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert_eq!(source.get("/v1/records").status, 405);
    assert_eq!(source.get("/elsewhere").status, 404);
    assert_eq!(
        source.get("/openapi.json").json()["openapi"],
        json!("3.1.0")
    );
    let kinds = source.request(
        "POST",
        "/v1/records",
        &[bearer, ("Content-Type", "text/html")],
        b"x",
    );
    assert_eq!(kinds.status, 415);
    wait_for_rows(&daemon, site.path(), 1);
    daemon.stop();
    assert_eq!(rows(&site.path().join("out")), [0]);
}

#[test]
fn requests_above_backlog_are_refused_with_retry_after() {
    let site = site("limits = { backlog = \"4KiB\" }");
    let lazy = fs::read_to_string(site.path().join("p.toml"))
        .unwrap()
        .replace("50ms", "1h");
    fs::write(site.path().join("p.toml"), lazy).unwrap();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let responses: Vec<_> = (0..10)
        .map(|_| source.post("/v1/records", NDJSON, line(1.0).as_bytes()))
        .collect();
    let accepted = responses
        .iter()
        .filter(|response| response.status == 202)
        .count();
    let refused: Vec<_> = responses
        .iter()
        .filter(|response| response.status == 429)
        .collect();
    assert!(
        accepted > 0 && !refused.is_empty() && accepted + refused.len() == 10,
        "{responses:?}"
    );
    assert!(
        refused[0]
            .head
            .to_ascii_lowercase()
            .contains("retry-after: "),
        "{}",
        refused[0].head
    );
    assert!(daemon.metric("latentflow_journal_backlog_limit_bytes{stage=\"in\"}") > 0.0);
    daemon.stop();
    // The next run processes the records that are still in the journal.
    let pipeline = fs::read_to_string(site.path().join("p.toml"))
        .unwrap()
        .replace("1h", "50ms");
    fs::write(site.path().join("p.toml"), pipeline).unwrap();
    let restarted = Daemon::start(site.path());
    wait_for_rows(&restarted, site.path(), accepted as u64);
    restarted.stop();
    assert_eq!(rows(&site.path().join("out")).len(), accepted);
}

#[test]
fn unauthenticated_public_address_is_refused_by_check() {
    let site = site("");
    let pipeline = fs::read_to_string(site.path().join("p.toml"))
        .unwrap()
        .replace("127.0.0.1:0", "0.0.0.0:8080");
    fs::write(site.path().join("p.toml"), pipeline).unwrap();
    let output = crate::common::runs::latentflow(site.path(), &["check", "p.toml"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && errors.contains("can be reached from other machines"),
        "{errors}"
    );
}
