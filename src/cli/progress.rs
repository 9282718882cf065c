//! The progress of a command: bars on a terminal, otherwise a log line every 10 s.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::log::LogFormat;
use super::stderr;
use crate::data::ReadProgress;

/// Interval at which bars are drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of log lines without a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time that the end of a command waits for a blocked terminal.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The progress of a command at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct ProgressSample {
    /// The current tasks, each with its own bar. Their number does not change.
    pub(super) tasks: Vec<TaskProgress>,
    /// The step that the tasks belong to; `None` for a command with one step.
    pub(super) step: Option<String>,
    /// Number of rejected records.
    pub(super) rejects: Option<u64>,
    /// The mean reconstruction error of each stage that computes one.
    pub(super) reconstruction_error: Option<String>,
}

/// The progress of one task.
#[derive(Debug, Clone, Default)]
pub(super) struct TaskProgress {
    /// The name of the task. Another name begins another task, with its own rate.
    pub(super) name: String,
    pub(super) unit: ProgressUnit,
    /// The amount of an earlier process, from which no rate follows.
    pub(super) done_before: u64,
    /// The completed amount, including `done_before`.
    pub(super) done: u64,
    /// The amount of the complete task, if it is known.
    pub(super) total: Option<u64>,
    /// The current state of the task; may be empty.
    pub(super) note: String,
}

impl From<ReadProgress> for TaskProgress {
    fn from(ReadProgress { records, total }: ReadProgress) -> Self {
        Self {
            name: "reading the data".to_owned(),
            done: records,
            total,
            ..Self::default()
        }
    }
}

/// The unit in which the amount of a task is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ProgressUnit {
    #[default]
    Records,
    Bytes,
}

/// Shows the progress of a command on a dedicated thread, so that a blocked terminal does not block
/// the command. The bars disappear when the value is dropped.
pub(super) struct ProgressReporter {
    end: Option<Sender<()>>,
    /// Closed once the thread has ended.
    ended: Receiver<()>,
    bars: Vec<ProgressBar>,
}

impl ProgressReporter {
    /// Starts to show the progress that `sample` returns.
    pub(super) fn start(
        format: LogFormat,
        mut sample: impl FnMut() -> ProgressSample + Send + 'static,
    ) -> Self {
        let Some(all) = terminal_bars(format) else {
            let mut log = ProgressLog::new(Instant::now());
            return Self::spawn(LOG_INTERVAL, Vec::new(), move || {
                log.write(&sample(), Instant::now());
            });
        };
        let tasks = sample().tasks;
        let bars: Vec<ProgressBar> = tasks
            .iter()
            .map(|_| all.add(ProgressBar::no_length()))
            .collect();
        let mut drawn: Vec<TaskBar> = bars.iter().cloned().map(TaskBar::new).collect();
        Self::spawn(DRAW_INTERVAL, bars, move || {
            let current = sample();
            for (bar, task) in drawn.iter_mut().zip(&current.tasks) {
                bar.draw(task, &current);
            }
        })
    }

    /// Calls `work` at each interval until the end.
    fn spawn(
        interval: Duration,
        bars: Vec<ProgressBar>,
        mut work: impl FnMut() + Send + 'static,
    ) -> Self {
        let (end, is_ended) = channel();
        let (running, ended) = channel();
        let work_until_end = move || {
            while matches!(
                is_ended.recv_timeout(interval),
                Err(RecvTimeoutError::Timeout)
            ) {
                work();
            }
            drop(running);
        };
        let thread = std::thread::Builder::new().name("progress".to_owned());
        if let Err(error) = thread.spawn(work_until_end) {
            tracing::warn!(%error, "cannot start the thread that shows the progress");
        }
        Self {
            end: Some(end),
            ended,
            bars,
        }
    }
}

