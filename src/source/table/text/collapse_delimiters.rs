//! Normalizes text with aligned columns: collapses runs of delimiters and removes those at the ends
//! of records.

use std::io::{self, Read};

use crate::source::table::text::framer::Quoting;

/// Reads the text of `inner` with exactly one delimiter between values. Text in quotes is not
/// changed.
pub(crate) struct DelimiterCollapser<R> {
    inner: R,
    /// The delimiter and the quote; `None`: the text is unchanged.
    quoting: Option<Quoting>,
    state: CollapseState,
}

/// The position of the next byte in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CollapseState {
    /// Before the first value.
    Start,
    /// In a value without quotes.
    Value,
    /// After a value, with a delimiter that has not been written.
    Between,
    /// In a value in quotes.
    Quoted,
    /// After a quote in quotes: the end of the value, or the first half of a doubled quote.
    Closed,
}

impl<R: Read> DelimiterCollapser<R> {
    /// Creates a reader; `quoting` holds the delimiter and the quote if the text is aligned.
    pub(crate) fn new(inner: R, quoting: Option<Quoting>) -> Self {
        Self {
            inner,
            quoting,
            state: CollapseState::Start,
        }
    }

    /// Returns the state after `byte`, whether a delimiter is written before it, and whether the
    /// byte itself is written.
    fn step(state: CollapseState, byte: u8, quoting: Quoting) -> (CollapseState, bool, bool) {
        let is_between = state == CollapseState::Between;
        match (state, byte) {
            (CollapseState::Quoted, byte) if byte == quoting.quote => {
                (CollapseState::Closed, false, true)
            }
            (CollapseState::Quoted, _) => (CollapseState::Quoted, false, true),
            (CollapseState::Closed, byte) if byte == quoting.quote => {
                (CollapseState::Quoted, false, true)
            }
            (_, b'\n' | b'\r') => (CollapseState::Start, false, true),
            (CollapseState::Start, byte) if byte == quoting.delimiter => {
                (CollapseState::Start, false, false)
            }
            (_, byte) if byte == quoting.delimiter => (CollapseState::Between, false, false),
            (CollapseState::Start | CollapseState::Between, byte) if byte == quoting.quote => {
                (CollapseState::Quoted, is_between, true)
            }
            (_, _) => (CollapseState::Value, is_between, true),
        }
    }
}

impl<R: Read> Read for DelimiterCollapser<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(quoting) = self.quoting else {
            return self.inner.read(into);
        };
        // One byte may be written together with the delimiter before it.
        if into.len() < 2 {
            return Err(io::Error::other(
                "the buffer is too small; expected at least 2 bytes",
            ));
        }
        loop {
            // A pending delimiter of an earlier read needs one byte of room. A delimiter of this
            // read reuses the byte that it occupied.
            let reserved = usize::from(self.state == CollapseState::Between);
            let read = self.inner.read(&mut into[reserved..])?;
            let mut written = 0;
            for from in reserved..reserved + read {
                let byte = into[from];
                let (state, delimiter, itself) = Self::step(self.state, byte, quoting);
                self.state = state;
                for (is_written, output_byte) in [(delimiter, quoting.delimiter), (itself, byte)] {
                    if is_written {
                        into[written] = output_byte;
                        written += 1;
                    }
                }
            }
            if written > 0 || read == 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::BufRead;

    use proptest::prelude::*;

    use super::*;

    const SPACES: Quoting = Quoting {
        quote: b'"',
        delimiter: b' ',
    };

    /// Collapses `text` in reads of at most `step` bytes.
    fn aligned(text: &str, step: usize) -> String {
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let step = self.1.min(into.len());
                self.0.read(&mut into[..step])
            }
        }
        let mut text = io::BufReader::with_capacity(
            16,
            DelimiterCollapser::new(Slow(text.as_bytes(), step), Some(SPACES)),
        );
        let mut all = Vec::new();
        while !text.fill_buf().unwrap().is_empty() {
            all.extend_from_slice(text.buffer());
            text.consume(text.buffer().len());
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn runs_of_delimiters_collapse_and_those_at_ends_vanish() {
        for step in [1, 2, 3, 100] {
            assert_eq!(
                aligned("   1.0  -2.5 3\r\n  \n a \nb", step),
                "1.0 -2.5 3\r\n\na\nb"
            );
            assert_eq!(
                aligned("a  \"b  \"\" \n  c\"  d  5\"  x", step),
                "a \"b  \"\" \n  c\" d 5\" x"
            );
            assert_eq!(aligned("    ", step), "");
        }
    }

    proptest! {
        #[test]
        fn words_stay_in_their_lines(text in "[ab \n]{0,60}", step in 1_usize..9) {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let expected: Vec<String> = text.split('\n').map(words).collect();
            let found = aligned(&text, step);
            prop_assert_eq!(found.split('\n').collect::<Vec<_>>(), expected);
        }
    }
}
