//! The faults of a file, each with its place.

use std::fmt;
use std::path::Path;

use toml::de::DeTable;

use crate::config::key_spans::{KeySpans, LineIndex, is_at_or_below};
use crate::config::settings::PipelineConfig;
use crate::config::syntax_errors;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;

/// Maximum number of faults that are printed; a file with more is usually not a pipeline.
pub(super) const SHOWN: usize = 50;

/// Maximum number of characters of a printed key and of a printed message.
const SHOWN_CHARS: usize = 1000;

/// The faults of a pipeline with their locations, printed one per line.
#[derive(Debug)]
pub struct Diagnostics {
    pub(super) located: Vec<Diagnostic>,
    pub(super) partial: Option<Box<PipelineConfig>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    pub(super) location: String,
    pub(super) line: usize,
    pub(super) fault: ConfigError,
}

impl Diagnostics {
    /// The code that all faults have, or [`ErrorCode::PipelineInvalid`] if they differ.
    pub(crate) fn code(&self) -> ErrorCode {
        let mut codes = self.located.iter().map(|located| located.fault.code);
        let first = codes.next().unwrap_or(ErrorCode::PipelineInvalid);
        match codes.all(|code| code == first) {
            true => first,
            false => ErrorCode::PipelineInvalid,
        }
    }

    /// Whether all faults are errors of the environment, so that the same pipeline may be valid
    /// later.
    #[must_use]
    pub(crate) fn are_of_environment(&self) -> bool {
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
    pub(crate) fn partial_spec(&self) -> Option<&PipelineConfig> {
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

impl KeySpans {
    /// Locates a fault at the last override of its key or of a table above it, or, for a table that
    /// only overrides declare, at the override; otherwise at the line of the file.
    pub(crate) fn locate(&self, fault: ConfigError) -> Diagnostic {
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
}
