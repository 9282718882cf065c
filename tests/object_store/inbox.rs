//! Tests of prefixes as input: watched and empty ones, unusable keys, and runs that are refused
//! before they claim an output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Store as _;
use super::fault_proxy::Fault::Response;
use super::fault_proxy::{FaultProxy, rule};
use super::server::Bucket;
use super::{PIXEL, assert_done, latentflow, run};

/// Time after which a wait fails the test.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

fn images(bucket: &Bucket, path: &str, more: &str, out: &str) -> String {
    format!(
        "[stages.in]\nkind = \"images\"\npath = \"{}\"\n{more}\
         [stages.px]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [4, 4]\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"px\"]\npath = \"{}\"\n",
        bucket.url(path),
        bucket.url(out)
    )
}

fn watching(bucket: &Bucket, out: &str) -> String {
    format!(
        "state = \"state\"\n[commit]\nage = \"200ms\"\n{}",
        images(bucket, "in", "watch = true\nrescan = \"200ms\"\n", out)
    )
}

/// An unbounded run, which is killed at the end of the test.
struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    port: u16,
}

impl Daemon {
    /// Starts `p.toml` and waits until the daemon is ready.
    fn start(mut command: Command) -> Self {
        command.args([
            "run",
            "p.toml",
            "--metrics",
            "127.0.0.1:0",
            "--log-format",
            "text",
        ]);
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, reader_log) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            Arc::clone(&log),
        );
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| reader_log.lock().unwrap().push_str(&(line + "\n")));
        });
        let mut daemon = Self {
            child,
            log,
            port: 0,
        };
        daemon.port = daemon.wait("the admin listener", || {
            let text = daemon.log();
            let (_, rest) = text.split_once("metrics at http://127.0.0.1:")?;
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        });
        daemon.wait("readiness", || {
            daemon
                .get("/readyz")
                .starts_with("HTTP/1.1 200")
                .then_some(())
        });
        daemon
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn get(&self, path: &str) -> String {
        let mut response = String::new();
        let stream = TcpStream::connect(("127.0.0.1", self.port));
        let result = stream.and_then(|mut stream| {
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.port
            )?;
            stream.read_to_string(&mut response)
        });
        if result.is_ok() {
            response
        } else {
            String::new()
        }
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics");
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn wait<T>(&self, expected: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = poll() {
                return found;
            }
            assert!(
                started.elapsed() < WAIT_TIMEOUT,
                "timed out waiting for {expected}; log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and asserts exit code 0.
    fn stop(mut self) {
        assert!(
            Command::new("kill")
                .args(["-TERM", &self.child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sources(bucket: &Bucket, out: &str) -> Vec<String> {
    use arrow::array::AsArray as _;
    let Some(records) = super::records(bucket, &format!("{out}/")) else {
        return Vec::new();
    };
    let column = super::column(&records, "source");
    let mut sources: Vec<String> = column
        .as_string::<i32>()
        .iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    sources.sort();
    sources
}

#[test]
fn watched_empty_prefix_reads_new_objects() {
    let Some(bucket) = Bucket::new("inbox") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), watching(&bucket, "out")).unwrap();
    let check = latentflow(folder.path(), &bucket, &["check", "p.toml"])
        .output()
        .unwrap();
    assert_done(&check);
    assert!(
        check.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
    for name in ["a", "b"] {
        // At the first start the prefix is new; before the second one its objects were removed.
        let daemon = Daemon::start(latentflow(folder.path(), &bucket, &[]));
        bucket.put(&format!("in/{name}.ppm"), PIXEL);
        let file = format!("{name}.ppm");
        daemon.wait("the image", || {
            sources(&bucket, "out").contains(&file).then_some(())
        });
        bucket.remove(&format!("in/{file}"));
        bucket.put(&format!("in/{name}-later.ppm"), b"P6 1 1 255\n\x05\x05\x05");
        let later = format!("{name}-later.ppm");
        daemon.wait("the later image", || {
            sources(&bucket, "out").contains(&later).then_some(())
        });
        bucket.remove(&format!("in/{later}"));
        daemon.stop();
    }
    assert_eq!(
        sources(&bucket, "out"),
        ["a-later.ppm", "a.ppm", "b-later.ppm", "b.ppm"],
        "expected each image once"
    );
}

#[test]
fn daemon_waits_for_an_unavailable_store() {
    let Some(bucket) = Bucket::new("outage") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), watching(&bucket, "out")).unwrap();
    let proxy = FaultProxy::to(bucket.port(), &[]);
    let mut command = latentflow(folder.path(), &bucket, &[]);
    command
        .env(
            "AWS_ENDPOINT_URL",
            format!("http://127.0.0.1:{}", proxy.port),
        )
        .env("AWS_MAX_ATTEMPTS", "2");
    let daemon = Daemon::start(command);
    const WAITING: &str = "latentflow_sinks_waiting_for_store";
    for (name, request) in [
        ("a", "POST ?uploads"),
        ("b", "PUT partNumber"),
        ("c", "POST uploadId="),
        ("d", "PUT upload-"),
    ] {
        proxy.set_rules(&[rule(
            request,
            usize::MAX,
            Response(503, "<Error><Code>SlowDown</Code></Error>"),
        )]);
        bucket.put(
            &format!("in/{name}.ppm"),
            format!("P6 1 1 255\n{name}{name}{name}").as_bytes(),
        );
        daemon.wait("a sink that waits", || {
            daemon.metric(WAITING).filter(|&waiting| waiting > 0.0)
        });
        proxy.set_rules(&[]);
        let file = format!("{name}.ppm");
        daemon.wait("the image", || {
            sources(&bucket, "out").contains(&file).then_some(())
        });
        daemon.wait("the end of the outage", || {
            daemon.metric(WAITING).filter(|&waiting| waiting == 0.0)
        });
    }
    assert!(
        daemon.log().contains("SlowDown") && daemon.log().contains("the store is reachable again"),
        "{}",
        daemon.log()
    );
    daemon.stop();
    assert_eq!(
        sources(&bucket, "out"),
        ["a.ppm", "b.ppm", "c.ppm", "d.ppm"],
        "expected each image once"
    );
}

#[test]
fn keys_that_are_not_valid_file_names_are_skipped() {
    let Some(bucket) = Bucket::new("odd-keys") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for number in 0..30 {
        bucket.put(&format!("in/{number:02}.ppm"), PIXEL);
    }
    let odd = [
        "tab%09x.ppm",
        "../y.ppm",
        "./z.ppm",
        "x%0D.ppm",
        "a//b.ppm",
        "dir/x.ppm/",
        "%01.ppm",
        "%20.ppm%20",
    ];
    odd.iter()
        .for_each(|key| bucket.put(&format!("in/{key}"), PIXEL));
    bucket.put("in/folder/", b"");
    let unusable = odd.len();
    // The output prefix, which is listed before each commit, holds such keys, too.
    bucket.put("out/_latentflow/odd%09key", b"x");
    bucket.put("out/odd%09folder/x", b"x");
    for path in ["in", "in/**/*.ppm"] {
        let (output, summary) = run(
            folder.path(),
            &bucket,
            &images(&bucket, path, "", "out"),
            &["--allow-change"],
        );
        assert_done(&output);
        assert_eq!(summary["rejects"], 0, "{path}");
        assert_eq!(
            summary["stages"][0]["passed_over"]["unusable_keys"], unusable,
            "{path}"
        );
    }
    assert_eq!(
        sources(&bucket, "out").len(),
        30,
        "expected the glob to match the same images"
    );
    std::fs::write(
        folder.path().join("p.toml"),
        images(&bucket, "in", "", "other"),
    )
    .unwrap();
    let check = latentflow(folder.path(), &bucket, &["check", "p.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains(&format!(
            "{unusable} with keys that are not valid file names"
        )),
        "{text}"
    );
}

#[test]
fn objects_below_the_key_of_an_object_are_counted() {
    let Some(bucket) = Bucket::new("below-object") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bucket.put("img", PIXEL);
    for number in 0..3 {
        bucket.put(&format!("img/{number}.ppm"), PIXEL);
    }
    let (output, summary) = run(
        folder.path(),
        &bucket,
        &images(&bucket, "img", "", "out"),
        &[],
    );
    assert_done(&output);
    assert_eq!(
        (
            &summary["records"],
            &summary["stages"][0]["passed_over"]["below_object"]
        ),
        (&1.into(), &3.into())
    );
    let check = latentflow(folder.path(), &bucket, &["check", "p.toml"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        text.contains("3 below the name of the object that is read"),
        "{text}"
    );
    let (glob_output, glob_summary) = run(
        folder.path(),
        &bucket,
        &images(&bucket, "img/**/*", "", "all"),
        &[],
    );
    assert_done(&glob_output);
    assert_eq!(glob_summary["records"], 3);
}

#[test]
fn refused_run_does_not_claim_an_epoch() {
    let Some(bucket) = Bucket::new("claims") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bucket.put("in/a.ppm", PIXEL);
    let good = images(&bucket, "in", "", "out");
    assert_done(&run(folder.path(), &bucket, &good, &[]).0);
    let other = good.replace("size = [4, 4]", "size = [2, 2]");
    let missing = good.replace("/in\"", "/nowhere\"");
    let local = good.replace(&bucket.url("in"), "no/such/folder");
    let stateless = watching(&bucket, "out").replace("state = \"state\"\n", "");
    for (pipeline, code, reason) in [
        (&other, 2, "latentflow reset"),
        (&missing, 2, "does not exist"),
        (&local, 2, "does not exist"),
        (&stateless, 2, "set `state = \"some/folder\"`"),
    ] {
        let (output, summary) = run(folder.path(), &bucket, pipeline, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), summary),
            (Some(code), Value::Null),
            "{text}"
        );
        assert!(text.contains(reason), "{text}");
        assert_eq!(
            bucket.keys("out/_latentflow/epoch-"),
            ["out/_latentflow/epoch-000001"],
            "{reason}"
        );
    }
    // `check` refuses the pipeline as well.
    std::fs::write(folder.path().join("p.toml"), stateless).unwrap();
    let check = latentflow(folder.path(), &bucket, &["check", "p.toml"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(2));
}

#[test]
fn endpoint_without_https_is_refused() {
    let Some(bucket) = Bucket::new("endpoint") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("p.toml"),
        images(&bucket, "in", "", "out"),
    )
    .unwrap();
    let check = |endpoint: &str, name: &str, allowed: Option<&str>| {
        let mut command = latentflow(Path::new(folder.path()), &bucket, &["check", "p.toml"]);
        command
            .env_remove("AWS_ENDPOINT_URL")
            .env_remove("AWS_ALLOW_HTTP")
            .env(name, endpoint);
        allowed.map(|allowed| command.env("AWS_ALLOW_HTTP", allowed));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{endpoint}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (name, allowed) in [
        ("AWS_ENDPOINT_URL", None),
        ("AWS_ENDPOINT_URL_S3", Some("false")),
        ("AWS_ENDPOINT", Some("0")),
    ] {
        let text = check("http://127.0.0.1:9000", name, allowed);
        assert!(
            text.contains(
                "`http://127.0.0.1:9000` is not an https:// address: set AWS_ALLOW_HTTP=true"
            ),
            "{text}"
        );
    }
    let text = check("127.0.0.1:9000", "AWS_ENDPOINT_URL", Some("true"));
    assert!(
        text.contains("`127.0.0.1:9000` is not an address; expected AWS_ENDPOINT_URL=https://"),
        "{text}"
    );
    let mut command = latentflow(folder.path(), &bucket, &["check", "p.toml"]);
    let output = command.env("AWS_READ_TIMEOUT", "soon").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && message.contains("AWS_READ_TIMEOUT is `soon`"),
        "{message}"
    );
}
