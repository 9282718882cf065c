//! Log lines: to standard error, for people or as JSON.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::ValueEnum;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::log_escaping::EscapedFormat;
use super::log_rate_limit::RateLimited;
use super::stderr::{self, Stderr};
use crate::text_escape;

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

/// Whether each line of the log is a JSON object.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sets the log up. `RUST_LOG` chooses what is told, `info` unless it says otherwise.
pub(super) fn start(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
    stderr::start();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,ort=error"));
    // The log does not report its own errors: they would be written to the same place.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| Stderr);
    let lines = tracing_subscriber::fmt::format().with_target(false);
    // A second start (in tests) keeps the first.
    let _ = match format {
        LogFormat::Json => log
            .fmt_fields(JsonFields::new())
            .event_format(RateLimited::new(
                EscapedFormat::new(lines.json(), true),
                true,
            ))
            .try_init(),
        LogFormat::Auto | LogFormat::Text => log
            .with_ansi(false)
            .event_format(RateLimited::new(EscapedFormat::new(lines, false), false))
            .try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // Panics on a record are caught and become rejects: they are worth a line only to who looks
        // for them.
        let thread = std::thread::current();
        tracing::debug!(thread = thread.name().unwrap_or_default(), "{panic}");
        if thread.name() == Some("main") {
            fatal(&panic.to_string());
        }
    }));
}

/// Writes the error that ends the program, in the format of the log.
pub(super) fn fatal(text: &str) {
    write("ERROR", text);
}

/// Writes a text for people, in the format of the log.
pub(super) fn say(text: &str) {
    write("INFO", text);
}

fn write(level: &str, text: &str) {
    let text = text.trim_end();
    match is_json() {
        true => stderr::write(&json_line(level, &json!({ "message": text }))),
        false => stderr::write(&format!("{}\n", text_escape::text(text))),
    }
}

/// Whether each line of the log is a JSON object.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Relaxed)
}

/// An event as the JSON log has them, with the end of its line.
pub(super) fn json_line(level: &str, fields: &Value) -> String {
    let mut timestamp = String::new();
    // Without a clock the line has an empty time.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let fields = fields.to_string();
    let fields = text_escape::json(&fields);
    format!("{{\"timestamp\":\"{timestamp}\",\"level\":\"{level}\",\"fields\":{fields}}}\n")
}

/// The line that stands in the log for lines that were lost.
pub(super) fn lost_lines(count: u64) -> String {
    notice(
        &format!("{count} lines of the log were lost: standard error could not be written"),
        is_json(),
    )
}

/// A warning of the log about itself, with the end of its line.
pub(super) fn notice(text: &str, is_json: bool) -> String {
    if is_json {
        json_line("WARN", &json!({ "message": text }))
    } else {
        format!("{:>34} {text}\n", "WARN")
    }
}
