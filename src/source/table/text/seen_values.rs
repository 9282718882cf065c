//! Infers the type of a column from the text of its values: the narrowest type that holds each of
//! them without loss.

use arrow::datatypes::{DataType, TimeUnit};

use crate::source::table::text::values::{
    is_exact_float, is_integer, is_number, parse_bool, parse_date, parse_int, parse_time,
    parse_uint, trim,
};

/// The kinds of values that a column has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SeenValues {
    kinds: u16,
    /// The number of values.
    values: u64,
    /// The number of values that are other text.
    texts: u64,
    /// The number of digits of the most precise fraction of a second.
    fraction_digits: u8,
}

/// `true` or `false`.
const BOOL: u16 = 1;
/// An integer.
const INTEGER: u16 = 1 << 1;
/// An integer below 0.
const NEGATIVE: u16 = 1 << 2;
/// An integer above the range of `i64`, within that of `u64`.
const ABOVE_I64: u16 = 1 << 3;
/// An integer beyond the ranges of `i64` and `u64`.
const HUGE: u16 = 1 << 4;
/// An integer that a float does not hold exactly.
const INEXACT: u16 = 1 << 5;
/// A number with a fraction or an exponent, not a number, or infinity.
const FLOAT: u16 = 1 << 6;
/// A date without a time.
const DATE: u16 = 1 << 7;
/// A date and a time without an offset.
const NAIVE: u16 = 1 << 8;
/// A date and a time with an offset.
const ZONED: u16 = 1 << 9;
/// A date beyond the range of timestamps in nanoseconds.
const FAR: u16 = 1 << 10;
/// Other text.
const TEXT: u16 = 1 << 11;

/// Number of values of a column of which one may be other text and become a reject, so that a typing
/// error does not turn a column of numbers into text.
const VALUES_PER_TYPO: u64 = 1000;

/// The seconds between which timestamps in nanoseconds are.
const NANOSECOND_RANGE: std::ops::Range<i64> = -9_223_372_036..9_223_372_036;

impl SeenValues {
    /// A text that is not interpreted.
    pub(crate) const ANY_TEXT: Self = Self::of(TEXT);
    /// `true` or `false`.
    pub(crate) const ANY_BOOL: Self = Self::of(BOOL);

    /// One value of these kinds.
    const fn of(kinds: u16) -> Self {
        Self {
            kinds,
            values: 1,
            texts: (kinds & TEXT == TEXT) as u64,
            fraction_digits: 0,
        }
    }

    /// The kind of a value that is not null, with this decimal point.
    pub(crate) fn of_text(text: &str, decimal: char) -> Self {
        let value = trim(text);
        match value.bytes().next() {
            None => return Self::ANY_TEXT,
            Some(b'0'..=b'9') => {
                if let Some(date) = parse_date(value) {
                    let is_far = date
                        .and_hms_opt(0, 0, 0)
                        .is_none_or(|at| !NANOSECOND_RANGE.contains(&at.and_utc().timestamp()));
                    return Self::of(DATE | if is_far { FAR } else { 0 });
                }
                if let Some(time) = parse_time(value) {
                    let is_far = !NANOSECOND_RANGE.contains(&time.seconds);
                    let zone = if time.has_offset { ZONED } else { NAIVE };
                    return Self {
                        fraction_digits: time.digits,
                        ..Self::of(zone | if is_far { FAR } else { 0 })
                    };
                }
            }
            Some(_) if parse_bool(value).is_some() => return Self::ANY_BOOL,
            Some(_) => {}
        }
        let is_float = || match decimal {
            '.' => is_number(value),
            _ => !value.contains('.') && is_number(&value.replace(decimal, ".")),
        };
        if is_integer(value) {
            Self::of_integer(value)
        } else if is_float() {
            Self::of(FLOAT)
        } else {
            Self::ANY_TEXT
        }
    }

    /// The kind of a JSON number.
    pub(crate) fn of_json_number(text: &str) -> Self {
        if is_integer(text) {
            Self::of_integer(text)
        } else {
            Self::of(FLOAT)
        }
    }

    fn of_integer(text: &str) -> Self {
        let size = match (parse_int(text), parse_uint(text)) {
            (Some(value), _) if value < 0 => NEGATIVE,
            (Some(_), _) => 0,
            (None, Some(_)) => ABOVE_I64,
            (None, None) => HUGE,
        };
        let exactness = if is_exact_float(text) { 0 } else { INEXACT };
        Self::of(INTEGER | size | exactness)
    }

    /// The values that a column of this type has, to find a type that holds further ones.
    pub(crate) fn of_type(data_type: &DataType) -> Self {
        let digits = |unit: &TimeUnit| match unit {
            TimeUnit::Second => 0,
            TimeUnit::Millisecond => 3,
            TimeUnit::Microsecond => 6,
            TimeUnit::Nanosecond => 9,
        };
        match data_type {
            DataType::Boolean => Self::ANY_BOOL,
            DataType::Int64 => Self::of(INTEGER | NEGATIVE),
            DataType::UInt64 => Self::of(INTEGER | ABOVE_I64),
            DataType::Float64 => Self::of(FLOAT),
            DataType::Date32 => Self::of(DATE),
            DataType::Timestamp(unit, zone) => Self {
                fraction_digits: digits(unit),
                ..Self::of(if zone.is_some() { ZONED } else { NAIVE })
            },
            _ => Self::ANY_TEXT,
        }
    }

