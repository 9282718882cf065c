//! A test of compactions while a daemon writes, is killed and starts again.

use std::fs;

use super::daemon_process::Daemon;
use super::watch::{expected, outcomes, site, wait_for_records};
use crate::common::inputs::image_name;
use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow};

#[test]
fn compaction_while_a_daemon_runs_keeps_each_record_once() {
    let site = site();
    let (made, watched, out) = (
        site.path().join("made"),
        site.path().join("in"),
        site.path().join("out"),
    );
    let mut daemon = Daemon::start(site.path());
    for round in 0..6 {
        for number in round * 10..round * 10 + 10 {
            fs::copy(
                made.join(image_name(number)),
                watched.join(image_name(number)),
            )
            .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let output = latentflow(site.path(), &["compact", "out"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        if round % 2 == 1 {
            daemon.kill();
            daemon = Daemon::start(site.path());
        }
    }
    wait_for_records(&daemon, site.path(), 60);
    assert_eq!(
        outcomes(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
    let output = latentflow(site.path(), &["compact", "out"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(data_files(&out).len() <= 2, "{:?}", data_files(&out));
    daemon.stop();
    // A restart finds all records committed.
    let restarted = Daemon::start(site.path());
    std::thread::sleep(std::time::Duration::from_millis(500));
    restarted.stop();
    assert_eq!(
        outcomes(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
}
