//! Log lines: to standard error, for people or as JSON.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

use super::log_limit::Limited;
use super::log_text::Printable;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A progress bar on a terminal, lines elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets the log up. `RUST_LOG` chooses what is told, `info` unless it says otherwise.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,ort=error"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = tracing_subscriber::fmt::format().with_target(false);
    // A second start (in tests) keeps the first.
    let _ = match format {
        LogFormat::Json => log
            .fmt_fields(JsonFields::new())
            .event_format(Limited::new(Printable::new(lines.json(), true), true))
            .try_init(),
        LogFormat::Auto | LogFormat::Text => {
            log.with_ansi(false).event_format(Limited::new(Printable::new(lines, false), false)).try_init()
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        // Panics on a record are caught and become rejects: they are worth a line only to who looks for them.
        let thread = std::thread::current();
        tracing::debug!(thread = thread.name().unwrap_or_default(), "{panic}");
        if thread.name() == Some("main") {
            eprintln!("{panic}");
        }
    }));
}