impl Drop for ProgressReporter {
    fn drop(&mut self) {
        self.end = None;
        // The thread sends nothing: its end closes the channel.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Shows the progress of a command that works on one task after another.
pub(super) struct TaskReporter {
    task: Arc<Mutex<TaskProgress>>,
    _reporter: ProgressReporter,
}

impl TaskReporter {
    /// Starts without a task.
    pub(super) fn start(format: LogFormat) -> Self {
        let task = Arc::<Mutex<TaskProgress>>::default();
        let shown = Arc::clone(&task);
        let reporter = ProgressReporter::start(format, move || {
            let current = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            ProgressSample {
                step: Some(current.name.clone()),
                tasks: vec![current],
                ..ProgressSample::default()
            }
        });
        Self {
            task,
            _reporter: reporter,
        }
    }

    /// Sets the current task and its progress.
    pub(super) fn show(&self, task: TaskProgress) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
    }
}

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

/// The bar of a task on the terminal.
struct TaskBar {
    bar: ProgressBar,
    /// The name of the drawn task; empty before the first task.
    name: String,
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
    fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            name: String::new(),
            layout: BarLayout::Name,
        }
    }

    fn draw(&mut self, task: &TaskProgress, sample: &ProgressSample) {
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

/// The log lines of a command without a terminal.
struct ProgressLog {
    step: Option<String>,
    /// When the step began.
    started: Instant,
    /// The time of the last line of this step, and the amount that was done then.
    last: (Instant, u64),
}

impl ProgressLog {
    fn new(now: Instant) -> Self {
        Self {
            step: None,
            started: now,
            last: (now, 0),
        }
    }

    fn write(&mut self, sample: &ProgressSample, now: Instant) {
        if sample.tasks.iter().all(|task| task.name.is_empty()) {
            return;
        }
        let sum = |amount: fn(&TaskProgress) -> u64| sample.tasks.iter().map(amount).sum::<u64>();
        let (done, done_before) = (sum(|task| task.done), sum(|task| task.done_before));
        let total: Option<u64> = sample.tasks.iter().map(|task| task.total).sum();
        if self.step != sample.step {
            // The step began at some time since the last line.
            self.step.clone_from(&sample.step);
            self.started = self.last.0;
            self.last.1 = done_before;
        }
        let seconds = (now - self.last.0).as_secs_f64();
        let per_second = (done.saturating_sub(self.last.1) as f64 / seconds).round();
        self.last = (now, done);
        let left = time_left(
            done.saturating_sub(done_before),
            total.map(|total| total.saturating_sub(done_before)),
            now - self.started,
        );
        let left = left.map(|left| tracing::field::display(HumanDuration(left)));
        let unit = sample.tasks.first().map(|task| task.unit);
        let amount_in = |other| (unit == Some(other)).then_some(done);
        let note = sample.tasks.first().map(|task| task.note.as_str());
        tracing::info!(
            step = sample.step,
            records = amount_in(ProgressUnit::Records),
            bytes = amount_in(ProgressUnit::Bytes),
            total,
            rejects = sample.rejects,
            per_second,
            left,
            reconstruction_error = sample
                .reconstruction_error
                .as_ref()
                .map(tracing::field::display),
            state = note.filter(|note| !note.is_empty()),
            "running"
        );
    }
}

/// Estimates the remaining time from the average rate since the start; `None` before the first unit
/// is done, or if the total is not known.
fn time_left(done: u64, total: Option<u64>, elapsed: Duration) -> Option<Duration> {
    let left = total?.saturating_sub(done);
    // Before the first unit, the estimate is infinite or not a number.
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / done as f64).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

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

    /// A terminal that keeps the last line.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> std::io::Result<()> {
            self.write_str(line)
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bar_of_each_task_has_its_own_name_and_length() {
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        let mut bar = TaskBar::new(ProgressBar::with_draw_target(None, target));
        let sample = ProgressSample {
            rejects: Some(3),
            reconstruction_error: Some("0.0075".to_owned()),
            ..ProgressSample::default()
        };
        let mut draw = |task: &TaskProgress| {
            bar.draw(task, &sample);
            if !task.name.is_empty() {
                screen.0.lock().unwrap().clear();
                bar.bar.force_draw();
            }
            screen.0.lock().unwrap().trim_end().to_owned()
        };
        let mut task = TaskProgress::default();
        assert_eq!(draw(&task), "", "there is no task yet");
        task.name = "reading".to_owned();
        task.done = 1200;
        task.note = "a.csv".to_owned();
        let line = draw(&task);
        assert!(
            line.starts_with("reading  ") && line.contains(" 1,200 records  "),
            "{line}"
        );
        assert!(
            line.ends_with("/s  a.csv  3 rejected  error 0.0075"),
            "{line}"
        );
        task.total = Some(2400);
        assert!(
            draw(&task).contains(" 1,200/2,400 records  "),
            "{}",
            draw(&task)
        );
        let copying = TaskProgress {
            name: "copying".to_owned(),
            unit: ProgressUnit::Bytes,
            done: 1 << 20,
            ..TaskProgress::default()
        };
        let copied = draw(&copying);
        assert!(
            copied.contains(" 1.00 MiB  ") && !copied.contains("left"),
            "the total of an earlier task does not apply: {copied}"
        );
        let measuring = TaskProgress {
            name: "measuring".to_owned(),
            ..TaskProgress::default()
        };
        let measured = draw(&measuring);
        assert!(
            !measured.contains("MiB") && !measured.contains("records"),
            "{measured}"
        );
    }
}
