//! File names of records, which follow a pattern of `source` and `row` and are valid on every
//! system.
//!
//! | record | file |
//! |---|---|
//! | row 0 of a source with the extension of an image, `a/b.jpg` | `a/b.png` |
//! | another row of such a source | `a/b-000012.png` |
//! | any row of any other source, `train.parquet` | `train.parquet/000012.png` |
//!
//! If two records have the same name, the sink adds a suffix. Characters that are invalid on some
//! system are percent-encoded. A name that is too long is cut and ends in `%~` and a hash; no
//! encoding produces `%~`. A folder never ends in the extension of the files, so a file never
//! occupies the path of a folder.

use std::borrow::Cow;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::sink::STATE_DIR;
use crate::source::file_set::has_extension;
use crate::source::images::EXTENSIONS;

/// Maximum length of a component in bytes. Systems allow 255 bytes; the rest is reserved for
/// suffixes and temporary names.
const MAX_COMPONENT_BYTES: usize = 200;

/// Maximum length in bytes of a path below the folder. macOS allows 1024 including the folder.
const MAX_PATH_BYTES: usize = 512;

/// Characters that are invalid in names on some system, and the percent sign of the encoding.
const INVALID_CHARACTERS: &str = r#"<>:"\|?*%"#;

/// The naming of the files of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamingScheme {
    /// The default names of the table in the module documentation.
    Current,
    /// The default names of versions without patterns, which keep the extension of the source:
    /// `a/b.jpg.png`.
    Legacy,
    /// The pattern of the option `name`.
    Pattern(NamePattern),
}

impl NamingScheme {
    /// The path of a record's file relative to the sink's folder, with `/` between its parts,
    /// without the final `.` and extension.
    pub(super) fn path(&self, source: &str, row: u64, extension: &str) -> String {
        let is_image = has_extension(
            Path::new(source.rsplit('/').next().unwrap_or_default()),
            EXTENSIONS,
        );
        let parts = match self {
            Self::Legacy => return legacy_path(source, row, extension, is_image),
            Self::Pattern(NamePattern(parts)) => parts.as_slice(),
            Self::Current if is_image && row == 0 => IMAGE,
            Self::Current if is_image => IMAGE_ROW,
            Self::Current => RECORD,
        };
        encode_path(&expand(parts, source, row, extension), extension)
    }
}

/// A pattern of file names without its final `.{ext}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamePattern(Vec<PatternPart>);

/// A part of a pattern: text or a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternPart {
    Text(Cow<'static, str>),
    Source,
    Dir,
    Stem,
    SourceExt,
    Row,
    Ext,
}

const SLASH: PatternPart = PatternPart::Text(Cow::Borrowed("/"));
const IMAGE: &[PatternPart] = &[PatternPart::Dir, SLASH, PatternPart::Stem];
const IMAGE_ROW: &[PatternPart] = &[
    PatternPart::Dir,
    SLASH,
    PatternPart::Stem,
    PatternPart::Text(Cow::Borrowed("-")),
    PatternPart::Row,
];
const RECORD: &[PatternPart] = &[PatternPart::Source, SLASH, PatternPart::Row];

/// The required end of a pattern.
const END: &str = ".{ext}";

impl NamePattern {
    /// Parses a pattern such as `{dir}/{stem}.{ext}`.
    ///
    /// # Errors
    /// A message with the invalid part of the pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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
    fn parse(placeholder: &str) -> Option<Self> {
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
fn expand(parts: &[PatternPart], source: &str, row: u64, extension: &str) -> String {
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

/// Encodes a path so that all its components are valid on every system.
fn encode_path(path: &str, extension: &str) -> String {
    let (folders, file) = path
        .rsplit_once('/')
        .map_or((None, path), |(folders, file)| (Some(folders), file));
    let folders = folders.into_iter().flat_map(|folders| folders.split('/'));
    let mut encoded: String = folders
        .map(|folder| component(folder, Some(extension)) + "/")
        .collect();
    encoded.push_str(&component(file, None));
    if encoded.len() > MAX_PATH_BYTES {
        format!("%~{}", hash(path))
    } else {
        encoded
    }
}

/// The path of a record in [`NamingScheme::Legacy`].
fn legacy_path(source: &str, row: u64, extension: &str, is_image: bool) -> String {
    let folders_end = source.rfind('/').map_or(0, |slash| slash + 1);
    let mut path = String::new();
    let mut start = 0;
    for text in source.split('/') {
        let is_file = is_image && start == folders_end;
        path.push_str(if start > 0 { "/" } else { "" });
        path.push_str(&component(
            text,
            if is_file { None } else { Some(extension) },
        ));
        start += text.len() + 1;
    }
    if path.len() > MAX_PATH_BYTES {
        path = format!("%~{}", hash(source));
    }
    match (is_image, row) {
        (true, 0) => path,
        (true, _) => format!("{path}-{row:06}"),
        (false, _) => format!("{path}/{row:06}"),
    }
}

/// Encodes a component such that different texts have different results. For a folder,
/// `file_extension` is the extension of the sink's files, which the folder must not end in, since
/// it could then have the path of a file.
fn component(text: &str, file_extension: Option<&str>) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut encoded = String::with_capacity(text.len());
    for (offset, character) in text.char_indices() {
        if is_valid(text, offset, character, file_extension) {
            encoded.push(character);
        } else {
            let bytes = &text.as_bytes()[offset..offset + character.len_utf8()];
            bytes
                .iter()
                .for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
        }
    }
    if encoded.len() > MAX_COMPONENT_BYTES {
        let hash = hash(text);
        let mut end = MAX_COMPONENT_BYTES - hash.len() - 2;
        while !encoded.is_char_boundary(end) {
            end -= 1;
        }
        encoded.truncate(end);
        encoded.push_str("%~");
        encoded.push_str(&hash);
    }
    encoded
}

/// Whether the character at `offset` is kept without encoding.
fn is_valid(text: &str, offset: usize, character: char, file_extension: Option<&str>) -> bool {
    let rest = &text[offset + character.len_utf8()..];
    let starts_extension =
        |extension: &str| character == '.' && rest.eq_ignore_ascii_case(extension);
    let first = offset == 0
        && (character == '.' || is_device(text) || text.eq_ignore_ascii_case(STATE_DIR));
    let last = rest.is_empty() && matches!(character, '.' | ' ');
    let is_invalid = character.is_control() || INVALID_CHARACTERS.contains(character);
    !(first || last || is_invalid || file_extension.is_some_and(starts_extension))
}

/// Whether the name is a device on Windows, which ignores the extension.
fn is_device(name: &str) -> bool {
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_ascii_uppercase();
    let numbered = |device| {
        stem.strip_prefix(device)
            .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

/// The first 128 bits of the SHA-256 digest in hexadecimal.
pub(super) fn hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text.as_bytes()));
    hash.truncate(32);
    hash
}

#[cfg(test)]
mod tests;
