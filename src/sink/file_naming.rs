//! File names for records: a pattern over `source` and `row`, harmless on every system.
//!
//! | record | file |
//! |---|---|
//! | row 0 of a source that is named like an image, `a/b.jpg` | `a/b.png` |
//! | another row of such a source | `a/b-000012.png` |
//! | any row of any other source, `train.parquet` | `train.parquet/000012.png` |
//!
//! Two records may have one name: the sink keeps them apart. Characters that some system refuses
//! are percent-encoded; a name that is too long ends in a hash, after `%~`, which no encoding
//! gives. No folder ends in the extension of the files, so no file lies where a folder is needed.

use std::borrow::Cow;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::sink::STATE_DIR;
use crate::source::file_set::has_extension;
use crate::source::images::EXTENSIONS;

/// Bytes of a component at most. Systems take 255; suffixes and temporary names need some of them.
const COMPONENT_BYTES: usize = 200;

/// Bytes of a source's path at most. macOS takes 1024 for a whole path, the folder's own included.
const PATH_BYTES: usize = 512;

/// Characters that some system refuses in names, and the percent sign, which encodes them.
const NEVER: &str = r#"<>:"\|?*%"#;

/// How the files of an output are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamingScheme {
    /// As the table above has it.
    Current,
    /// As the program did before it had patterns: the whole source stays in the name,
    /// `a/b.jpg.png`.
    Former,
    /// By a pattern of the user.
    Pattern(NamePattern),
}

impl NamingScheme {
    /// The path of a record's file relative to the sink's folder, with `/`, without the `.` and the
    /// extension that it ends in.
    pub(super) fn place(&self, source: &str, row: u64, extension: &str) -> String {
        let is_image = has_extension(
            Path::new(source.rsplit('/').next().unwrap_or_default()),
            EXTENSIONS,
        );
        let parts = match self {
            Self::Former => return former(source, row, extension, is_image),
            Self::Pattern(NamePattern(parts)) => parts.as_slice(),
            Self::Current if is_image && row == 0 => IMAGE,
            Self::Current if is_image => IMAGE_ROW,
            Self::Current => RECORD,
        };
        harmless(&expand(parts, source, row, extension), extension)
    }
}

/// A pattern of file names, without the `.{ext}` that each ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamePattern(Vec<PatternPart>);

/// A part of a pattern: text, or a placeholder.
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

/// The end of every pattern.
const END: &str = ".{ext}";

impl NamePattern {
    /// Reads a pattern such as `{dir}/{stem}.{ext}`.
    ///
    /// # Errors
    /// A sentence that says why it is refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(place) = text.strip_suffix(END) else {
            return Err(format!(
                "`{text}` must end in `{END}`, which becomes the extension of the format"
            ));
        };
        let mut parts = Vec::new();
        let mut rest = place;
        while let Some(open) = rest.find(['{', '}']) {
            push_text(&mut parts, &rest[..open]);
            let placeholder = rest[open..].split_inclusive('}').next().unwrap_or_default();
            parts.push(PatternPart::of(placeholder).ok_or_else(|| unknown(placeholder))?);
            rest = &rest[open + placeholder.len()..];
        }
        push_text(&mut parts, rest);
        place.split('/').try_for_each(check_component)?;
        Ok(Self(parts))
    }
}

fn push_text(parts: &mut Vec<PatternPart>, text: &str) {
    if !text.is_empty() {
        parts.push(PatternPart::Text(Cow::Owned(text.to_owned())));
    }
}

fn unknown(placeholder: &str) -> String {
    format!(
        "`{placeholder}` is not a placeholder; those are {{source}}, {{dir}}, {{stem}}, {{source_ext}}, {{row}} and {{ext}}"
    )
}

