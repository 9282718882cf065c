//! Patterns of file names.

use std::borrow::Cow;

use crate::sink::STATE_DIR;
use crate::sink::images::file_naming::INVALID_CHARACTERS;

/// A pattern of file names without its final `.{ext}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern(pub(super) Vec<PatternPart>);

/// A part of a pattern: text or a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatternPart {
    Text(Cow<'static, str>),
    Source,
    Dir,
    Stem,
    SourceExt,
    Row,
    Ext,
}

const SLASH: PatternPart = PatternPart::Text(Cow::Borrowed("/"));

pub(super) const IMAGE: &[PatternPart] = &[PatternPart::Dir, SLASH, PatternPart::Stem];

pub(super) const IMAGE_ROW: &[PatternPart] = &[
    PatternPart::Dir,
    SLASH,
    PatternPart::Stem,
    PatternPart::Text(Cow::Borrowed("-")),
    PatternPart::Row,
];

pub(super) const RECORD: &[PatternPart] = &[PatternPart::Source, SLASH, PatternPart::Row];

/// The required end of a pattern.
const END: &str = ".{ext}";

impl NamePattern {
    /// Parses a pattern such as `{dir}/{stem}.{ext}`.
    ///
    /// # Errors
    /// A message with the invalid part of the pattern.
    pub(in crate::sink) fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_suffix(END) else {
            return Err(format!(
                "`{text}` must end in `{END}`, which becomes the extension of the format"
            ));
        };
        let mut parts = Vec::new();
        let mut rest = path;
        while let Some(open) = rest.find(['{', '}']) {
            push_text(&mut parts, &rest[..open]);
            let placeholder = rest[open..].split_inclusive('}').next().unwrap_or_default();
            parts.push(
                PatternPart::parse(placeholder).ok_or_else(|| unknown_placeholder(placeholder))?,
            );
            rest = &rest[open + placeholder.len()..];
        }
        push_text(&mut parts, rest);
        path.split('/').try_for_each(check_component)?;
        Ok(Self(parts))
    }
}

fn push_text(parts: &mut Vec<PatternPart>, text: &str) {
    if !text.is_empty() {
        parts.push(PatternPart::Text(Cow::Owned(text.to_owned())));
    }
}

fn unknown_placeholder(placeholder: &str) -> String {
    format!(
        "`{placeholder}` is not a placeholder; expected {{source}}, {{dir}}, {{stem}}, \
         {{source_ext}}, {{row}} or {{ext}}"
    )
}

/// Refuses a component of a pattern that cannot lead to a valid name for any record.
fn check_component(text: &str) -> Result<(), String> {
    let is_invalid = |c: char| c.is_control() || INVALID_CHARACTERS.contains(c);
    match text {
        "" => Err(
            "has an empty part; expected a path relative to the folder, such as \
             `{dir}/{stem}.{ext}`"
                .to_owned(),
        ),
        ".." | "." => Err(format!(
            "`{text}` is not allowed as a part of the path; use a path inside the folder"
        )),
        _ if text.starts_with('.') => Err(format!(
            "`{text}` starts with a dot, which hides files; remove the dot"
        )),
        _ if text.eq_ignore_ascii_case(STATE_DIR) => Err(format!(
            "`{STATE_DIR}` is reserved for the state of the sink; use another folder"
        )),
        _ => match text.chars().find(|c| is_invalid(*c)) {
            Some(invalid) => Err(format!(
                "the character `{}` is not valid in file names on every system; remove it",
                invalid.escape_debug()
            )),
            None => Ok(()),
        },
    }
}

impl PatternPart {
    pub(super) fn parse(placeholder: &str) -> Option<Self> {
        Some(match placeholder {
            "{source}" => Self::Source,
            "{dir}" => Self::Dir,
            "{stem}" => Self::Stem,
            "{source_ext}" => Self::SourceExt,
            "{row}" => Self::Row,
            "{ext}" => Self::Ext,
            _ => return None,
        })
    }
}

/// Replaces the placeholders of a pattern. The slash after `{dir}` is omitted if the source has no
/// folder.
pub(super) fn expand(parts: &[PatternPart], source: &str, row: u64, extension: &str) -> String {
    let (dir, file) = source.rsplit_once('/').unwrap_or(("", source));
    let (stem, source_ext) = file
        .rsplit_once('.')
        .filter(|(stem, _)| !stem.is_empty())
        .unwrap_or((file, ""));
    let mut text = String::new();
    let mut is_without_dir = false;
    for part in parts {
        match part {
            PatternPart::Text(own) if is_without_dir => {
                text.push_str(own.strip_prefix('/').unwrap_or(own))
            }
            PatternPart::Text(own) => text.push_str(own),
            PatternPart::Source => text.push_str(source),
            PatternPart::Dir => text.push_str(dir),
            PatternPart::Stem => text.push_str(stem),
            PatternPart::SourceExt => text.push_str(source_ext),
            PatternPart::Row => text.push_str(&format!("{row:06}")),
            PatternPart::Ext => text.push_str(extension),
        }
        is_without_dir = *part == PatternPart::Dir && dir.is_empty();
    }
    text
}
