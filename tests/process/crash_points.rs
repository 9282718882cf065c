//! Tests of runs that abort at each step of a commit: the next run continues, and no record is lost
//! or duplicated.

use std::os::unix::process::ExitStatusExt as _;

use crate::common::scenarios::{self, Scenario, Site};

const SIGABRT: i32 = 6;
/// The crash points of the commit of a Parquet file.
const FILE_STEPS: [&str; 5] = ["written", "closed", "synced", "renamed", "durable"];
/// The crash points of the commit of coverage snapshots and listings.
const ATOMIC_STEPS: [&str; 3] = ["atomic-written", "atomic-synced", "atomic-renamed"];

/// Aborts a run at each crash point, when it is reached for the n-th time for each n in `passings`;
/// runs it again and compares the outputs with those of an undisturbed run.
fn crash(scenario: Scenario, steps: &[&str], passings: &[u32]) {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
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
                "the crash point `{step}` is not reached {passing} times"
            );
            site.finish_as(&out, &calm);
        }
    }
}

#[test]
fn two_tables_survive_a_crash_at_each_step_of_a_file() {
    crash(scenarios::tables(), &FILE_STEPS, &[1, 2, 3]);
}

#[test]
fn table_and_images_survive_a_crash_at_each_step_of_a_snapshot() {
    crash(scenarios::both_forms(), &ATOMIC_STEPS, &[1, 2, 3]);
}

#[test]
fn images_survive_a_crash_at_each_step_of_their_rename() {
    let once = ["pictures-synced", "pictures-listed", "pictures-named"];
    crash(scenarios::pictures(), &once, &[1, 2]);
    crash(
        scenarios::pictures(),
        &["picture-named"],
        &[1, 100, 256, 300],
    );
}

#[test]
fn folding_of_footers_survives_a_crash_at_each_step() {
    // The run writes another file in this way at its start.
    crash(scenarios::many_files(), &ATOMIC_STEPS, &[2]);
}

#[test]
fn added_sink_survives_a_crash_at_each_step_of_a_file() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    let site = Site::new(scenarios::added());
    let calm = site.finish("calm");
    let earlier = site.scenario.earlier.clone().unwrap();
    for step in FILE_STEPS {
        for (pipeline, occurrence) in [(&earlier, 2), (&site.scenario.pipeline, 3)] {
            let mut command = site.command(pipeline, step, 2);
            let status = command
                .env("LATENTFLOW_CRASH_AT", format!("{step}:{occurrence}"))
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(SIGABRT));
        }
        site.finish_as(step, &calm);
    }
}

#[test]
fn records_committed_before_a_crash_are_not_read_again() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    let site = Site::new(scenarios::many_files());
    let mut command = site.command(&site.scenario.pipeline, "out", 2);
    // The run writes a file for each of its 300 batches.
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