    /// Adds the kinds of further values.
    pub(crate) fn merge(&mut self, other: Self) {
        self.kinds |= other.kinds;
        self.values += other.values;
        self.texts += other.texts;
        self.fraction_digits = self.fraction_digits.max(other.fraction_digits);
    }

    fn has(self, kinds: u16) -> bool {
        self.kinds & kinds != 0
    }

    /// Whether a float does not hold an integer of the column.
    pub(crate) fn has_inexact_integer(self) -> bool {
        self.has(INEXACT)
    }

    /// The narrowest type that holds the values without loss, except for a few texts among other
    /// values; [`DataType::Null`] if there are none.
    pub(crate) fn data_type(mut self) -> DataType {
        if self.texts < self.values && self.texts <= self.values / VALUES_PER_TYPO {
            self.kinds &= !TEXT;
        }
        let (numbers, times) = (INTEGER | FLOAT, DATE | NAIVE | ZONED);
        let groups = [BOOL, numbers, times, TEXT];
        match groups.iter().filter(|group| self.has(**group)).count() {
            0 => DataType::Null,
            1 if self.has(BOOL) => DataType::Boolean,
            1 if self.has(numbers) => self.number(),
            1 if self.has(times) => self.time(),
            _ => DataType::Utf8,
        }
    }

    fn number(self) -> DataType {
        match () {
            () if self.has(FLOAT) && self.has(INEXACT) => DataType::Utf8,
            () if self.has(FLOAT) => DataType::Float64,
            () if self.has(HUGE) || (self.has(ABOVE_I64) && self.has(NEGATIVE)) => DataType::Utf8,
            () if self.has(ABOVE_I64) => DataType::UInt64,
            () => DataType::Int64,
        }
    }

    fn time(self) -> DataType {
        let unit = match self.fraction_digits {
            0..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            _ => TimeUnit::Nanosecond,
        };
        match () {
            () if !self.has(NAIVE | ZONED) => DataType::Date32,
            // A value without an offset has no place on the time line of UTC.
            () if self.has(ZONED) && self.has(NAIVE | DATE) => DataType::Utf8,
            () if unit == TimeUnit::Nanosecond && self.has(FAR) => DataType::Utf8,
            () if self.has(ZONED) => DataType::Timestamp(unit, Some("UTC".into())),
            () => DataType::Timestamp(unit, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(values: &[&str], decimal: char) -> String {
        let mut seen = SeenValues::default();
        for value in values {
            seen.merge(SeenValues::of_text(value, decimal));
        }
        seen.data_type().to_string()
    }

    #[test]
    fn type_is_the_narrowest_without_loss() {
        for (values, expected) in [
            (&[][..], "Null"),
            (&["true", "FALSE"], "Boolean"),
            (&["true", "1"], "Utf8"),
            (&["1", " -2", "+3\t", "007"], "Int64"),
            (&["1", "0.5"], "Float64"),
            (&["1", "1e400", "nan", "-inf"], "Float64"),
            (&["1", "18446744073709551615"], "UInt64"),
            (&["-1", "18446744073709551615"], "Utf8"),
            (&["18446744073709551616"], "Utf8"),
            (&["9007199254740992", "0.5"], "Float64"),
            (&["9007199254740993", "0.5"], "Utf8"),
            (&["9007199254740993"], "Int64"),
            (&["1", "0x10"], "Utf8"),
            (&["1", "1_000"], "Utf8"),
            (&["1", " "], "Utf8"),
            (&["1,5"], "Utf8"),
            (&["2024-01-02"], "Date32"),
            (&["2024-01-02", "2024-13-02"], "Utf8"),
            (&["2024-01-02", "1"], "Utf8"),
            (&["2024-01-02", "2024-01-02 03:04:05"], "Timestamp(ms)"),
            (&["2024-01-02T03:04:05.1234"], "Timestamp(µs)"),
            (&["2024-01-02T03:04:05.1234567"], "Timestamp(ns)"),
            (&["2024-01-02T03:04:05.1234567890"], "Timestamp(ns)"),
            (&["2024-01-02T03:04:05.1234567891"], "Utf8"),
            (&["1600-01-01", "2024-01-02T03:04:05.1234567"], "Utf8"),
            (
                &["2024-01-02T03:04:05Z", "2024-01-02 03:04:05+02:00"],
                "Timestamp(ms, \"UTC\")",
            ),
            (&["2024-01-02T03:04:05Z", "2024-01-02T03:04:05"], "Utf8"),
            (&["2024-01-02T03:04:05Z", "2024-01-02"], "Utf8"),
        ] {
            assert_eq!(inferred(values, '.'), expected, "{values:?}");
        }
        let mut mostly_numbers = vec!["0.5"; 999];
        mostly_numbers.push("oops");
        assert_eq!(inferred(&mostly_numbers, '.'), "Float64");
        mostly_numbers.push("oops");
        assert_eq!(inferred(&mostly_numbers, '.'), "Utf8");
        assert_eq!(inferred(&["1,5", "-2"], ','), "Float64");
        assert_eq!(inferred(&["1.5"], ','), "Utf8");
    }
}
