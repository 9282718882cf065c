//! Parses the text of single values without loss: a value that its type does not hold exactly is
//! refused, except that decimals are rounded to the nearest float.

use chrono::{NaiveDate, NaiveDateTime};

/// Removes spaces and tabs around a value, which numbers, dates and `true` may have.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Parses `true` or `false` in any case.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Parses a decimal integer with an optional sign.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Parses a decimal integer that is not negative.
pub(crate) fn parse_uint(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Whether a text is a decimal integer of any size with an optional sign.
pub(crate) fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The text of a JSON number without fraction and exponent, if it is an integer of at most 40
/// digits: `3.0` and `0.3e1` are `3`.
pub(crate) fn integer_text(number: &str) -> Option<String> {
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
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let is_word = text
        .trim_start_matches(['+', '-'])
        .starts_with(|first: char| first.is_ascii_alphabetic());
    (value.is_finite() || is_word).then_some(value)
}

/// Parses a decimal number of at most `precision` digits, `scale` of them behind the point, into a
/// multiple of 10 to the power of `-scale`. Further digits must be zeros.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
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
pub(crate) fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

/// Whether a float holds an integer exactly.
pub(crate) fn is_exact_float(integer: &str) -> bool {
    /// Every integer of 15 digits is below 2^53.
    const EXACT_DIGITS: usize = 15;
    let digits = integer.trim_start_matches(['+', '-', '0']);
    digits.len() <= EXACT_DIGITS
        || digits
            .parse::<f64>()
            .is_ok_and(|value| value.is_finite() && format!("{value:.0}") == digits)
}

/// Parses a date: `2024-01-31`.
pub(crate) fn parse_date(text: &str) -> Option<NaiveDate> {
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
pub(crate) fn days(date: NaiveDate) -> i32 {
    (date - NaiveDate::default()).num_days() as i32
}

/// A point in time as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrittenTime {
    /// Seconds since 1970; in UTC if there is an offset.
    pub(crate) seconds: i64,
    /// The fraction of the second in nanoseconds.
    pub(crate) nanos: u32,
    /// The number of digits of the fraction without trailing zeros.
    pub(crate) digits: u8,
    /// Whether the text has `Z` or an offset from UTC.
    pub(crate) has_offset: bool,
}

/// Parses a date and a time, such as `2024-01-31T12:30:05.25+02:00`; the separator may be a space,
/// and the offset may be absent or `Z`. A fraction has at most nine digits.
pub(crate) fn parse_time(text: &str) -> Option<WrittenTime> {
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
mod tests;
