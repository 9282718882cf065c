//! Parses the text of single values without loss: a value that its type does not hold exactly is
//! refused, except that decimals are rounded to the nearest float.

use chrono::{NaiveDate, NaiveDateTime};

/// Removes spaces and tabs around a value, which numbers, dates and `true` may have.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Parses `true` or `false` in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Parses a decimal integer with an optional sign.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Parses a decimal integer that is not negative.
pub(super) fn parse_uint(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Whether a text is a decimal integer of any size with an optional sign.
pub(super) fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The text of a JSON number without fraction and exponent, if it is an integer of at most 40
/// digits: `3.0` and `0.3e1` are `3`.
pub(super) fn integer_text(number: &str) -> Option<String> {
    /// More digits than the largest 64-bit integer has.
    const MAX_DIGITS: usize = 40;
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let fraction = fraction.trim_end_matches('0');
    let all = [whole, fraction].concat();
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let zeros = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let trailing = significant.len() - significant.trim_end_matches('0').len();
    let text = match usize::try_from(zeros) {
        Ok(zeros) if significant.len() + zeros.min(MAX_DIGITS) <= MAX_DIGITS => {
            format!("{significant}{}", "0".repeat(zeros))
        }
        Ok(_) => return None,
        Err(_) => {
            let removed = usize::try_from(zeros.unsigned_abs()).ok()?;
            if removed > trailing || significant.len() - removed > MAX_DIGITS {
                return None;
            }
            significant[..significant.len() - removed].to_owned()
        }
    };
    Some(format!("{sign}{text}"))
}

/// Parses a decimal number, `nan`, `inf` or `infinity` in any case. A number beyond the range of
/// floats is refused, because it would become infinite.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_word = text
        .trim_start_matches(['+', '-'])
        .starts_with(|first: char| first.is_ascii_alphabetic());
    (value.is_finite() || is_word).then_some(value)
}

/// Parses a decimal number of at most `precision` digits, `scale` of them behind the point, into a
/// multiple of 10 to the power of `-scale`. Further digits must be zeros.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if [whole, fraction].concat().is_empty() || !is_decimal(whole) || !is_decimal(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let all = format!("{whole}{fraction:0<width$}", width = usize::from(scale));
    let significant = all.trim_start_matches('0');
    if fraction.len() > usize::from(scale) || significant.len() > usize::from(precision) {
        return None;
    }
    format!("{sign}0{significant}").parse().ok()
}

/// Whether a text is a decimal number or a word that [`parse_float`] accepts, regardless of the
/// range of floats.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// Whether a float holds an integer exactly.
pub(super) fn is_exact_float(integer: &str) -> bool {
    /// Every integer of 15 digits is below 2^53.
    const EXACT_DIGITS: usize = 15;
    let digits = integer.trim_start_matches(['+', '-', '0']);
    digits.len() <= EXACT_DIGITS
        || digits
            .parse::<f64>()
            .is_ok_and(|value| value.is_finite() && format!("{value:.0}") == digits)
}

/// Parses a date: `2024-01-31`.
pub(super) fn parse_date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    let has_form = bytes.len() == 10
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !has_form {
        return None;
    }
    let year = text[..4].parse().ok()?;
    NaiveDate::from_ymd_opt(year, text[5..7].parse().ok()?, text[8..].parse().ok()?)
}

/// The days of a date since 1970.
pub(super) fn days(date: NaiveDate) -> i32 {
    (date - NaiveDate::default()).num_days() as i32
}

/// A point in time as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrittenTime {
    /// Seconds since 1970; in UTC if there is an offset.
    pub(super) seconds: i64,
    /// The fraction of the second in nanoseconds.
    pub(super) nanos: u32,
    /// The number of digits of the fraction without trailing zeros.
    pub(super) digits: u8,
    /// Whether the text has `Z` or an offset from UTC.
    pub(super) has_offset: bool,
}

/// Parses a date and a time, such as `2024-01-31T12:30:05.25+02:00`; the separator may be a space,
/// and the offset may be absent or `Z`. A fraction has at most nine digits.
pub(super) fn parse_time(text: &str) -> Option<WrittenTime> {
    let date = parse_date(text.get(..10)?)?;
    let time = text[10..].strip_prefix(['T', 't', ' '])?;
    let clock = time.get(..8)?.as_bytes();
    let pair = |index: usize| {
        let [tens, ones] = [clock[index], clock[index + 1]];
        (tens.is_ascii_digit() && ones.is_ascii_digit())
            .then(|| u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
    };
    if clock[2] != b':' || clock[5] != b':' {
        return None;
    }
    let at: NaiveDateTime = date.and_hms_opt(pair(0)?, pair(3)?, pair(6)?)?;
    let rest = &time[8..];
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(
            rest.find(|character: char| !character.is_ascii_digit())
                .unwrap_or(rest.len()),
        ),
        None => ("0", rest),
    };
    let significant = fraction.trim_end_matches('0');
    if fraction.is_empty() || significant.len() > 9 {
        return None;
    }
    let nanos = format!("{significant:0<9}").parse().ok()?;
    let offset = match zone {
        "" => None,
        "Z" | "z" => Some(0),
        zone => Some(parse_offset(zone)?),
    };
    Some(WrittenTime {
        seconds: at.and_utc().timestamp() - offset.unwrap_or(0),
        nanos,
        digits: significant.len() as u8,
        has_offset: offset.is_some(),
    })
}

/// Parses an offset from UTC in seconds: `+02:00`, `+0200` or `+02`.
fn parse_offset(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = match &text.as_bytes()[1..] {
        [hours @ .., b':', tens, ones] if hours.len() == 2 => [hours, &[*tens, *ones]].concat(),
        compact if matches!(compact.len(), 2 | 4) => compact.to_vec(),
        _ => return None,
    };
    let number = |part: &[u8]| {
        part.iter().try_fold(0_i64, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let (hours, minutes) = (number(&digits[..2])?, number(&digits[2..])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
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
}
