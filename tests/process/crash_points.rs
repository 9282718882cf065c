//! The process ends amid a commit, at each of its steps: the next run goes on, and nothing is lost
//! or twice.

use std::os::unix::process::ExitStatusExt as _;

use crate::common::scenarios::{self, Scenario, Site};

const SIGABRT: i32 = 6;
/// Of a Parquet file.
const FILE_STEPS: [&str; 5] = ["written", "closed", "synced", "renamed", "durable"];
/// Of markers and journals.
const ATOMIC_STEPS: [&str; 3] = ["atomic-written", "atomic-synced", "atomic-renamed"];

/// Aborts a run at each step at each of these passings, runs it again, and compares.
fn crash(scenario: Scenario, steps: &[&str], passings: &[u32]) {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds end where they are told to");
        return;
    }
    let site = Site::new(scenario);
    let calm = site.finish("calm");
    for step in steps {
        for &passing in passings {
            let out = format!("{step}-{passing}");
            let mut command = site.command(&site.scenario.pipeline, &out, 1 + passing % 3);
            let status = command
                .env("LATENTFLOW_CRASH_AT", format!("{step}:{passing}"))
                .status()
                .unwrap();
            assert_eq!(
                status.signal(),
                Some(SIGABRT),
                "`{step}` is not passed {passing} times"
            );
            site.finish_as(&out, &calm);
        }
    }
}

#[test]
fn two_tables_and_rejects_survive_a_crash_at_each_step_of_a_file() {
    crash(scenarios::tables(), &FILE_STEPS, &[1, 2, 3]);
}

#[test]
fn a_table_pictures_and_rejects_survive_a_crash_at_each_step_of_a_marker() {
    crash(scenarios::both_forms(), &ATOMIC_STEPS, &[1, 2, 3]);
}

#[test]
fn pictures_survive_a_crash_at_each_step_of_being_named() {
    let once = ["pictures-synced", "pictures-listed", "pictures-named"];
    crash(scenarios::pictures(), &once, &[1, 2]);
    crash(
        scenarios::pictures(),
        &["picture-named"],
        &[1, 100, 256, 300],
    );
}

#[test]
fn a_history_survives_a_crash_at_each_step_of_being_folded() {
    // The first marker of this kind is noted when the run starts.
    crash(scenarios::many_files(), &ATOMIC_STEPS, &[2]);
}

#[test]
fn a_sink_that_was_added_survives_a_crash_at_each_step_of_a_file() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds end where they are told to");
        return;
    }
    let site = Site::new(scenarios::added());
    let calm = site.finish("calm");
    let earlier = site.scenario.earlier.clone().unwrap();
    for step in FILE_STEPS {
        let mut command = site.command(&earlier, step, 2);
        let status = command
            .env("LATENTFLOW_CRASH_AT", format!("{step}:2"))
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGABRT));
        let mut command = site.command(&site.scenario.pipeline, step, 2);
        let status = command
            .env("LATENTFLOW_CRASH_AT", format!("{step}:3"))
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGABRT));
        site.finish_as(step, &calm);
    }
}

#[test]
fn what_was_committed_before_a_crash_is_not_read_again() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds end where they are told to");
        return;
    }
    let site = Site::new(scenarios::many_files());
    let mut command = site.command(&site.scenario.pipeline, "out", 2);
    // A file for each of some 300 batches.
    let status = command
        .env("LATENTFLOW_CRASH_AT", "durable:290")
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(SIGABRT));
    let output = site
        .command(&site.scenario.pipeline, "out", 2)
        .args(["--summary", "json"])
        .output()
        .unwrap();
    site.assert_done(output.status);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (before, now) = (
        summary["done_before"].as_u64().unwrap(),
        summary["records"].as_u64().unwrap(),
    );
    assert!(
        before >= 256 * 20 && before + now == 6000,
        "{before} before, {now} now"
    );
}
