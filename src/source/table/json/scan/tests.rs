//! Unit tests of the module `json_scan`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn scan(line: &str) -> Result<Option<ObjectSize>, String> {
    scan_line(line.as_bytes(), &mut ())
}

fn size(values: u64, keys: u64) -> Result<Option<ObjectSize>, String> {
    Ok(Some(ObjectSize { values, keys }))
}

#[test]
fn objects_are_measured() {
    assert_eq!(scan(" \r"), Ok(None));
    assert_eq!(scan("{}"), size(1, 0));
    assert_eq!(scan(r#" {"a": [1, 2], "b": "x}\",["} "#), size(5, 2));
    assert_eq!(scan(r#"{"a:b": {"c": ":", "a:b": -1.5e-3}}"#), size(4, 3));
    assert_eq!(
        scan(r#"{"a": true, "b": [], "c": null, "\u00e9": 0}"#),
        size(5, 4)
    );
}

#[test]
fn lines_other_than_one_valid_object_are_refused() {
    let deep = "[".repeat(128);
    for (line, expected) in [
        ("[1]", "the line is not a JSON object"),
        ("hello", "the line is not a JSON object"),
        (r#"{"a": 1"#, "the line ends inside an object"),
        (r#"{"a": "1}"#, "the line ends inside an object"),
        (r#"{"a": 1} {"#, "the line continues after the object"),
        (
            &format!(r#"{{"a": {deep}"#),
            "values are nested more than 128",
        ),
        (
            r#"{"a": 1,}"#,
            "the line is not valid JSON: '}' at byte 8; expected a key",
        ),
        (
            r#"{"a": [1,]}"#,
            "the line is not valid JSON: ']' at byte 9; expected a value",
        ),
        (
            r#"{"a": 01}"#,
            "the line is not valid JSON: '1' at byte 7; ",
        ),
        (
            r#"{"a": +1}"#,
            "the line is not valid JSON: '+' at byte 6; ",
        ),
        (
            r#"{"a": .5}"#,
            "the line is not valid JSON: '.' at byte 6; ",
        ),
        (
            r#"{"a": 1.}"#,
            "the line is not valid JSON: '}' at byte 8; ",
        ),
        (
            r#"{"a": NaN}"#,
            "the line is not valid JSON: 'N' at byte 6; ",
        ),
        (
            r#"{"a": tru}"#,
            "the line is not valid JSON: 't' at byte 6; ",
        ),
        (
            r#"{"a": nulls}"#,
            "the line is not valid JSON: 's' at byte 10; ",
        ),
        (r#"{"a" 3}"#, "the line is not valid JSON: '3' at byte 5; "),
        (
            r#"{"a": [1}]"#,
            "the line is not valid JSON: '}' at byte 8; ",
        ),
        (
            r#"{"a": "\x"}"#,
            "the line is not valid JSON: 'x' at byte 8; ",
        ),
        (
            r#"{"a": 1, "b": 2, "\u0061": 3}"#,
            "an object has a key more than once",
        ),
    ] {
        let reason = scan(line).unwrap_err();
        assert!(reason.starts_with(expected), "{line}: {reason}");
    }
    assert_eq!(
        scan_line(b"{\"a\": \"\xff\"}", &mut ()).unwrap_err(),
        "the line is not valid UTF-8"
    );
}

proptest! {
    #[test]
    fn scanner_agrees_with_serde_json(text in r#"\{("[ab\\u0-9]{0,2}"|[:,\[\]{}0-9.eE+-]|true|null| ){0,12}\}"#) {
        let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        match scan(&text) {
            // A float of serde_json has a range.
            Ok(_) => prop_assert!(parsed.is_ok() || text.contains(['e', 'E']), "{text}"),
            Err(reason) => prop_assert!(
                parsed.is_err() || reason == "an object has a key more than once", "{text}: {reason}"
            ),
        }
    }
}
