//! The header of NumPy's .npy format: a Python literal with the type and the shape of an array.

use std::io::{ErrorKind, Read};

use crate::batch::reject::RejectCode;
use crate::source::table::arrays::header::{ArrayHeader, ScalarType};
use crate::source::table::arrays::reader::RejectReason;
use crate::text_excerpt::shorten;

/// The first bytes of a .npy file.
pub(crate) const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// Maximum size of a header in bytes. NumPy also refuses longer headers by default
/// (`max_header_size`).
const MAX_HEADER: u64 = 10_000;

/// Reads the header (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>); the
/// array's values follow in `stream`.
///
/// # Errors
/// If the header is invalid, or the array has no rows of numbers. The reason is a sentence without
/// its subject, the name of the array.
pub(crate) fn header(stream: &mut impl Read) -> Result<ArrayHeader, RejectReason> {
    let malformed = |what: String| (RejectCode::Malformed, what);
    let mut start = [0; 8];
    read(stream, &mut start)?;
    if start[..6] != MAGIC {
        return Err(malformed(
            "does not begin with the magic bytes of a .npy file".to_owned(),
        ));
    }
    let mut length = [0; 4];
    match start[6] {
        1 => read(stream, &mut length[..2])?,
        2 | 3 => read(stream, &mut length)?,
        other => {
            return Err(malformed(format!(
                "has version {other} of the .npy format; versions 1 to 3 are supported"
            )));
        }
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > MAX_HEADER {
        return Err(malformed(format!(
            "has a header of {length} bytes; at most {MAX_HEADER} are read"
        )));
    }
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text).map_err(of_io)?;
    if (text.len() as u64) < length {
        return Err(truncated());
    }
    let text = String::from_utf8_lossy(&text);
    parse(&text).map_err(malformed)
}

fn read(stream: &mut impl Read, into: &mut [u8]) -> Result<(), RejectReason> {
    stream.read_exact(into).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            truncated()
        } else {
            of_io(error)
        }
    })
}

fn truncated() -> RejectReason {
    (RejectCode::Truncated, "ends in its header".to_owned())
}

fn of_io(error: std::io::Error) -> RejectReason {
    (
        RejectCode::Malformed,
        format!("cannot be read: {}", shorten(&error.to_string())),
    )
}

/// Parses a literal such as `{'descr': '<f8', 'fortran_order': False, 'shape': (7200, 6), }`.
fn parse(text: &str) -> Result<ArrayHeader, String> {
    let invalid = || format!("has an invalid header: {}", shorten(text.trim()));
    let value = |key: &str| {
        let after = ['\'', '"']
            .into_iter()
            .find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")));
        after
            .and_then(|(_, after)| after.trim_start().strip_prefix(':'))
            .map(str::trim_start)
            .ok_or_else(invalid)
    };
    let descr = value("descr")?;
    if descr.starts_with('[') {
        return Err("holds structured records; only numbers are supported".to_owned());
    }
    let quote = descr
        .chars()
        .next()
        .filter(|quote| ['\'', '"'].contains(quote))
        .ok_or_else(invalid)?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let (element, big_endian) = element(descr)?;
    let column_major = match value("fortran_order")? {
        order if order.starts_with("True") => true,
        order if order.starts_with("False") => false,
        _ => return Err(invalid()),
    };
    let tuple = value("shape")?
        .strip_prefix('(')
        .and_then(|shape| shape.split_once(')'))
        .ok_or_else(invalid)?
        .0;
    let sides = tuple
        .split(',')
        .map(|side| side.trim().trim_end_matches('L'))
        .filter(|side| !side.is_empty());
    let shape: Vec<u64> = sides
        .map(|side| side.parse().map_err(|_| invalid()))
        .collect::<Result<_, _>>()?;
    ArrayHeader::new(element, big_endian, column_major, &shape)
}

