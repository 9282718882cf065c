//! The progress of commands: bars on a terminal, otherwise, for a run, a log line every 10 s.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::log::LogFormat;
use super::stderr;
use crate::plan::StageRole;
use crate::topology::{RunStats, StageStats};

/// Interval at which bars are drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of log lines without a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the bars of a terminal, above which the lines of the log are written; `None` if standard
/// error is not a terminal, or the log has another format.
fn terminal_bars(format: LogFormat) -> Option<MultiProgress> {
    let is_drawn = format == LogFormat::Auto && std::io::stderr().is_terminal();
    is_drawn.then(|| {
        let bars = MultiProgress::new();
        stderr::write_above(&bars);
        bars
    })
}

/// The only bar of a command; hidden if there is no terminal.
pub(super) fn single_bar(format: LogFormat) -> ProgressBar {
    match terminal_bars(format) {
        Some(bars) => bars.add(ProgressBar::no_length()),
        None => ProgressBar::hidden(),
    }
}

/// Shows the progress of a run on a dedicated thread, so that a blocked terminal does not block the
/// run.
pub(super) struct ProgressDisplay {
    end: Sender<()>,
    bars: Vec<ProgressBar>,
}

impl ProgressDisplay {
    /// Starts to show the progress. `limit` is the maximum number of records of the run.
    pub(super) fn start(format: LogFormat, stats: Arc<RunStats>, limit: Option<u64>) -> Self {
        if let Some(all) = terminal_bars(format) {
            let bars: Vec<ProgressBar> = sources(&stats).map(|stage| all.add(bar(stage))).collect();
            let drawn = bars.clone();
            let draw = move || {
                let totals = expected_totals(&stats, limit);
                for ((stage, bar), total) in sources(&stats).zip(&drawn).zip(totals) {
                    draw(&stats, stage, total, bar);
                }
            };
            return Self {
                end: repeat(DRAW_INTERVAL, draw),
                bars,
            };
        }
        let (start, mut before) = (Instant::now(), 0);
        let log = move || {
            let records = stats.done();
            let rate = (records - before) as f64 / LOG_INTERVAL.as_secs_f64();
            let errors = mean_errors(&stats);
            let reconstruction_error =
                (!errors.is_empty()).then(|| tracing::field::display(errors.join(", ")));
            let total: Option<u64> = expected_totals(&stats, limit).into_iter().sum();
            let left = time_left(records, total, start.elapsed())
                .map(|left| tracing::field::display(HumanDuration(left)));
            tracing::info!(
                records,
                rejects = stats.rejects(),
                per_second = rate.round(),
                left,
                reconstruction_error,
                "running"
            );
            before = records;
        };
        Self {
            end: repeat(LOG_INTERVAL, log),
            bars: Vec::new(),
        }
    }

    pub(super) fn finish(self) {
        drop(self.end);
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Calls `work` at each interval, until the result is dropped.
fn repeat(interval: Duration, mut work: impl FnMut() + Send + 'static) -> Sender<()> {
    let (end, ended) = channel();
    let work_until_end = move || {
        while matches!(ended.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
            work();
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("progress".to_owned())
        .spawn(work_until_end)
    {
        tracing::warn!(%error, "cannot start the thread that shows the progress");
    }
    end
}

fn bar(stage: &StageStats) -> ProgressBar {
    // A bar that is changed before it is added to the others would draw itself.
    ProgressBar::no_length()
        .with_prefix(stage.name.to_string())
        .with_style(style(
            "{prefix}  {spinner} {human_pos} records  {rate}{msg}",
        ))
}

fn draw(stats: &RunStats, stage: &StageStats, total: Option<u64>, bar: &ProgressBar) {
    if let (None, Some(total)) = (bar.length(), total) {
        bar.set_length(total);
        bar.set_style(style(
            "{prefix}  {bar:30} {human_pos}/{human_len}  {rate}  {eta} left{msg}",
        ));
    }
    bar.set_position(stage.records_done.load(Relaxed));
    let rejects = match stats.rejects() {
        0 => String::new(),
        rejects => format!("  {rejects} rejected"),
    };
    let errors: String = mean_errors(stats)
        .iter()
        .map(|error| format!("  error {error}"))
        .collect();
    bar.set_message(format!("{rejects}{errors}"));
}

fn sources(stats: &RunStats) -> impl Iterator<Item = &StageStats> {
    stats
        .stages
        .iter()
        .filter(|stage| stage.role == StageRole::Source)
}

fn expected_totals(stats: &RunStats, limit: Option<u64>) -> Vec<Option<u64>> {
    limited(sources(stats).map(StageStats::total), limit)
}

/// Bounds the numbers of records of sources, which are read one after another, by the maximum
/// number of all of them. `None` is a number that is not known.
fn limited(totals: impl Iterator<Item = Option<u64>>, limit: Option<u64>) -> Vec<Option<u64>> {
    let mut left = Some(limit.unwrap_or(u64::MAX));
    let mut numbers = Vec::new();
    for total in totals {
        let number = match limit {
            None => total,
            Some(_) => total.zip(left).map(|(all, most)| all.min(most)),
        };
        left = left.zip(number).map(|(most, taken)| most - taken);
        numbers.push(number);
    }
    numbers
}

/// Estimates the remaining time from the average rate since the start; `None` before the first
/// record is done, or if the number of records is not known.
fn time_left(done: u64, total: Option<u64>, elapsed: Duration) -> Option<Duration> {
    let left = total?.saturating_sub(done);
    // Before the first record, the estimate is infinite or not a number.
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

/// Returns the mean reconstruction error of each stage that computes one.
fn mean_errors(stats: &RunStats) -> Vec<String> {
    let errors = stats
        .stages
        .iter()
        .filter_map(|stage| stage.error.as_ref()?.summary());
    errors.map(|error| format!("{:.4}", error.mean)).collect()
}

/// A style with the key `rate`, the number of records per second. Templates are constants; an
/// invalid one would fall back to the default style.
pub(super) fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Writing to the buffer of the bar cannot fail.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn totals_of_sources_are_bounded_by_the_limit_of_the_run() {
        let limited = |totals: &[Option<u64>], limit| limited(totals.iter().copied(), limit);
        let totals = [Some(10), Some(20), Some(5)];
        assert_eq!(limited(&totals, None), totals);
        assert_eq!(
            limited(&totals, Some(15)),
            [Some(10), Some(5), Some(0)],
            "the first sources are read first"
        );
        assert_eq!(
            limited(&[Some(3), None, Some(4)], Some(5)),
            [Some(3), None, None]
        );
    }

    #[test]
    fn remaining_time_follows_from_the_records_that_are_done() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(
            time_left(100, Some(400), elapsed),
            Some(Duration::from_secs(30))
        );
        assert_eq!(time_left(0, Some(400), elapsed), None);
        assert_eq!(time_left(100, None, elapsed), None);
        assert_eq!(time_left(5, Some(5), elapsed), Some(Duration::ZERO));
    }
}
