//! The moment at which a certificate expires, read from its DER.

/// DER tags.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// When a certificate expires, in seconds since 1970; `None` where it cannot be read.
pub(super) fn expiry(der: &[u8]) -> Option<i64> {
    let certificate = Der(der).expect(SEQUENCE)?;
    let mut fields = Der(Der(certificate).expect(SEQUENCE)?);
    let (tag, _) = fields.next()?;
    // The version may be left out; the serial number follows, then the algorithm and the issuer.
    if tag == VERSION {
        fields.expect(INTEGER)?;
    }
    fields.expect(SEQUENCE)?;
    fields.expect(SEQUENCE)?;
    let mut validity = Der(fields.expect(SEQUENCE)?);
    validity.next()?;
    let (tag, text) = validity.next()?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// Values that follow each other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, behind) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
            length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(met, _)| *met == tag).map(|(_, content)| content)
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` as seconds since 1970.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (digits[..2].parse::<i64>().ok()?, &digits[2..]),
        (GENERALIZED_TIME, 14) => (digits[..4].parse::<i64>().ok()?, &digits[4..]),
        _ => return None,
    };
    let year = match (tag, year) {
        (UTC_TIME, 50..) => year + 1900,
        (UTC_TIME, _) => year + 2000,
        _ => year,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    is_date.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 in the Gregorian calendar. Years are counted from March, so that a leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }

    fn certificate(version: bool, tag: u8, not_after: &str) -> Vec<u8> {
        let version = if version { value(VERSION, &value(INTEGER, &[2])) } else { Vec::new() };
        let validity = [value(UTC_TIME, b"200101000000Z"), value(tag, not_after.as_bytes())].concat();
        let fields = [
            version,
            value(INTEGER, &[1, 2, 3]),
            value(SEQUENCE, b"algorithm"),
            value(SEQUENCE, &[7; 300]),
            value(SEQUENCE, &validity),
            value(SEQUENCE, b"subject"),
        ];
        value(SEQUENCE, &value(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn expiry_is_read_in_both_notations() {
        assert_eq!(expiry(&certificate(true, UTC_TIME, "200201000000Z")), Some(1_580_515_200));
        assert_eq!(expiry(&certificate(false, UTC_TIME, "991231235959Z")), Some(946_684_799));
        assert_eq!(expiry(&certificate(true, GENERALIZED_TIME, "20500301120000Z")), Some(2_529_748_800));
        assert_eq!(expiry(&certificate(true, GENERALIZED_TIME, "99991231235959Z")), Some(253_402_300_799));
    }

    #[test]
    fn certificate_that_is_cut_or_odd_has_no_expiry() {
        let whole = certificate(true, UTC_TIME, "200201000000Z");
        for length in 0..whole.len() {
            assert_eq!(expiry(&whole[..length]), None, "{length}");
        }
        for text in ["200201000000", "2002010000Z", "201301000000Z", "20é201000000Z"] {
            assert_eq!(expiry(&certificate(true, UTC_TIME, text)), None, "{text}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            expiry(&changed);
        }
    }
}
