//! The lines of the keys of a pipeline file, and the diagnostics that show them.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line of every key, and the keys that are overridden from outside the file.
#[derive(Debug, Clone, Default)]
pub struct KeySpans {
    pub(crate) file: String,
    pub(crate) lines: BTreeMap<String, usize>,
    pub(crate) overridden: Vec<(String, String)>,
}

impl KeySpans {
    pub(crate) fn walk(&mut self, lines: &LineIndex, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            self.lines
                .insert(path.clone(), lines.line_number(key.span().start));
            self.walk_value(lines, &path, value);
        }
    }

    fn walk_value(&mut self, lines: &LineIndex, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.walk(lines, path, table),
            DeValue::Array(values) => {
                for (index, element) in values.iter().enumerate() {
                    if let DeValue::Table(table) = element.get_ref() {
                        let element_path = format!("{path}[{index}]");
                        let line = lines.line_number(element.span().start);
                        self.lines.insert(element_path.clone(), line);
                        self.walk(lines, &element_path, table);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn overridden(&mut self, key: &str, origin: String) {
        self.overridden.push((key.to_owned(), origin));
    }

    /// Returns the key of the file whose parts are these words, separated by underscores.
    pub(super) fn key_of_words(&self, words: &str) -> Option<&str> {
        let mut keys = self.lines.keys();
        let key = keys.find(|key| key.replace(['.', '-'], "_") == words);
        key.map(String::as_str)
    }

    /// Returns the sort key of a table: the order of the file, then tables of overrides by name.
    pub(super) fn order(&self, key: &str) -> (usize, String) {
        (
            self.lines.get(key).copied().unwrap_or(usize::MAX),
            key.to_owned(),
        )
    }

    /// Returns the line of a key, or of the nearest table or list above it; 0 if the file has
    /// neither. Tables of a list are counted from 0, as in `input.rules[1].columns`.
    pub(crate) fn line(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            match (self.lines.get(key), key.rfind(['.', '['])) {
                (Some(&line), _) => return line,
                (None, Some(end)) => key = &key[..end],
                (None, None) => return 0,
            }
        }
    }

    /// Whether a table or value exists only because of overrides.
    pub(super) fn is_only_overridden(&self, key: &str) -> bool {
        !self.lines.contains_key(key)
            && self
                .overridden
                .iter()
                .any(|(overridden, _)| is_at_or_below(overridden, key))
    }

    /// Returns the location of a line, 0 for the file as a whole.
    pub(crate) fn location(&self, line: usize) -> String {
        match line {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }
}

/// Whether a dotted key names `above` or a value in it.
#[must_use]
pub(crate) fn is_at_or_below(key: &str, above: &str) -> bool {
    let rest = key.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The positions of the line breaks of a text.
pub(crate) struct LineIndex {
    ends: Vec<usize>,
}

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            ends: text
                .bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(position, _)| position)
                .collect(),
        }
    }

    /// Returns the line of a byte position, counted from 1.
    pub(crate) fn line_number(&self, position: usize) -> usize {
        1 + self.ends.partition_point(|&end| end < position)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    #[test]
    fn keys_of_tables_in_lists_have_their_own_lines() {
        let text =
            "[[input.rules]]\na = 1\n\n[[input.rules]]\nb = [1, 2]\nc = [{ d = 1 }, { e = 2 }]\n";
        let spans = KeySpans::parse(Path::new("t.toml"), text).unwrap();
        for (key, line) in [
            ("input.rules", 1),
            ("input.rules[0].a", 2),
            ("input.rules[0].missing", 1),
            ("input.rules[1].b[1]", 5),
            ("input.rules[1].missing", 4),
            ("input.rules[1].c[1].e", 6),
            ("input.rules[7].a", 1),
            ("other[0].x", 0),
        ] {
            assert_eq!(spans.line(key), line, "{key}");
        }
    }
}
