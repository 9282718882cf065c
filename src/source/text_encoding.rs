//! Recognizes compressed files and text in UTF-16 by their first bytes.

/// Number of first bytes that are sufficient to recognize a file.
pub(super) const START: usize = 10;

/// First bytes of compressed files, each with the program that unpacks them.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"\x04\x22\x4d\x18", "unlz4"),
];

/// First bytes of text in UTF-16.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Returns the program that unpacks a file that begins with `start`, if the file is compressed.
pub(super) fn unpacked_by(start: &[u8]) -> Option<&'static str> {
    // Text may also begin with `BZh`, so the magic number of the first block is checked, too.
    let is_bzip2 = start.starts_with(b"BZh") && start.get(4..START) == Some(b"1AY&SY");
    let known = COMPRESSED
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|&(_, program)| program);
    if is_bzip2 { Some("bunzip2") } else { known }
}

/// Returns why a file that begins with `start` is not text in UTF-8, and the remedy; `None` if its
/// first bytes do not show it.
pub(super) fn not_utf8(start: &[u8]) -> Option<String> {
    if let Some(program) = unpacked_by(start) {
        return Some(format!(
            "is compressed; only plain text is supported; unpack it first (`{program}`)"
        ));
    }
    let is_utf_16 = UTF_16.iter().any(|mark| start.starts_with(mark));
    is_utf_16.then(|| {
        "is text in UTF-16; only UTF-8 is supported; convert it first (`iconv -f UTF-16 -t UTF-8`)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_show_compression_and_utf_16() {
        assert_eq!(unpacked_by(b"\x1f\x8b\x08"), Some("gunzip"));
        assert_eq!(unpacked_by(b"BZh91AY&SY"), Some("bunzip2"));
        assert_eq!(not_utf8(b"BZhour,value\n"), None);
        assert_eq!(not_utf8(b""), None);
        assert!(
            not_utf8(b"\xff\xfea\0,\0").is_some_and(|what| what.starts_with("is text in UTF-16; "))
        );
    }
}
