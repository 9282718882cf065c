//! The log on standard error, as text or as JSON.

use std::sync::atomic::Ordering::Relaxed;

use clap::ValueEnum;
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

use super::log_escaping::EscapedFormat;
use super::log_rate_limit::RateLimited;
use super::stderr::{self, Stderr};
use crate::cli::log_lines::{IS_JSON, is_json, json_line};
use crate::error::code::ErrorCode;
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
            fatal(ErrorCode::Internal, &panic.to_string());
        }
    }));
}

/// Writes the error that ends the program in the format of the log.
pub(super) fn fatal(code: ErrorCode, text: &str) {
    write("ERROR", Some(code), text);
}

/// Writes a text in the format of the log.
pub(super) fn write_info(text: &str) {
    write("INFO", None, text);
}

fn write(level: &str, code: Option<ErrorCode>, text: &str) {
    let text = text.trim_end();
    match is_json() {
        true => {
            let mut fields = json!({ "message": text });
            if let Some(code) = code {
                fields["code"] = json!(code.as_str());
            }
            stderr::write(&json_line(level, &fields));
        }
        false => stderr::write(&format!("{}\n", text_escape::text(text))),
    }
}
