//! How a run goes, while it goes: bars on a terminal, a log line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::log::LogFormat;
use crate::topology::{RunStats, StageStats};

/// How often bars are drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Follows a run until it is finished, on a thread of its own: a terminal that stands still holds
/// nobody else.
pub(super) struct ProgressDisplay {
    end: Sender<()>,
    bars: Vec<ProgressBar>,
}

impl ProgressDisplay {
    pub(super) fn start(format: LogFormat, stats: Arc<RunStats>) -> Self {
        if format == LogFormat::Auto && std::io::stderr().is_terminal() {
            let all = MultiProgress::new();
            let sources: Vec<usize> = (0..stats.stages.len())
                .filter(|&at| stats.stages[at].role == "source")
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
                end: every(DRAW_EVERY, draw),
                bars,
            };
        }
        let (begun, mut before) = (Instant::now(), 0);
        let log = move || {
            let records = stats.records();
            let rate = (records - before) as f64 / LOG_EVERY.as_secs_f64();
            let error = error_text(&stats);
            let left = left(&stats, begun.elapsed())
                .map(|left| tracing::field::display(HumanDuration(left)));
            tracing::info!(
                records,
                rejects = stats.rejects(),
                per_second = rate.round(),
                left,
                "running{error}"
            );
            before = records;
        };
        Self {
            end: every(LOG_EVERY, log),
            bars: Vec::new(),
        }
    }

    pub(super) fn finish(self) {
        drop(self.end);
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Does something again and again, until the result is dropped.
fn every(pause: Duration, mut work: impl FnMut() + Send + 'static) -> Sender<()> {
    let (end, ended) = channel();
    let repeat = move || {
        while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            work();
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("progress".to_owned())
        .spawn(repeat)
    {
        tracing::warn!(%error, "progress is not shown");
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
    bar.set_message(format!("{rejects}{}", error_text(stats)));
}

/// How long it takes still, at the pace since the beginning; nothing where a source does not know
/// its records.
fn left(stats: &RunStats, elapsed: Duration) -> Option<Duration> {
    let (mut taken, mut total) = (0u64, 0u64);
    for source in stats.stages.iter().filter(|stage| stage.role == "source") {
        taken += source.records_in.load(Relaxed);
        total = total.saturating_add(source.total()?);
    }
    // Before the first record it is infinite, or not a number.
    Duration::try_from_secs_f64(
        elapsed.as_secs_f64() * total.saturating_sub(taken) as f64 / taken as f64,
    )
    .ok()
}

fn error_text(stats: &RunStats) -> String {
    let errors = stats
        .stages
        .iter()
        .filter_map(|stage| stage.error.as_ref()?.summary());
    errors
        .map(|error| format!("  error {:.4}", error.mean))
        .collect()
}

/// Templates are constants; one that does not parse would show as the plain default.
fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Writing to the terminal's buffer cannot fail.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        },
    )
}
