//! A bound on the volume of the log: what goes wrong a thousand times a second is told some times a
//! minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log::notice;

/// Warnings and errors of one place in the program that are told in each [`WINDOW`].
const MAX_LINES: u64 = 20;
/// After so long, lines are counted anew.
const WINDOW: Duration = Duration::from_secs(60);

/// Formats events as `format` does, but leaves out warnings and errors that come too often, and
/// says so.
pub(super) struct RateLimited<F> {
    format: F,
    json: bool,
    /// By the place in the program: there are few, so this stays small.
    windows: Mutex<HashMap<Identifier, RateWindow>>,
}

/// What one place has told in the present span.
struct RateWindow {
    since: Instant,
    lines: u64,
}

/// What is done with a line.
#[derive(Debug, PartialEq, Eq)]
enum LogDecision {
    /// It is told, after so many that were left out before it.
    Emit {
        left_out: u64,
    },
    /// It is told, and those that follow are left out for this long.
    EmitLast(Duration),
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

    fn decide(&self, place: Identifier, now: Instant) -> LogDecision {
        let mut all = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let met = all.entry(place).or_insert(RateWindow {
            since: now,
            lines: 0,
        });
        let mut left_out = 0;
        if now.saturating_duration_since(met.since) >= WINDOW {
            left_out = met.lines.saturating_sub(MAX_LINES);
            *met = RateWindow {
                since: now,
                lines: 0,
            };
        }
        met.lines += 1;
        match met.lines {
            MAX_LINES => LogDecision::EmitLast(
                WINDOW.saturating_sub(now.saturating_duration_since(met.since)),
            ),
            lines if lines > MAX_LINES => LogDecision::Suppress,
            _ => LogDecision::Emit { left_out },
        }
    }

    /// A line of the log about itself.
    fn say(&self, writer: &mut Writer<'_>, text: &str) -> std::fmt::Result {
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
            LogDecision::Emit { left_out } => {
                if left_out > 0 {
                    self.say(
                        &mut writer,
                        &format!("{left_out} lines like the next were left out"),
                    )?;
                }
                self.format.format_event(context, writer, event)
            }
            LogDecision::EmitLast(rest) => {
                self.format.format_event(context, writer.by_ref(), event)?;
                let seconds = rest.as_secs().max(1);
                self.say(
                    &mut writer,
                    &format!("further lines like this one are left out for {seconds} s"),
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
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(json: bool, tell: impl Fn()) -> String {
        let written = Written::default();
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
            tracing::subscriber::with_default(log.finish(), tell);
        } else {
            tracing::subscriber::with_default(
                builder
                    .event_format(RateLimited::new(format, false))
                    .finish(),
                tell,
            );
        }
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_comes_too_often_is_told_some_times_and_everything_else_always() {
        let text = log(false, || {
            for i in 0..1000 {
                tracing::warn!("often {i}");
                tracing::info!("news {i}");
            }
            tracing::warn!("seldom");
        });
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count() as u64;
        assert_eq!(
            (count("often"), count("news"), count("seldom")),
            (MAX_LINES, 1000, 1),
            "{text}"
        );
        assert_eq!(count("further lines like this one are left out for"), 1);
    }

    #[test]
    fn json_stays_json() {
        let text = log(true, || (0..100).for_each(|i| tracing::error!("often {i}")));
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, MAX_LINES + 1);
    }

    #[test]
    fn after_a_while_it_is_told_how_many_were_left_out() {
        let limited = RateLimited::new((), false);
        let place = any_place().unwrap();
        let start = Instant::now();
        let verdicts: Vec<LogDecision> = (0..50)
            .map(|_| limited.decide(place.clone(), start))
            .collect();
        assert_eq!(verdicts[0], LogDecision::Emit { left_out: 0 });
        assert_eq!(
            verdicts[MAX_LINES as usize - 1],
            LogDecision::EmitLast(WINDOW)
        );
        assert_eq!(verdicts[49], LogDecision::Suppress);
        assert_eq!(
            limited.decide(place.clone(), start + WINDOW),
            LogDecision::Emit { left_out: 30 }
        );
        assert_eq!(
            limited.decide(place, start + WINDOW + WINDOW),
            LogDecision::Emit { left_out: 0 }
        );
    }

    fn any_place() -> Option<Identifier> {
        struct Catch(Arc<Mutex<Option<Identifier>>>);
        impl<S: Subscriber> tracing_subscriber::Layer<S> for Catch {
            fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
                *self.0.lock().unwrap() = Some(event.metadata().callsite());
            }
        }
        let found = Arc::new(Mutex::new(None));
        let layer = Catch(Arc::clone(&found));
        let subscriber =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
        tracing::subscriber::with_default(subscriber, || tracing::warn!("here"));
        found.lock().unwrap().clone()
    }
}
