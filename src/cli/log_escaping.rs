//! Escapes log events, so that each is one printable line regardless of the file names in it.

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::text_escape;

/// Formats events as `format` does and escapes terminal control characters.
pub(super) struct EscapedFormat<F> {
    format: F,
    json: bool,
}

impl<F> EscapedFormat<F> {
    pub(super) fn new(format: F, json: bool) -> Self {
        Self { format, json }
    }
}

impl<S, N, F> FormatEvent<S, N> for EscapedFormat<F>
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
        let mut text = String::new();
        self.format
            .format_event(context, Writer::new(&mut text), event)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let escaped = if self.json {
            text_escape::json(text)
        } else {
            text_escape::line(text)
        };
        writeln!(writer, "{escaped}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(json: bool) -> String {
        let written = SharedBuffer::default();
        let writer = written.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false);
        let format = tracing_subscriber::fmt::format();
        let name = "a\u{1b}[2J\u{202e}gpj\u{9b}\nINFO forged";
        let emit = || tracing::warn!(file = name, "{name}");
        if json {
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            let log = builder
                .fmt_fields(fields)
                .event_format(EscapedFormat::new(format.json(), true));
            tracing::subscriber::with_default(log.finish(), emit);
        } else {
            tracing::subscriber::with_default(
                builder
                    .event_format(EscapedFormat::new(format, false))
                    .finish(),
                emit,
            );
        }
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn control_characters_in_a_file_name_are_escaped() {
        let text = log(false);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            !text.trim_end().chars().any(text_escape::is_unprintable),
            "{text:?}"
        );
        let json = log(true);
        assert!(
            !json.trim_end().chars().any(text_escape::is_unprintable),
            "{json:?}"
        );
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            line["fields"]["file"],
            "a\u{1b}[2J\u{202e}gpj\u{9b}\nINFO forged"
        );
    }
}
