//! Kill -9 at random instants, again and again: every record ends in each output exactly once, or
//! in the rejects, and the values are those of an undisturbed run, bit for bit.
//!
//! `LATENTFLOW_CHAOS_KILLS` says how often in all (20), `LATENTFLOW_CHAOS_SEED` from which seed; it
//! is printed.

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
/// From so many kills on, chance is no excuse for having missed what is not committed.
const ENOUGH: u32 = 100;

#[test]
fn images_into_a_table() {
    survive(scenarios::images());
}

#[test]
fn tables_into_two_tables_that_commit_at_different_paces() {
    survive(scenarios::tables());
}

#[test]
fn so_many_files_that_their_history_is_folded() {
    survive(scenarios::many_files());
}

/// Starts that come to nothing raise suspicion against what they worked on; kills alone prove
/// nothing.
#[test]
fn a_single_file_that_no_kill_lets_become_whole() {
    survive(scenarios::one_file());
}

#[test]
fn a_diamond_over_two_sources() {
    survive(scenarios::diamond());
}

#[test]
fn a_sink_behind_a_new_transform_is_added_between_runs() {
    survive(scenarios::added());
}

#[test]
fn images_into_image_files() {
    survive(scenarios::pictures());
}

#[test]
fn a_sink_that_is_added_after_the_end_catches_up_alone() {
    let site = Site::new(scenarios::added());
    let calm = site.finish("calm");
    site.run(site.scenario.earlier.as_ref().unwrap(), "out");
    let raw = site.root().join("out/raw");
    let before = outputs::files(&raw);
    site.finish_as("out", &calm);
    assert!(
        before == outputs::files(&raw),
        "what was done is left as it was"
    );
}

/// Kills runs of a scenario until it had its share of kills, and compares what comes of each line
/// of runs.
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
    let kills = number("LATENTFLOW_CHAOS_KILLS")
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
    let mut lines = 0;
    while trial.kills < kills {
        lines += 1;
        let out = format!("line-{lines}");
        trial.disturb(&out, kills);
        trial.site.finish_as(&out, &outputs);
        fs::remove_dir_all(trial.site.root().join(out)).unwrap();
    }
    let Trial { kills, hits, .. } = trial;
    eprintln!(
        "{name}: {kills} kills in {lines} lines of runs, {hits} hit records that were read and not committed"
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
        kills,
        hits,
    } = *total;
    if scenarios == SCENARIOS {
        eprintln!(
            "all: {kills} kills, {hits} hit records that were read and not committed; 0 lost, 0 twice"
        );
        assert!(
            kills < ENOUGH || hits * 2 >= kills,
            "only {hits} of {kills} kills hit what was not committed"
        );
    }
}

/// What all scenarios came to so far.
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
    /// How long an undisturbed run takes.
    calm: Duration,
    kills: u32,
    /// Kills that hit records which were read and not committed.
    hits: u32,
}

impl Trial {
    /// Starts and kills until a run ends before it is killed, or there have been `kills` in all.
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

    /// Whether the run had ended before it was to be killed.
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
        // One that has ended is not there to be killed any more, and keeps its own status.
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

/// What shows that records were read and not committed: notes of batches that had not come through
/// yet, and the files that sinks open when records come and name when they commit. Rejects do not
/// count: theirs is open from the first of them to the end of a run.
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
