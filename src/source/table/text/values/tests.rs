//! Unit tests of the module `text_values`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn floats_beyond_their_range_are_refused() {
    for (text, expected) in [
        ("1.5", Some(1.5)),
        ("+.5", Some(0.5)),
        ("1.", Some(1.0)),
        ("1e-400", Some(0.0)),
        ("-inf", Some(f64::NEG_INFINITY)),
        ("Infinity", Some(f64::INFINITY)),
        ("1e400", None),
        ("-1e400", None),
        ("1_000", None),
        ("0x10", None),
        ("", None),
    ] {
        assert_eq!(parse_float(text), expected, "{text}");
    }
    assert!(parse_float("NaN").unwrap().is_nan());
    assert!(is_number("1e400"));
}

#[test]
fn integers_are_exact_in_any_notation() {
    for (number, expected) in [
        ("9007199254740993.0", Some("9007199254740993")),
        ("-3e2", Some("-300")),
        ("0.3E+1", Some("3")),
        ("1200e-2", Some("12")),
        ("-0.0", Some("0")),
        ("0e99999", Some("0")),
        ("1.5", None),
        ("15e-1", None),
        ("1e400", None),
        ("1e99999999999999999999", None),
    ] {
        assert_eq!(integer_text(number).as_deref(), expected, "{number}");
    }
    for (integer, is_exact) in [
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("-36893488147419103232", true),
        ("12345678901234567890", false),
        ("000000000000000000001", true),
    ] {
        assert_eq!(is_exact_float(integer), is_exact, "{integer}");
    }
}

#[test]
fn decimals_keep_every_digit() {
    for (text, expected) in [
        ("1.5", Some(150)),
        ("-0.07", Some(-7)),
        ("+12.3400", Some(1234)),
        (".5", Some(50)),
        ("999.99", Some(99_999)),
        ("1000", None),
        ("1.234", None),
        ("1e2", None),
        (".", None),
        ("", None),
    ] {
        assert_eq!(parse_decimal(text, 5, 2), expected, "{text}");
    }
}

#[test]
fn times_keep_their_fractions_and_offsets() {
    let time = |text| {
        parse_time(text).map(|time| (time.seconds, time.nanos, time.digits, time.has_offset))
    };
    let at = 1_704_164_645;
    for (text, expected) in [
        ("2024-01-02 03:04:05", Some((at, 0, 0, false))),
        ("2024-01-02T03:04:05Z", Some((at, 0, 0, true))),
        ("2024-01-02T03:04:05.250", Some((at, 250_000_000, 2, false))),
        (
            "2024-01-02T05:04:05.000000001+02:00",
            Some((at, 1, 9, true)),
        ),
        ("2024-01-01T21:34:05-0530", Some((at, 0, 0, true))),
        ("2024-01-02T04:04:05+01", Some((at, 0, 0, true))),
        ("2024-01-02T03:04:05.0000000001", None),
        ("2024-01-02T03:04:05.", None),
        ("2024-01-02T03:04:60", None),
        ("2024-02-30T03:04:05", None),
        ("2024-01-02T03:04:05 UTC", None),
        ("2024-01-02T03:04:05+2:00", None),
        ("2024-01-02", None),
        ("2024-01-0é", None),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
    assert_eq!(days(parse_date("1970-02-01").unwrap()), 31);
    assert_eq!(parse_date("2024-13-01"), None);
    assert_eq!(parse_date("+024-01-01"), None);
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,40}") {
        parse_time(&text);
        integer_text(&text);
        is_exact_float(&text);
    }
}
