//! Unit tests of the module `text_encoding`.

#![allow(clippy::unwrap_used)]

use super::*;

fn converted(bytes: &[u8], encoding: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut converted = TextEncoding::parse(encoding).unwrap().convert(bytes);
    converted.read_to_end(&mut text).unwrap();
    text
}

#[test]
fn first_bytes_show_compression_and_utf_32() {
    assert_eq!(unpacked_by(b"\x1f\x8b\x08"), Some("gunzip"));
    assert_eq!(unpacked_by(b"BZh91AY&SY"), Some("bunzip2"));
    assert_eq!(unsupported(b"BZhour,value\n"), None);
    assert_eq!(unsupported(b""), None);
    assert_eq!(unsupported(b"\xff\xfea\0,\0"), None);
    assert!(
        unsupported(UTF_32)
            .unwrap()
            .starts_with("is text in UTF-32")
    );
}

#[test]
fn text_of_each_encoding_is_converted() {
    for (bytes, encoding, expected) in [
        (&b"a\xe9\x80"[..], "latin1", "aé\u{80}"),
        (b"a\xe9\x80", "windows-1252", "aé€"),
        (b"a\0\xac\x20=\xd8\x00\xde\n\0", "utf-16le", "a€\u{1f600}\n"),
        (b"\0a\x20\xac", "UTF-16BE", "a€"),
        (b"\x82\xa0", "shift_jis", "あ"),
    ] {
        assert_eq!(
            String::from_utf8(converted(bytes, encoding)).unwrap(),
            expected,
            "{encoding}"
        );
    }
    assert!(TextEncoding::parse("utf-7").is_err());
    assert_eq!(
        [
            TextEncoding::parse("utf-16le"),
            TextEncoding::parse("cp1252")
        ]
        .map(|encoding| encoding.unwrap().has_ascii_lines()),
        [false, true]
    );
}

#[test]
fn invalid_text_stays_invalid() {
    assert_eq!(converted(b"a\0\x00\xd8b\0", "utf-16le"), b"a\xffb");
    assert_eq!(converted(b"a\0b", "utf-16le"), b"a\xff");
}

#[test]
fn characters_across_chunks_are_whole() {
    let text = "€".repeat(CHUNK);
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(converted(&bytes, "utf-16be"), text.as_bytes());
}