/// Parses a type such as `<f8`; the flag is true for big-endian values.
fn element(descr: &str) -> Result<(ScalarType, bool), String> {
    let (big_endian, kind) = match descr.split_at_checked(1) {
        Some(("<" | "|" | "=", kind)) => (false, kind),
        Some((">", kind)) => (true, kind),
        _ => (false, descr),
    };
    let element = match kind {
        "b1" => ScalarType::Bool,
        "i1" => ScalarType::Int8,
        "u1" => ScalarType::UInt8,
        "i2" => ScalarType::Int16,
        "u2" => ScalarType::UInt16,
        "i4" => ScalarType::Int32,
        "u4" => ScalarType::UInt32,
        "i8" => ScalarType::Int64,
        "u8" => ScalarType::UInt64,
        "f2" => ScalarType::Float16,
        "f4" => ScalarType::Float32,
        "f8" => ScalarType::Float64,
        _ => {
            return Err(format!(
                "holds values of type `{}`; expected booleans, integers of 8 to 64 bits, or floats \
                 of 16, 32 or 64 bits",
                shorten(descr)
            ));
        }
    };
    Ok((element, big_endian))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [&MAGIC[..], &[1, 0], &length, text.as_bytes()].concat()
    }

    fn check(text: &str, expected: Expect) {
        let found = match header(&mut file(text).as_slice()) {
            Ok(header) => format!("{header:?}"),
            Err((code, what)) => format!("{}: {what}", code.as_str()),
        };
        expected.assert_eq(&found);
    }

    #[test]
    fn headers_in_any_notation_are_read() {
        check(
            "{'descr': '<f8', 'fortran_order': True, 'shape': (7200, 6), }          \n",
            expect![
                "ArrayHeader { element: Float64, big_endian: false, column_major: true, \
                 rows: 7200, row: [6] }"
            ],
        );
        check(
            "{\"shape\":(3L,) ,\"fortran_order\":False,\"descr\":\">i2\"}",
            expect![
                "ArrayHeader { element: Int16, big_endian: true, column_major: false, \
                 rows: 3, row: [] }"
            ],
        );
        check(
            "{'descr': '|b1', 'fortran_order': False, 'shape': (2, 4, 5)}",
            expect![
                "ArrayHeader { element: Bool, big_endian: false, column_major: false, \
                 rows: 2, row: [4, 5] }"
            ],
        );
    }

    #[test]
    fn arrays_without_rows_of_numbers_are_errors() {
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': ()}",
            expect!["malformed: is a single value; expected one or more values per record"],
        );
        check(
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
            expect![
                "malformed: holds values of type `|O`; expected booleans, integers \
                 of 8 to 64 bits, or floats of 16, 32 or 64 bits"
            ],
        );
        check(
            "{'descr': '<U7', 'fortran_order': False, 'shape': (2,)}",
            expect![
                "malformed: holds values of type `<U7`; expected booleans, integers \
                 of 8 to 64 bits, or floats of 16, 32 or 64 bits"
            ],
        );
        check(
            "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}",
            expect!["malformed: holds structured records; only numbers are supported"],
        );
        check(
            "{'descr': '', 'fortran_order': False, 'shape': (2,)}",
            expect![
                "malformed: holds values of type ``; expected booleans, integers \
                 of 8 to 64 bits, or floats of 16, 32 or 64 bits"
            ],
        );
        check(
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}",
            expect![
                "malformed: has an invalid header: {'descr': '<f8', \
                 'fortran_order': 0, 'shape': (2,)}"
            ],
        );
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
            expect![
                "malformed: has an invalid header: {'descr': '<f8', \
                 'fortran_order': False, 'shape': (-2,)}"
            ],
        );
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2",
            expect![
                "malformed: has an invalid header: {'descr': '<f8', \
                 'fortran_order': False, 'shape': (2"
            ],
        );
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 0)}",
            expect!["malformed: has the shape [2, 0]; expected at least one value per record"],
        );
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 99999999999999999)}",
            expect![
                "malformed: has the shape [2, 99999999999999999]; a record of it exceeds the \
                 maximum of 2147483647 bytes"
            ],
        );
        check(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 2)}",
            expect![
                "malformed: declares 9999999999999 records; at most 1099511627776 are supported"
            ],
        );
        check("", expect!["malformed: has an invalid header: "]);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let complete = file("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}");
        assert!((0..complete.len()).all(|end| header(&mut &complete[..end]).is_err()));
        let mut long = file("");
        long[6] = 2;
        long.splice(8.., u32::MAX.to_le_bytes());
        assert_eq!(
            header(&mut long.as_slice()).unwrap_err().1,
            "has a header of 4294967295 bytes; at most 10000 are read"
        );
    }
}
