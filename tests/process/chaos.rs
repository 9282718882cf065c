//! Tests of runs that are killed with SIGKILL at random times: every record is in each output or in
//! the rejects exactly once, with the values of an undisturbed run, bit for bit.
//!
//! `LATENTFLOW_CHAOS_KILLS` sets the total number of kills (default 20), `LATENTFLOW_CHAOS_SEED`
//! the seed (default: from the clock), which is printed.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::common::leftovers::{Trace, in_flight, unfinished};
use crate::common::outputs;
use crate::common::scenarios::{self, Scenario, Site};

const SIGKILL: i32 = 9;
const SCENARIOS: u32 = 7;
/// Minimum number of kills from which the share of kills that hit uncommitted records is checked.
const MIN_KILLS_FOR_SHARE: u32 = 100;

#[test]
fn images_to_table_survive_kills() {
    survive(scenarios::images());
}

#[test]
fn tables_to_two_sinks_with_different_commits_survive_kills() {
    survive(scenarios::tables());
}

#[test]
fn folded_footers_of_many_files_survive_kills() {
    survive(scenarios::many_files());
}

/// Starts without progress lead to the isolation of the records in flight; kills alone must not
/// reject any of them.
#[test]
fn single_file_that_kills_never_let_complete_loses_no_record() {
    survive(scenarios::one_file());
}

#[test]
fn diamond_of_two_sources_survives_kills() {
    survive(scenarios::diamond());
}

#[test]
fn sink_added_between_runs_survives_kills() {
    survive(scenarios::added());
}

#[test]
fn images_to_image_files_survive_kills() {
    survive(scenarios::pictures());
}

#[test]
fn sink_added_after_the_end_leaves_other_outputs_unchanged() {
    let site = Site::new(scenarios::added());
    let calm = site.finish("calm");
    site.run(site.scenario.earlier.as_ref().unwrap(), "out");
    let raw = site.root().join("out/raw");
    let before = outputs::files(&raw);
    site.finish_as("out", &calm);
    assert!(
        before == outputs::files(&raw),
        "the files of the finished sink have changed"
    );
}

/// Kills runs of a scenario until it had its share of kills, and compares the outputs of each
/// sequence of runs with those of an undisturbed run.
fn survive(scenario: Scenario) {
    let name = scenario.name;
    let seed = number("LATENTFLOW_CHAOS_SEED").unwrap_or_else(|| {
        u64::from(
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .subsec_nanos(),
        )
    });
    eprintln!("{name}: LATENTFLOW_CHAOS_SEED={seed}");
    let planned_kills = number("LATENTFLOW_CHAOS_KILLS")
        .map_or(20, |kills| u32::try_from(kills).unwrap())
        .div_ceil(SCENARIOS);
    let site = Site::new(scenario);
    let started = Instant::now();
    let outputs = site.finish("calm");
    let calm = started.elapsed();
    site.finish_as("calm", &outputs);
    let seed = name.bytes().fold(seed, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut trial = Trial {
        site,
        random,
        calm,
        kills: 0,
        hits: 0,
    };
    let mut sequences = 0;
    while trial.kills < planned_kills {
        sequences += 1;
        let out = format!("sequence-{sequences}");
        trial.disturb(&out, planned_kills);
        trial.site.finish_as(&out, &outputs);
        fs::remove_dir_all(trial.site.root().join(out)).unwrap();
    }
    let Trial { kills, hits, .. } = trial;
    eprintln!(
        "{name}: {kills} kills in {sequences} sequences of runs, {hits} hit uncommitted records"
    );
    eprintln!("{name}: an undisturbed run takes {calm:?}");
    let mut total = TOTAL.lock().unwrap();
    *total = Total {
        scenarios: total.scenarios + 1,
        kills: total.kills + kills,
        hits: total.hits + hits,
    };
    let Total {
        scenarios,
        kills: all_kills,
        hits: all_hits,
    } = *total;
    if scenarios == SCENARIOS {
        eprintln!(
            "all: {all_kills} kills, {all_hits} hit uncommitted records; 0 lost, 0 duplicated"
        );
        assert!(
            all_kills < MIN_KILLS_FOR_SHARE || all_hits * 2 >= all_kills,
            "only {all_hits} of {all_kills} kills hit uncommitted records"
        );
    }
}

/// The sums over all scenarios so far.
#[derive(Clone, Copy)]
struct Total {
    scenarios: u32,
    kills: u32,
    hits: u32,
}

static TOTAL: Mutex<Total> = Mutex::new(Total {
    scenarios: 0,
    kills: 0,
    hits: 0,
});

struct Trial {
    site: Site,
    random: ChaCha8Rng,
    /// The duration of an undisturbed run.
    calm: Duration,
    kills: u32,
    /// Kills that hit uncommitted records.
    hits: u32,
}

impl Trial {
    /// Starts and kills runs until one ends before its kill, or `kills` is reached.
    fn disturb(&mut self, out: &str, kills: u32) {
        let mut before_change: u32 = if self.site.scenario.earlier.is_some() {
            self.random.random_range(1..=2)
        } else {
            0
        };
        while self.kills < kills {
            let ended = self.run_and_kill(out, before_change > 0);
            if ended && before_change == 0 {
                break;
            }
            before_change = if ended {
                0
            } else {
                before_change.saturating_sub(1)
            };
        }
    }

    /// Starts a run and kills it after a random time. Returns whether it had ended before.
    fn run_and_kill(&mut self, out: &str, earlier: bool) -> bool {
        let folder = self.site.root().join(out);
        let before = uncommitted(&folder);
        let workers = self.random.random_range(1..=3);
        let wait = self.calm.mul_f64(self.random.random_range(0.0..1.1));
        let scenario = &self.site.scenario;
        let pipeline = scenario
            .earlier
            .as_ref()
            .filter(|_| earlier)
            .unwrap_or(&scenario.pipeline);
        let mut child = self.site.command(pipeline, out, workers).spawn().unwrap();
        std::thread::sleep(wait);
        // A process that has ended keeps its own status.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.signal() != Some(SIGKILL) {
            self.site.assert_done(status);
            return true;
        }
        self.kills += 1;
        self.hits += u32::from(
            uncommitted(&folder)
                .iter()
                .any(|trace| !before.contains(trace)),
        );
        false
    }
}

/// The traces of uncommitted records: the notes of batches in flight, and the temporary files that
/// sinks open at their first record and rename at a commit. Those of rejects do not count, since
/// they are open from the first reject to the end of a run.
fn uncommitted(folder: &Path) -> Vec<Trace> {
    let is_state = |path: &Path| {
        path.components()
            .any(|part| part.as_os_str() == "_latentflow")
    };
    let files = unfinished(folder)
        .into_iter()
        .filter(|(path, _)| !is_state(path) && !path.starts_with(folder.join("rejects")));
    files.chain(in_flight(folder)).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: expected a whole number")),
    )
}
