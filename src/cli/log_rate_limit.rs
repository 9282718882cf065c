//! Rate limit of the log: warnings and errors of one call site are limited to 20 lines per minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::log_lines::notice;

/// Maximum number of warnings and errors of one call site in each [`WINDOW`].
const MAX_LINES: u64 = 20;
/// The period over which lines are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Formats events as `format` does, but suppresses warnings and errors that are too frequent and
/// writes a notice in their place.
pub(super) struct RateLimited<F> {
    format: F,
    json: bool,
    /// By call site; the program has few of them, so the map stays small.
    windows: Mutex<HashMap<Identifier, RateWindow>>,
}

/// The lines of one call site in the current window.
struct RateWindow {
    start: Instant,
    lines: u64,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
enum LogDecision {
    /// The line is written, after a notice about the suppressed lines if there are any.
    Emit { suppressed: u64 },
    /// The line is written; further lines are suppressed for this duration.
    EmitLast(Duration),
    /// The line is not written.
    Suppress,
}

impl<F> RateLimited<F> {
    pub(super) fn new(format: F, json: bool) -> Self {
        Self {
            format,
            json,
            windows: Mutex::default(),
        }
    }

    fn decide(&self, callsite: Identifier, now: Instant) -> LogDecision {
        let mut windows = self.windows.lock();
        let window = windows.entry(callsite).or_insert(RateWindow {
            start: now,
            lines: 0,
        });
        let mut suppressed = 0;
        if now.saturating_duration_since(window.start) >= WINDOW {
            suppressed = window.lines.saturating_sub(MAX_LINES);
            *window = RateWindow {
                start: now,
                lines: 0,
            };
        }
        window.lines += 1;
        match window.lines {
            MAX_LINES => LogDecision::EmitLast(
                WINDOW.saturating_sub(now.saturating_duration_since(window.start)),
            ),
            lines if lines > MAX_LINES => LogDecision::Suppress,
            _ => LogDecision::Emit { suppressed },
        }
    }

    /// Writes a line about the log itself.
    fn write_notice(&self, writer: &mut Writer<'_>, text: &str) -> std::fmt::Result {
        writer.write_str(&notice(text, self.json))
    }
}

impl<S, N, F> FormatEvent<S, N> for RateLimited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if *event.metadata().level() > Level::WARN {
            return self.format.format_event(context, writer, event);
        }
        match self.decide(event.metadata().callsite(), Instant::now()) {
            LogDecision::Suppress => Ok(()),
            LogDecision::Emit { suppressed } => {
                if suppressed > 0 {
                    self.write_notice(
                        &mut writer,
                        &format!("number of suppressed lines of the following kind: {suppressed}"),
                    )?;
                }
                self.format.format_event(context, writer, event)
            }
            LogDecision::EmitLast(rest) => {
                self.format.format_event(context, writer.by_ref(), event)?;
                let seconds = rest.as_secs().max(1);
                self.write_notice(
                    &mut writer,
                    &format!("further lines of this kind are suppressed for {seconds} s"),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(json: bool, emit: impl Fn()) -> String {
        let written = SharedBuffer::default();
        let writer = written.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false);
        let format = tracing_subscriber::fmt::format();
        if json {
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            let log = builder
                .fmt_fields(fields)
                .event_format(RateLimited::new(format.json(), true));
            tracing::subscriber::with_default(log.finish(), emit);
        } else {
            tracing::subscriber::with_default(
                builder
                    .event_format(RateLimited::new(format, false))
                    .finish(),
                emit,
            );
        }
        String::from_utf8(written.0.lock().clone()).unwrap()
    }

    #[test]
    fn frequent_warning_is_limited_and_other_lines_are_not() {
        let text = log(false, || {
            for i in 0..1000 {
                tracing::warn!("frequent warning {i}");
                tracing::info!("info {i}");
            }
            tracing::warn!("rare warning");
        });
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count() as u64;
        assert_eq!(
            (count("frequent"), count("info"), count("rare")),
            (MAX_LINES, 1000, 1),
            "{text}"
        );
        assert_eq!(count("further lines of this kind are suppressed for"), 1);
    }

    #[test]
    fn every_line_of_a_limited_json_log_is_json() {
        let text = log(true, || {
            (0..100).for_each(|i| tracing::error!("frequent error {i}"));
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, MAX_LINES + 1);
    }

    #[test]
    fn next_window_reports_the_number_of_suppressed_lines() {
        let limited = RateLimited::new((), false);
        let callsite = any_callsite().unwrap();
        let start = Instant::now();
        let decisions: Vec<LogDecision> = (0..50)
            .map(|_| limited.decide(callsite.clone(), start))
            .collect();
        assert_eq!(decisions[0], LogDecision::Emit { suppressed: 0 });
        assert_eq!(
            decisions[MAX_LINES as usize - 1],
            LogDecision::EmitLast(WINDOW)
        );
        assert_eq!(decisions[49], LogDecision::Suppress);
        assert_eq!(
            limited.decide(callsite.clone(), start + WINDOW),
            LogDecision::Emit { suppressed: 30 }
        );
        assert_eq!(
            limited.decide(callsite, start + WINDOW + WINDOW),
            LogDecision::Emit { suppressed: 0 }
        );
    }

    fn any_callsite() -> Option<Identifier> {
        struct Catch(Arc<Mutex<Option<Identifier>>>);
        impl<S: Subscriber> tracing_subscriber::Layer<S> for Catch {
            fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                *self.0.lock() = Some(event.metadata().callsite());
            }
        }
        let found = Arc::new(Mutex::new(None));
        let layer = Catch(Arc::clone(&found));
        let subscriber =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
        tracing::subscriber::with_default(subscriber, || tracing::warn!("here"));
        found.lock().clone()
    }
}
