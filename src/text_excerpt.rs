//! Excerpts of texts that may be as long as a record, for messages and tables.

use std::borrow::Cow;

/// Maximum length in characters of a text that a message quotes.
const MESSAGE_CHARS: usize = 300;

/// The first 300 characters of a text, followed by `...` if the text is longer.
pub(crate) fn shorten(text: &str) -> String {
    excerpt(text, MESSAGE_CHARS).into_owned()
}

/// The first `max_chars` characters of a text, followed by `...` if the text is longer.
pub(crate) fn excerpt(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_text_is_cut_between_characters_and_marked() {
        assert_eq!(excerpt("", 0), "");
        assert_eq!(excerpt("äöü", 3), "äöü");
        assert_eq!(excerpt("äöü€", 3), "äöü...");
        assert_eq!(shorten(&"€".repeat(301)), format!("{}...", "€".repeat(300)));
    }
}
