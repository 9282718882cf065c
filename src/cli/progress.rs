//! The progress of a run: bars on a terminal, otherwise a log line every 10 s.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::log::LogFormat;
use crate::plan::StageRole;
use crate::topology::{RunStats, StageStats};

/// Interval at which bars are drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of log lines without a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the progress of a run on a dedicated thread, so that a blocked terminal does not block the
/// run.
pub(super) struct ProgressDisplay {
    end: Sender<()>,
    bars: Vec<ProgressBar>,
}

impl ProgressDisplay {
    pub(super) fn start(format: LogFormat, stats: Arc<RunStats>) -> Self {
        if format == LogFormat::Auto && std::io::stderr().is_terminal() {
            let all = MultiProgress::new();
            let sources: Vec<usize> = (0..stats.stages.len())
                .filter(|&at| stats.stages[at].role == StageRole::Source)
                .collect();
            let bars: Vec<ProgressBar> = sources
                .iter()
                .map(|&at| all.add(bar(&stats.stages[at])))
                .collect();
            let drawn = bars.clone();
            let draw = move || {
                sources
                    .iter()
                    .zip(&drawn)
                    .for_each(|(&at, bar)| draw(&stats, &stats.stages[at], bar))
            };
            return Self {
                end: repeat(DRAW_INTERVAL, draw),
                bars,
            };
        }
        let (start, mut before) = (Instant::now(), 0);
        let log = move || {
            let records = stats.records();
            let rate = (records - before) as f64 / LOG_INTERVAL.as_secs_f64();
            let errors = mean_errors(&stats);
            let reconstruction_error =
                (!errors.is_empty()).then(|| tracing::field::display(errors.join(", ")));
            let left = time_left(&stats, start.elapsed())
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
    let bar = ProgressBar::no_length();
    bar.set_prefix(stage.name.to_string());
    bar.set_style(style(
        "{prefix}  {spinner} {human_pos} records  {rate}{msg}",
    ));
    bar
}

fn draw(stats: &RunStats, stage: &StageStats, bar: &ProgressBar) {
    if let (None, Some(total)) = (bar.length(), stage.total()) {
        bar.set_length(total);
        bar.set_style(style(
            "{prefix}  {bar:30} {human_pos}/{human_len}  {rate}  {eta} left{msg}",
        ));
    }
    bar.set_position(stage.records_in.load(Relaxed));
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

/// Estimates the remaining time from the average rate since the start; `None` if the number of
/// records of a source is unknown.
fn time_left(stats: &RunStats, elapsed: Duration) -> Option<Duration> {
    let (mut taken, mut total) = (0u64, 0u64);
    for source in stats
        .stages
        .iter()
        .filter(|stage| stage.role == StageRole::Source)
    {
        taken += source.records_in.load(Relaxed);
        total = total.saturating_add(source.total()?);
    }
    // Before the first record, the estimate is infinite or not a number.
    Duration::try_from_secs_f64(
        elapsed.as_secs_f64() * total.saturating_sub(taken) as f64 / taken as f64,
    )
    .ok()
}

/// Returns the mean reconstruction error of each stage that computes one.
fn mean_errors(stats: &RunStats) -> Vec<String> {
    let errors = stats
        .stages
        .iter()
        .filter_map(|stage| stage.error.as_ref()?.summary());
    errors.map(|error| format!("{:.4}", error.mean)).collect()
}

/// Templates are constants; an invalid one would fall back to the default style.
fn style(template: &str) -> ProgressStyle {
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
