//! Tests of watched folders whose files are unreadable, change before they are read, or are missing
//! for some time.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::daemon_process::Daemon;
use super::watch::{PIPELINE, outcomes, site, wait_for_records};
use crate::common::inputs::image_name;
use crate::common::runs;

/// Divides the delays of the watch by 20.
const SPEED: (&str, &str) = ("LATENTFLOW_WATCH_SPEED", "20");
const USER: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

fn copy(site: &Path, number: usize, name: &str) {
    fs::copy(
        site.join("made").join(image_name(number)),
        site.join("in").join(name),
    )
    .unwrap();
}

/// The status and the text of `/readyz`.
fn readiness(daemon: &Daemon) -> (u16, String) {
    let response = daemon.admin.get("/readyz");
    (response.status, String::from_utf8(response.body).unwrap())
}

#[test]
fn unreadable_file_becomes_reject_that_can_be_replayed() {
    let site = site();
    let pipeline = PIPELINE.replace("rescan = \"1s\"", "retry_timeout = \"1s\"");
    fs::write(site.path().join("p.toml"), pipeline).unwrap();
    [".", "in"].iter().for_each(|folder| {
        fs::set_permissions(site.path().join(folder), Permissions::from_mode(0o777)).unwrap();
    });
    let secret = site.path().join("in/secret.pgm");
    copy(site.path(), 1, "secret.pgm");
    fs::set_permissions(&secret, Permissions::from_mode(0o0)).unwrap();
    let is_root = fs::read(&secret).is_ok();
    let wrapper: &[&str] = if is_root { &USER } else { &[] };
    if is_root
        && !Command::new(USER[0])
            .args(&USER[1..])
            .arg("true")
            .status()
            .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this runs as root, and setpriv cannot run a program as another user");
        return;
    }
    let daemon = Daemon::start_by(wrapper, site.path(), &[SPEED]);
    daemon.wait("the file to be reported", || {
        readiness(&daemon)
            .1
            .contains("1 file waits to be read")
            .then_some(())
    });
    assert!(daemon.metric("latentflow_watch_waiting_files{stage=\"in\"}") > 0.0);
    // The unreadable file does not delay others.
    copy(site.path(), 2, "open.pgm");
    wait_for_records(&daemon, site.path(), 2);
    assert_eq!(
        outcomes(site.path()),
        (vec!["open.pgm".to_owned()], vec!["secret.pgm".to_owned()])
    );
    let log = daemon.stop();
    assert!(log.contains("Permission denied"), "{log}");
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let replay = PIPELINE
        .replace("kind = \"images\"", "kind = \"rejects\"")
        .replace(
            "path = \"in\"\nwatch = true\nrescan = \"1s\"",
            "path = \"out/_latentflow/rejects\"",
        )
        .replace("path = \"out\"", "path = \"again\"");
    let (output, summary) = runs::run(site.path(), &replay, &[]);
    assert_eq!(
        (output.status.code(), &summary["rejects"]),
        (Some(0), &Value::from(0)),
        "{output:?}"
    );
    assert_eq!(sources(site.path(), "again"), ["secret.pgm"]);
}

/// The sources of the records of an output.
fn sources(site: &Path, output: &str) -> Vec<String> {
    let records = crate::common::outputs::records(&site.join(output), &["source"]);
    crate::common::outputs::ids(&records)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn missing_folder_is_reported_until_it_returns() {
    let site = site();
    let (watched, away) = (site.path().join("in"), site.path().join("away"));
    let daemon = Daemon::start_with(site.path(), &[SPEED]);
    copy(site.path(), 1, "one.pgm");
    wait_for_records(&daemon, site.path(), 1);
    fs::rename(&watched, &away).unwrap();
    daemon.wait("the report of the missing folder", || {
        (readiness(&daemon).0 == 503).then_some(())
    });
    assert_eq!(
        daemon.metric("latentflow_watch_available{stage=\"in\"}"),
        0.0
    );
    assert_eq!(daemon.metric("latentflow_ready"), 0.0);
    // An empty folder at the path is not taken for the watched one.
    fs::create_dir(&watched).unwrap();
    daemon.wait("the empty folder to be reported", || {
        readiness(&daemon)
            .1
            .contains("contains no input files; known files: 1; ")
            .then_some(())
    });
    fs::remove_dir(&watched).unwrap();
    fs::rename(&away, &watched).unwrap();
    daemon.wait("the folder", || (readiness(&daemon).0 == 200).then_some(()));
    copy(site.path(), 2, "two.pgm");
    wait_for_records(&daemon, site.path(), 2);
    let log = daemon.stop();
    assert!(
        log.contains("the watched folder is available again"),
        "{log}"
    );
    assert_eq!(
        outcomes(site.path()),
        (vec!["one.pgm".to_owned(), "two.pgm".to_owned()], vec![])
    );
}

#[test]
fn journaled_file_that_was_replaced_or_removed_is_settled() {
    let site = site();
    let lazy = PIPELINE.replace("age = \"100ms\"", "age = \"1h\"");
    fs::write(site.path().join("p.toml"), &lazy).unwrap();
    let daemon = Daemon::start_with(site.path(), &[SPEED]);
    ["replaced.pgm", "removed.pgm", "touched.pgm"]
        .iter()
        .for_each(|name| copy(site.path(), 1, name));
    let journal = site.path().join("out/_latentflow/watched/in");
    daemon.wait("the journal", || {
        let segments = fs::read_dir(&journal)
            .ok()?
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        (segments
            .map(|segment| segment.lines().count())
            .sum::<usize>()
            == 3)
            .then_some(())
    });
    daemon.kill();
    copy(site.path(), 2, "replaced.pgm");
    copy(site.path(), 1, "touched.pgm");
    fs::remove_file(site.path().join("in/removed.pgm")).unwrap();
    fs::write(site.path().join("p.toml"), PIPELINE).unwrap();
    let restarted = Daemon::start_with(site.path(), &[SPEED]);
    wait_for_records(&restarted, site.path(), 3);
    assert_eq!(
        restarted.metric("latentflow_watch_superseded_total{stage=\"in\"}"),
        1.0
    );
    restarted.stop();
    let sound = vec!["replaced.pgm".to_owned(), "touched.pgm".to_owned()];
    assert_eq!(
        outcomes(site.path()),
        (sound, vec!["removed.pgm".to_owned()])
    );
}

#[test]
fn bounded_run_reads_touched_images_once() {
    let site = site();
    let batch = PIPELINE.replace("watch = true\nrescan = \"1s\"\n", "");
    (1..3).for_each(|number| copy(site.path(), number, &format!("{number}.pgm")));
    let run = || {
        let (output, summary) = runs::run(site.path(), &batch, &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        summary["records"].clone()
    };
    assert_eq!(run(), 2);
    (1..3).for_each(|number| copy(site.path(), number, &format!("{number}.pgm")));
    assert_eq!(run(), 0, "only the times of the files have changed");
    copy(site.path(), 4, "1.pgm");
    assert_eq!(run(), 1);
    assert_eq!(outcomes(site.path()).0, ["1.pgm", "1.pgm", "2.pgm"]);
}
