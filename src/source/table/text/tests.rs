//! Unit tests of the module `text`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::source::table::text::framer::Quoting;

const CSV: Option<Quoting> = Some(Quoting {
    quote: b'"',
    delimiter: b',',
});

/// Returns one byte per read, so that every state occurs at the border of a chunk.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(1);
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn frames(mut framer: Framer<impl Read>) -> Vec<(Frame, String)> {
    let mut all = Vec::new();
    loop {
        let mut text = Vec::new();
        match framer.frame(&mut text).unwrap() {
            Frame::End => return all,
            frame => all.push((frame, String::from_utf8(text).unwrap())),
        }
    }
}

fn check(text: &str, quoting: Option<Quoting>, expected: &[(Frame, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|&(frame, content)| (frame, content.to_owned()))
        .collect();
    assert_eq!(
        frames(Framer::new(text.as_bytes(), quoting, 20).unwrap()),
        expected,
        "{text:?}"
    );
    assert_eq!(
        frames(Framer::new(Trickle(text.as_bytes()), quoting, 20).unwrap()),
        expected,
        "{text:?}, one byte per read"
    );
}

#[test]
fn every_kind_of_line_end_ends_a_record() {
    use Frame::Record;
    check(
        "a\r\n\r\nb\n\nc\rd",
        CSV,
        &[(Record, "a"), (Record, "b"), (Record, "c"), (Record, "d")],
    );
    check("a\n\nb", None, &[(Record, "a"), (Record, "b")]);
    check("", CSV, &[]);
}

#[test]
fn quotes_protect_line_ends_only_at_the_start_of_a_value() {
    use Frame::{Record, Unclosed};
    check(
        "1,\"a\n\"\"b\"\n2,5\" x\n",
        CSV,
        &[(Record, "1,\"a\n\"\"b\""), (Record, "2,5\" x")],
    );
    check(
        "\"a\"x\n\"b\n",
        CSV,
        &[(Record, "\"a\"x"), (Unclosed, "\"b\n")],
    );
}

#[test]
fn record_beyond_the_limit_ends_at_its_line_end() {
    use Frame::{Record, TooLong};
    let long = "x".repeat(50);
    check(
        &format!("{long}\nb\n{long}"),
        CSV,
        &[(TooLong, ""), (Record, "b"), (TooLong, "")],
    );
}

#[test]
fn lines_within_a_long_quoted_value_belong_to_it() {
    use Frame::{Record, TooLong, UnclosedTooLong};
    let long = format!("\"{}\nevil\n\",2", "x".repeat(50));
    check(
        &format!("a\n{long}\nb\n{long}"),
        CSV,
        &[(Record, "a"), (TooLong, ""), (Record, "b"), (TooLong, "")],
    );
    check(
        &format!("a\n\"{}\nb\nc\n", "x".repeat(50)),
        CSV,
        &[(Record, "a"), (UnclosedTooLong, "")],
    );
}

/// Returns its bytes, then an error, then the end of the input.
struct Failing<'a>(&'a [u8], Option<io::Error>);

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into) {
            Ok(0) => self.1.take().map_or(Ok(0), Err),
            read => read,
        }
    }
}

#[test]
fn records_before_an_error_are_returned_first() {
    struct Lines(SchemaRef);
    impl TextFormat for Lines {
        fn check(&self, record: &[u8]) -> LineAction {
            LineAction::Parse(record.len() as u64)
        }
        fn decode(&self, _: &[u8], _: usize) -> Result<RecordBatch, DecodeError> {
            Err("not used by this test".to_owned().into())
        }
        fn schema(&self) -> &SchemaRef {
            &self.0
        }
    }
    let lines = Lines(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
    let input = Failing(b"a\nb\nhalf", Some(io::Error::other("away")));
    let limits = BatchLimits {
        records: 1000,
        bytes: 1 << 20,
        soft_max_records: 1000,
    };
    let mut failing = TextBatches::new(Framer::new(input, None, 20).unwrap(), limits);
    let block = failing.next(&lines).unwrap().unwrap();
    assert_eq!(
        block
            .texts()
            .map(|(_, text)| text.to_vec())
            .collect::<Vec<_>>(),
        [b"a", b"b"]
    );
    assert_eq!(failing.next(&lines).err().unwrap().to_string(), "away");
}

#[test]
fn byte_order_mark_is_skipped() {
    let framer = Framer::new("\u{feff}a".as_bytes(), None, 20).unwrap();
    assert_eq!(frames(framer), [(Frame::Record, "a".to_owned())]);
}

#[test]
fn second_byte_order_mark_belongs_to_the_record() {
    let framer = Framer::new("\u{feff}\u{feff}a\nb".as_bytes(), CSV, 20).unwrap();
    let records = ["\u{feff}a", "b"].map(|text| (Frame::Record, text.to_owned()));
    assert_eq!(frames(framer), records);
}

#[test]
fn wide_record_is_found_and_its_values_are_counted() {
    let long = format!("\"{}\"", "x\r\n,\"\"".repeat(3000));
    for values in [1, 255, 256, 257, 1000] {
        for value in ["", "1", &long] {
            let record = [&vec!["7"; values - 1].join(","), value].join(",");
            let record = record.trim_start_matches(',');
            let text = format!("\r\n{record}\r\n\r\n{record}");
            let framer = Framer::new(text.as_bytes(), CSV, 1 << 20).unwrap();
            let expected = (Frame::Record, record.to_owned());
            let found = frames(framer);
            if !record.is_empty() {
                assert_eq!(found, [expected.clone(), expected]);
                assert_eq!(CSV.unwrap().values(record.as_bytes()), values);
            }
        }
    }
}
