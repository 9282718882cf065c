//! File names for records: from `source` and `row` alone, different for different records, harmless on every system.
//!
//! | record | file |
//! |---|---|
//! | row 0 of a source that is named like an image, `a/b.jpg` | `a/b.jpg.png` |
//! | another row of such a source | `a/b.jpg-000012.png` |
//! | any row of any other source, `train.parquet` | `train.parquet/000012.png` |
//!
//! The whole source stays in the name: `b.jpg` and `b.png` would else be one file, and an image written beside its
//! source would replace it. What no name may hold is percent-encoded; what is too long ends in a hash, after `%~`,
//! which no encoding gives. File systems that take `A.jpg` and `a.jpg` for one name are the exception to "different".

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::sink::STATE;
use crate::source::images::EXTENSIONS;
use crate::source::listing::has_extension;

/// Bytes of a component at most. Systems take 255; suffixes and temporary names need some of them.
const COMPONENT_BYTES: usize = 200;

/// Bytes of a source's path at most. macOS takes 1024 for a whole path, the folder's own included.
const PATH_BYTES: usize = 512;

/// The path of a record's file, relative to the sink's folder, with `/`.
pub(super) fn file_name(source: &str, row: u64, extension: &str) -> String {
    let folders_end = source.rfind('/').map_or(0, |slash| slash + 1);
    let is_image = has_extension(Path::new(&source[folders_end..]), EXTENSIONS);
    let mut place = String::new();
    let mut start = 0;
    for text in source.split('/') {
        let is_file = is_image && start == folders_end;
        place.push_str(if start > 0 { "/" } else { "" });
        place.push_str(&component(text, if is_file { None } else { Some(extension) }));
        start += text.len() + 1;
    }
    if place.len() > PATH_BYTES {
        place = format!("%~{}", hash(source));
    }
    match (is_image, row) {
        (true, 0) => format!("{place}.{extension}"),
        (true, _) => format!("{place}-{row:06}.{extension}"),
        (false, _) => format!("{place}/{row:06}.{extension}"),
    }
}

/// A component that stands for `text` alone. A folder must not look like one of our files, which end in
/// `.<extension>`: the two could be in each other's way.
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
            bytes.iter().for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
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
    let first = place == 0 && (character == '.' || is_device(text) || text.eq_ignore_ascii_case(STATE));
    let last = rest.is_empty() && matches!(character, '.' | ' ');
    let never = character.is_control() || r#"<>:"\|?*%"#.contains(character);
    !(first || last || never || folder_beside.is_some_and(is_ours))
}

/// Whether Windows takes a name for a device, whatever its extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device| stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

/// 128 bits of SHA-256, hexadecimal.
fn hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text.as_bytes()));
    hash.truncate(32);
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_keeps_its_source_and_its_row() {
        let cases = [
            ("a/b.jpg", 0, "a/b.jpg.png"),
            ("a/b.png", 0, "a/b.png.png"),
            ("a/b.jpg", 12, "a/b.jpg-000012.png"),
            ("a/b.jpg-000012", 0, "a/b.jpg-000012/000000.png"),
            ("train.parquet", 1_234_567, "train.parquet/1234567.png"),
            ("é ü/ñ.JPEG", 0, "é ü/ñ.JPEG.png"),
        ];
        for (source, row, expected) in cases {
            assert_eq!(file_name(source, row, "png"), expected);
        }
    }

    #[test]
    fn tricks_become_harmless_names() {
        let cases = [
            ("../../etc/passwd.jpg", "%2E%2E/%2E%2E/etc/passwd.jpg.png"),
            ("/etc/x.jpg", "%/etc/x.jpg.png"),
            ("a//./b.jpg", "a/%/%2E/b.jpg.png"),
            (r"C:\x\..\y.jpg", "C%3A%5Cx%5C..%5Cy.jpg.png"),
            ("a\0b\n.jpg", "a%00b%0A.jpg.png"),
            ("100%41.jpg", "100%2541.jpg.png"),
            ("nul.jpg", "%6Eul.jpg.png"),
            ("com7/x. /y.jpg", "%63om7/x.%20/y.jpg.png"),
            ("_LatentFlow/lock.jpg", "%5FLatentFlow/lock.jpg.png"),
            (".latentflow-x.jpg", "%2Elatentflow-x.jpg.png"),
            ("a.jpg.PNG/b.jpg", "a.jpg%2EPNG/b.jpg.png"),
        ];
        for (source, expected) in cases {
            assert_eq!(file_name(source, 0, "png"), expected);
        }
        assert_eq!(file_name("", 0, "png"), "%/000000.png");
    }

    #[test]
    fn long_names_end_in_a_hash_and_stay_different() {
        let long = |end: &str| format!("{}{end}.jpg", "ü".repeat(150));
        let (one, two) = (file_name(&long("1"), 0, "png"), file_name(&long("2"), 0, "png"));
        assert!(one != two && one.len() <= COMPONENT_BYTES + 4 && one.starts_with("üüü"), "{one}");
        let deep = file_name(&format!("{}x.jpg", "folder/".repeat(300)), 3, "png");
        assert!(deep.starts_with("%~") && deep.ends_with("-000003.png") && deep.len() < 60, "{deep}");
    }

    proptest! {
        #[test]
        fn any_source_gives_a_path_inside_the_folder(source in r"(\PC|[./\\:%~\x00-\x20_-]|\.png|\.jpg|nul|latentflow){0,40}", row: u64) {
            let name = file_name(&source, row, "png");
            for part in Path::new(&name).components() {
                prop_assert!(matches!(part, Component::Normal(_)), "{name}");
            }
            for part in name.split('/') {
                prop_assert!(!part.is_empty() && part.len() <= 230 && !part.starts_with('.') && part != STATE, "{name}");
                prop_assert!(!part.contains(|c: char| c.is_control() || r#"<>:"\|?*"#.contains(c)), "{name}");
            }
            prop_assert!(name.rsplit('/').skip(1).all(|folder| !folder.ends_with(".png")), "{name}");
        }

        #[test]
        fn different_records_have_different_names(
            one in r"([ab./%-]|\.png|\.jpg|-00000[01]|%2E){0,6}", row: bool,
            two in r"([ab./%-]|\.png|\.jpg|-00000[01]|%2E){0,6}", other_row: bool,
        ) {
            let (row, other_row) = (u64::from(row), u64::from(other_row));
            prop_assume!((&one, row) != (&two, other_row));
            prop_assert_ne!(file_name(&one, row, "png"), file_name(&two, other_row, "png"));
        }
    }
}
