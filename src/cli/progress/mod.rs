//! The progress of a command: bars on a terminal, otherwise a log line every 10 s.

pub(crate) mod bars;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar};
use parking_lot::Mutex;

use super::log::LogFormat;
use crate::cli::progress::bars::{DRAW_INTERVAL, TaskBar, terminal_bars, time_left};
use crate::data::ReadProgress;

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
            let current = shown.lock().clone();
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
        *self.task.lock() = task;
    }
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

#[cfg(test)]
mod tests;
