//! Lines about the log itself.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::text_escape;

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

/// Whether each line of the log is a JSON object.
pub(super) static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Returns whether each line of the log is a JSON object.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Relaxed)
}
