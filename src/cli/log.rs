//! The log on standard error, as text or as JSON.

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

/// The format of progress and log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A progress bar on a terminal, text lines otherwise.
    Auto,
    /// Text lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether each line of the log is a JSON object.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Starts the log. `RUST_LOG` sets the levels; the default is `info`, and `error` for ONNX Runtime.
pub(super) fn start(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
    stderr::start();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,ort=error"));
    // Errors of the log are not reported, because they would be written to the same stream.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| Stderr);
    let lines = tracing_subscriber::fmt::format().with_target(false);
    // A second start (in tests) has no effect.
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
        // A panic on a record is caught and becomes a reject, so it is logged for debugging only.
        let thread = std::thread::current();
        tracing::debug!(thread = thread.name().unwrap_or_default(), %panic, "a thread panicked");
        if thread.name() == Some("main") {
            fatal(&panic.to_string());
        }
    }));
}

/// Writes the error that ends the program in the format of the log.
pub(super) fn fatal(text: &str) {
    write("ERROR", text);
}

/// Writes a text in the format of the log.
pub(super) fn write_info(text: &str) {
    write("INFO", text);
}

fn write(level: &str, text: &str) {
    let text = text.trim_end();
    match is_json() {
        true => stderr::write(&json_line(level, &json!({ "message": text }))),
        false => stderr::write(&format!("{}\n", text_escape::text(text))),
    }
}

/// Returns whether each line of the log is a JSON object.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Relaxed)
}

/// Formats an event as a line of the JSON log, including the line break.
pub(super) fn json_line(level: &str, fields: &Value) -> String {
    let mut timestamp = String::new();
    // If the time cannot be formatted, the line has an empty timestamp.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let fields = fields.to_string();
    let fields = text_escape::json(&fields);
    format!("{{\"timestamp\":\"{timestamp}\",\"level\":\"{level}\",\"fields\":{fields}}}\n")
}

/// Formats the line that replaces lost lines in the log.
pub(super) fn lost_lines(count: u64) -> String {
    let lost = if count == 1 {
        "1 line of the log was".to_owned()
    } else {
        format!("{count} lines of the log were")
    };
    notice(
        &format!("{lost} lost, because standard error was not writable"),
        is_json(),
    )
}

/// Formats a warning of the log about itself, including the line break.
pub(super) fn notice(text: &str, is_json: bool) -> String {
    if is_json {
        json_line("WARN", &json!({ "message": text }))
    } else {
        format!("{:>34} {text}\n", "WARN")
    }
}
