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

pub(crate) mod pattern;

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::sink::STATE_DIR;
use crate::sink::images::file_naming::pattern::{IMAGE, IMAGE_ROW, NamePattern, RECORD, expand};
use crate::source::discovery::file_set::patterns::has_extension;
use crate::source::images::config::EXTENSIONS;

/// Maximum length of a component in bytes. Systems allow 255 bytes; the rest is reserved for
/// suffixes and temporary names.
const MAX_COMPONENT_BYTES: usize = 200;

/// Maximum length in bytes of a path below the folder. macOS allows 1024 including the folder.
const MAX_PATH_BYTES: usize = 512;

/// Characters that are invalid in names on some system, and the percent sign of the encoding.
const INVALID_CHARACTERS: &str = r#"<>:"\|?*%"#;

/// The naming of the files of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamingScheme {
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
    pub(crate) fn path(&self, source: &str, row: u64, extension: &str) -> String {
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
pub(crate) fn hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text.as_bytes()));
    hash.truncate(32);
    hash
}

#[cfg(test)]
mod tests;
