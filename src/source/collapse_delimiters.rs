//! Text whose columns are aligned: delimiters in a row count as one, those at the ends of a record
//! as none.

use std::io::{self, Read};

use crate::source::text::Quoting;

/// Gives the text of `inner` with one delimiter between values, as other text has it; what stands
/// in quotes stays.
pub(super) struct DelimiterCollapser<R> {
    inner: R,
    /// `None`: the text stays as it is.
    quoting: Option<Quoting>,
    place: CollapseState,
}

/// Where in a record the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CollapseState {
    /// No value has begun.
    Start,
    /// In a value.
    Value,
    /// Behind a value, at a delimiter that has not been given.
    Between,
    /// In a value in quotes.
    Quoted,
    /// Behind a quote: the value's end, or half of a doubled quote.
    Closed,
}

impl<R: Read> DelimiterCollapser<R> {
    /// `quoting` says what the delimiter is, where the text is aligned.
    pub(super) fn new(inner: R, quoting: Option<Quoting>) -> Self {
        Self {
            inner,
            quoting,
            place: CollapseState::Start,
        }
    }

    /// Where the next byte leads, and what of it is given: a delimiter before it, and itself.
    fn step(place: CollapseState, byte: u8, quoting: Quoting) -> (CollapseState, bool, bool) {
        let is_between = place == CollapseState::Between;
        match (place, byte) {
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
        // A byte may come with the delimiter before it.
        if into.len() < 2 {
            return Err(io::Error::other("a buffer of two bytes is needed"));
        }
        loop {
            // A delimiter that was met in an earlier part takes a place of its own; others have
            // left theirs.
            let owed = usize::from(self.place == CollapseState::Between);
            let read = self.inner.read(&mut into[owed..])?;
            let mut given = 0;
            for from in owed..owed + read {
                let byte = into[from];
                let (place, delimiter, itself) = Self::step(self.place, byte, quoting);
                self.place = place;
                for (is_given, byte) in [(delimiter, quoting.delimiter), (itself, byte)] {
                    if is_given {
                        into[given] = byte;
                        given += 1;
                    }
                }
            }
            if given > 0 || read == 0 {
                return Ok(given);
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

    /// The text in reads of at most `step` bytes.
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
    fn delimiters_in_a_row_are_one_and_those_at_the_ends_none() {
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
            let words = |text: &str| text.split('\n').map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
            prop_assert_eq!(aligned(&text, step).split('\n').map(str::to_owned).collect::<Vec<_>>(), words(&text));
        }
    }
}
