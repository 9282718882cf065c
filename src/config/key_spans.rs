//! The lines of the keys of a pipeline file, and the diagnostics that show them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{PipelineConfig, syntax_errors};
use crate::error::ConfigError;

/// The line of every key, and the keys that are overridden from outside the file.
#[derive(Debug, Clone, Default)]
pub struct KeySpans {
    file: String,
    lines: BTreeMap<String, usize>,
    overridden: Vec<(String, String)>,
}

impl KeySpans {
    /// Locates every key of the file.
    ///
    /// # Errors
    /// All syntax errors, with their lines.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        let mut key_spans = Self {
            file: path.display().to_string(),
            ..Self::default()
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = LineIndex::new(text);
        if !errors.is_empty() {
            let mut located: Vec<Diagnostic> = Vec::new();
            for (count, error) in errors.iter().enumerate() {
                let position = error.span().map(|span| span.start);
                let line = position.map_or(0, |position| lines.line_number(position));
                // A file with more errors is not explained: each explanation reads a line.
                let explained = position
                    .filter(|_| count < SHOWN)
                    .and_then(|position| syntax_errors::explain(text, position, error.message()));
                let message = explained.unwrap_or_else(|| error.message().trim().to_owned());
                let diagnostic = Diagnostic {
                    location: key_spans.location(line),
                    line,
                    fault: ConfigError::new("", message),
                };
                if located.last() != Some(&diagnostic) {
                    located.push(diagnostic);
                }
            }
            return Err(Diagnostics {
                located,
                partial: None,
            });
        }
        key_spans.walk(&lines, "", table.get_ref());
        Ok(key_spans)
    }

    fn walk(&mut self, lines: &LineIndex, prefix: &str, table: &DeTable<'_>) {
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
    fn line(&self, key: &str) -> usize {
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
    fn location(&self, line: usize) -> String {
        match line {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }

    /// Locates a fault at the last override of its key or of a table above it, or, for a table that
    /// only overrides declare, at the override; otherwise at the line of the file.
    fn locate(&self, fault: ConfigError) -> Diagnostic {
        let is_declared = fault.key.is_empty() || self.lines.contains_key(&fault.key);
        let is_cause = |key: &str| {
            is_at_or_below(&fault.key, key) || (!is_declared && is_at_or_below(key, &fault.key))
        };
        if let Some((_, origin)) = self.overridden.iter().rev().find(|(key, _)| is_cause(key)) {
            return Diagnostic {
                location: origin.clone(),
                line: usize::MAX,
                fault,
            };
        }
        let line = self.line(&fault.key);
        Diagnostic {
            location: self.location(line),
            line,
            fault,
        }
    }
}

/// Whether a dotted key names `above` or a value in it.
#[must_use]
pub fn is_at_or_below(key: &str, above: &str) -> bool {
    let rest = key.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Maximum number of faults that are printed; a file with more is usually not a pipeline.
const SHOWN: usize = 50;
/// Maximum number of characters of a printed key and of a printed message.
const SHOWN_CHARS: usize = 1000;

/// The faults of a pipeline with their locations, printed one per line.
#[derive(Debug)]
pub struct Diagnostics {
    located: Vec<Diagnostic>,
    partial: Option<Box<PipelineConfig>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Diagnostic {
    location: String,
    line: usize,
    fault: ConfigError,
}

impl Diagnostics {
    /// Whether all faults are errors of the environment, so that the same pipeline may be valid
    /// later.
    #[must_use]
    pub fn are_of_environment(&self) -> bool {
        self.located
            .iter()
            .all(|located| located.fault.is_of_environment)
    }

    /// Locates faults and sorts them in the order of the file.
    pub fn new(key_spans: &KeySpans, faults: Vec<ConfigError>) -> Self {
        let mut located: Vec<Diagnostic> = faults
            .into_iter()
            .map(|fault| key_spans.locate(fault))
            .collect();
        located.sort_by(|a, b| (a.line, &a.fault.key).cmp(&(b.line, &b.fault.key)));
        located.dedup();
        Self {
            located,
            partial: None,
        }
    }

    pub(super) fn partial(
        key_spans: &KeySpans,
        faults: Vec<ConfigError>,
        spec: PipelineConfig,
    ) -> Self {
        Self {
            partial: Some(Box::new(spec)),
            ..Self::new(key_spans, faults)
        }
    }

    /// Faults that are not in the lines of the file, each with its location, such as the option of
    /// the command line.
    pub(super) fn at(faults: impl IntoIterator<Item = (String, ConfigError)>) -> Self {
        let located = faults.into_iter().map(|(location, fault)| Diagnostic {
            location,
            line: 0,
            fault,
        });
        Self {
            located: located.collect(),
            partial: None,
        }
    }

    /// Returns the valid part of the pipeline, if it could be read.
    pub fn partial_spec(&self) -> Option<&PipelineConfig> {
        self.partial.as_deref()
    }

    /// Takes the valid part of the pipeline, so that its other faults can be found.
    pub fn take_partial(&mut self) -> Option<PipelineConfig> {
        self.partial.take().map(|spec| *spec)
    }

    /// Merges two sets of faults in the order of the file.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.located.extend(others.located);
        self.located
            .sort_by(|a, b| (a.line, &a.fault.key).cmp(&(b.line, &b.fault.key)));
        self.located.dedup();
        self
    }

    /// Returns the number of faults.
    pub fn len(&self) -> usize {
        self.located.len()
    }

    /// Whether there are no faults.
    pub fn is_empty(&self) -> bool {
        self.located.is_empty()
    }

    /// Returns the location, the key and the message of each fault. The key may be empty.
    pub fn list(&self) -> Vec<(String, String, String)> {
        let text = |diagnostic: &Diagnostic| {
            let Diagnostic {
                location, fault, ..
            } = diagnostic;
            (location.clone(), fault.key.clone(), fault.message.clone())
        };
        self.located.iter().map(text).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            count,
            Diagnostic {
                location, fault, ..
            },
        ) in self.located.iter().enumerate()
        {
            if count == SHOWN {
                return write!(f, "\nand {} more", self.len() - SHOWN);
            }
            if count > 0 {
                writeln!(f)?;
            }
            match shorten(&fault.key) {
                "" => write!(f, "{location}: {}", shorten(&fault.message))?,
                key => write!(f, "{location}: {key}: {}", shorten(&fault.message))?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Truncates text that may quote a hostile file.
fn shorten(text: &str) -> &str {
    text.char_indices()
        .nth(SHOWN_CHARS)
        .map_or(text, |(end, _)| &text[..end])
}

/// The positions of the line breaks of a text.
struct LineIndex {
    ends: Vec<usize>,
}

impl LineIndex {
    fn new(text: &str) -> Self {
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
    fn line_number(&self, position: usize) -> usize {
        1 + self.ends.partition_point(|&end| end < position)
    }
}