/// Refuses names that no file or folder can have, as far as the pattern alone shows it.
fn check_component(text: &str) -> Result<(), String> {
    let never = |c: char| c.is_control() || NEVER.contains(c);
    match text {
        "" => Err(
            "has an empty part; write a path relative to the folder, such as `{dir}/{stem}.{ext}`"
                .to_owned(),
        ),
        ".." | "." => Err(format!(
            "`{text}` leads out of the folder or nowhere; write a path inside the folder"
        )),
        _ if text.starts_with('.') => Err(format!(
            "`{text}` starts with a dot, which hides the files; leave it out"
        )),
        _ if text.eq_ignore_ascii_case(STATE_DIR) => Err(format!(
            "`{STATE_DIR}` is the folder of the sink's own notes"
        )),
        _ => match text.find(never) {
            Some(at) => Err(format!(
                "`{}` cannot stand in a file name on every system",
                text[at..].escape_debug()
            )),
            None => Ok(()),
        },
    }
}

impl PatternPart {
    fn of(placeholder: &str) -> Option<Self> {
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

/// The text that a pattern stands for. A slash behind a folder that a source does not have is left
/// out.
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

/// The same path with components that every system takes.
fn harmless(path: &str, extension: &str) -> String {
    let (folders, file) = path
        .rsplit_once('/')
        .map_or((None, path), |(folders, file)| (Some(folders), file));
    let folders = folders.into_iter().flat_map(|folders| folders.split('/'));
    let mut place: String = folders
        .map(|folder| component(folder, Some(extension)) + "/")
        .collect();
    place.push_str(&component(file, None));
    if place.len() > PATH_BYTES {
        format!("%~{}", hash(path))
    } else {
        place
    }
}

/// Names of the former scheme, for outputs that have begun with it.
fn former(source: &str, row: u64, extension: &str, is_image: bool) -> String {
    let folders_end = source.rfind('/').map_or(0, |slash| slash + 1);
    let mut place = String::new();
    let mut start = 0;
    for text in source.split('/') {
        let is_file = is_image && start == folders_end;
        place.push_str(if start > 0 { "/" } else { "" });
        place.push_str(&component(
            text,
            if is_file { None } else { Some(extension) },
        ));
        start += text.len() + 1;
    }
    if place.len() > PATH_BYTES {
        place = format!("%~{}", hash(source));
    }
    match (is_image, row) {
        (true, 0) => place,
        (true, _) => format!("{place}-{row:06}"),
        (false, _) => format!("{place}/{row:06}"),
    }
}

/// A component that stands for `text` alone. A folder must not look like one of our files, which
/// end in `.<extension>`: the two could be in each other's way.
fn component(text: &str, folder_beside: Option<&str>) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut encoded = String::with_capacity(text.len());
    for (place, character) in text.char_indices() {
        if is_harmless(text, place, character, folder_beside) {
            encoded.push(character);
        } else {
            let bytes = &text.as_bytes()[place..place + character.len_utf8()];
            bytes
                .iter()
                .for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
        }
    }
    if encoded.len() > COMPONENT_BYTES {
        let hash = hash(text);
        let mut end = COMPONENT_BYTES - hash.len() - 2;
        while !encoded.is_char_boundary(end) {
            end -= 1;
        }
        encoded.truncate(end);
        encoded.push_str("%~");
        encoded.push_str(&hash);
    }
    encoded
}

fn is_harmless(text: &str, place: usize, character: char, folder_beside: Option<&str>) -> bool {
    let rest = &text[place + character.len_utf8()..];
    let is_ours = |extension: &str| character == '.' && rest.eq_ignore_ascii_case(extension);
    let first =
        place == 0 && (character == '.' || is_device(text) || text.eq_ignore_ascii_case(STATE_DIR));
    let last = rest.is_empty() && matches!(character, '.' | ' ');
    let never = character.is_control() || NEVER.contains(character);
    !(first || last || never || folder_beside.is_some_and(is_ours))
}

/// Whether Windows takes a name for a device, whatever its extension.
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

/// 128 bits of SHA-256, hexadecimal.
pub(super) fn hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text.as_bytes()));
    hash.truncate(32);
    hash
}

#[cfg(test)]
mod tests;
