//! The bars of tasks on a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use crate::cli::log::LogFormat;
use crate::cli::progress::{ProgressSample, ProgressUnit, TaskProgress};
use crate::cli::stderr;

/// Interval at which bars are drawn.
pub(super) const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Returns the bars of a terminal, above which the lines of the log are written; `None` if standard
/// error is not a terminal, or the log has another format.
pub(super) fn terminal_bars(format: LogFormat) -> Option<MultiProgress> {
    let is_drawn = format == LogFormat::Auto && std::io::stderr().is_terminal();
    is_drawn.then(|| {
        let bars = MultiProgress::new();
        stderr::write_above(&bars);
        bars
    })
}

/// The bar of a task on the terminal.
pub(super) struct TaskBar {
    pub(super) bar: ProgressBar,
    /// The name of the drawn task; empty before the first task.
    pub(super) name: String,
    layout: BarLayout,
}

/// The parts of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BarLayout {
    /// The name of the task.
    Name,
    /// The amount and its rate.
    Amount(ProgressUnit),
    /// The share of the total, the rate and the remaining time.
    Share(ProgressUnit),
}

impl BarLayout {
    fn of(task: &TaskProgress) -> Self {
        match (task.total, task.done) {
            (Some(_), _) => Self::Share(task.unit),
            (None, 0) => Self::Name,
            (None, _) => Self::Amount(task.unit),
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Name => "{prefix}  {spinner}{wide_msg}",
            Self::Amount(ProgressUnit::Records) => {
                "{prefix}  {spinner} {human_pos} records  {rate}{wide_msg}"
            }
            Self::Amount(ProgressUnit::Bytes) => {
                "{prefix}  {spinner} {binary_bytes}  {binary_bytes_per_sec}{wide_msg}"
            }
            Self::Share(ProgressUnit::Records) => {
                "{prefix}  {bar:30} {human_pos}/{human_len} records  {rate}  {eta} left{wide_msg}"
            }
            Self::Share(ProgressUnit::Bytes) => {
                "{prefix}  {bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  \
                 {eta} left{wide_msg}"
            }
        }
    }

    /// Templates are constants; an invalid one would fall back to the default style.
    fn style(self) -> ProgressStyle {
        let style = ProgressStyle::with_template(self.template())
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        style.with_key(
            "rate",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Writing to the buffer of the bar cannot fail.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            },
        )
    }
}

impl TaskBar {
    pub(super) fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            name: String::new(),
            layout: BarLayout::Name,
        }
    }

    pub(super) fn draw(&mut self, task: &TaskProgress, sample: &ProgressSample) {
        if task.name.is_empty() {
            return;
        }
        let (is_new, layout) = (self.name != task.name, BarLayout::of(task));
        if is_new || self.layout != layout {
            self.bar.set_style(layout.style());
            self.layout = layout;
        }
        if is_new {
            self.name.clone_from(&task.name);
            self.bar.set_prefix(task.name.clone());
            self.bar.unset_length();
            self.bar.set_position(task.done_before);
            // The rate and the remaining time do not follow from an earlier task or process.
            self.bar.reset_eta();
        }
        if let Some(total) = task.total {
            self.bar.set_length(total);
        }
        self.bar.set_message(message(task, sample));
        self.bar.set_position(task.done);
    }
}

/// Describes the state of a task, after two spaces.
fn message(task: &TaskProgress, sample: &ProgressSample) -> String {
    let note = (!task.note.is_empty()).then(|| task.note.clone());
    let rejects = sample
        .rejects
        .filter(|&rejects| rejects > 0)
        .map(|rejects| format!("{rejects} rejected"));
    let error = sample
        .reconstruction_error
        .as_ref()
        .map(|error| format!("error {error}"));
    [note, rejects, error]
        .into_iter()
        .flatten()
        .map(|part| format!("  {part}"))
        .collect()
}

/// Estimates the remaining time from the average rate since the start; `None` before the first unit
/// is done, or if the total is not known.
pub(super) fn time_left(done: u64, total: Option<u64>, elapsed: Duration) -> Option<Duration> {
    let left = total?.saturating_sub(done);
    // Before the first unit, the estimate is infinite or not a number.
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}
