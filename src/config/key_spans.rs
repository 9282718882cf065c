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
        if let DeValue::Table(table) = value.get_ref() {
            self.walk(lines, path, table);
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

    /// Returns the line of a key, or of the nearest table above it; 0 if the file has neither.
    pub(crate) fn line(&self, key: &str) -> usize {
        let mut key = key.split('[').next().unwrap_or_default();
        loop {
            match (self.lines.get(key), key.rsplit_once('.')) {
                (Some(&line), _) => return line,
                (None, Some((above, _))) => key = above,
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
