//! Escapes control characters and characters that change the direction of text.
//!
//! File names, column names and descriptions come from untrusted inputs. A terminal executes the
//! control characters in them, and a bidirectional override makes a name look like another one.

use std::borrow::Cow;

/// Whether a terminal or a page would interpret the character instead of displaying it.
pub(crate) fn is_unprintable(c: char) -> bool {
    let turns_direction = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // The two separators end a line where a reader does not expect it; tags and the byte order mark
    // are invisible.
    c.is_control()
        || turns_direction
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Escapes text of several lines; line breaks and tabs stay.
pub fn text(text: &str) -> Cow<'_, str> {
    escape(
        text,
        |c| is_unprintable(c) && !matches!(c, '\n' | '\t'),
        rust_escape,
    )
}

/// Escapes text of one line, including line breaks in it, so that the text cannot forge another
/// line.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_unprintable, rust_escape)
}

/// Escapes a JSON document. Its meaning stays the same, since these characters occur only in its
/// strings. White space stays.
pub fn json(document: &str) -> Cow<'_, str> {
    escape(
        document,
        |c| is_unprintable(c) && !matches!(c, '\n' | '\t' | '\r'),
        json_escape,
    )
}

fn escape(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    write: fn(&mut String, char),
) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else {
        return Cow::Borrowed(text);
    };
    let mut escaped = text[..first].to_owned();
    for c in text[first..].chars() {
        if is_escaped(c) {
            write(&mut escaped, c)
        } else {
            escaped.push(c)
        }
    }
    Cow::Owned(escaped)
}

fn rust_escape(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c => out.extend(c.escape_unicode()),
    }
}

fn json_escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{9b}31m\u{202e}gpj\u{2066}\r\u{feff}é😀";

    #[test]
    fn characters_that_a_terminal_interprets_are_escaped() {
        let shown = text(HOSTILE);
        assert_eq!(
            shown,
            "a\\u{1b}]0;x\\u{7}\\u{9b}31m\\u{202e}gpj\\u{2066}\\r\\u{feff}é😀"
        );
        assert_eq!(text(&shown), shown, "escapes are printable");
        assert!(!line("a\nb").contains('\n') && text("a\nb\tc") == "a\nb\tc");
    }

    #[test]
    fn escaped_json_keeps_its_value() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "\u{e0041}"] });
        let written = serde_json::to_string_pretty(&value).unwrap_or_default();
        let shown = json(&written);
        assert!(
            !shown.chars().any(|c| is_unprintable(c) && c != '\n'),
            "{shown}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).ok(),
            Some(value)
        );
    }
}
