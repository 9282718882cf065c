//! The rule that divides the inputs of a pipeline among runs on several machines: `I/N`, the share
//! that a name selects, and the folder of a shard.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Maximum number of shards.
pub(crate) const MAX_SHARDS: u32 = 65_536;

/// One of the runs that share the inputs of a pipeline, written `I/N`.
///
/// A file belongs to the shard `h % N`, where `h` is the number in the first 8 bytes (big-endian)
/// of the SHA-256 digest of its name relative to the folder of its source. A row group of a Parquet
/// file belongs to the shard of the name `<file>#<index>`. The rule must never change: the shards
/// of a run may be of different versions, and a shard is continued by later versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// The number of shards.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the file with this name belongs to the shard.
    #[must_use]
    pub(crate) fn has_file(self, name: &str) -> bool {
        self.has(Sha256::new().chain_update(name))
    }

    /// Whether a row group of the file with this name belongs to the shard.
    #[must_use]
    pub(crate) fn has_row_group(self, file: &str, index: usize) -> bool {
        self.has(
            Sha256::new()
                .chain_update(file)
                .chain_update(format!("#{index}")),
        )
    }

    fn has(self, digest: Sha256) -> bool {
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize()[..8]);
        u64::from_be_bytes(first) % u64::from(self.count) == u64::from(self.index)
    }

    /// The part of `0..rows` that belongs to the shard, for rows without a file. The parts of all
    /// shards have equal sizes, except for one row.
    #[must_use]
    pub(crate) fn range_of(self, rows: u64) -> Range<u64> {
        let start = |index: u32| {
            let start = u128::from(rows) * u128::from(index) / u128::from(self.count);
            u64::try_from(start).unwrap_or(rows)
        };
        start(self.index)..start(self.index + 1)
    }

    /// The name of the folder of the shard within each output, such as `shard-03-of-16`. The
    /// indices of all shards have the same number of digits, so that the names sort.
    #[must_use]
    pub fn folder(self) -> String {
        folder(self.index, self.count)
    }
}

/// The names of the first and the last folder of `count` shards.
#[must_use]
pub(crate) fn first_and_last_folder(count: u32) -> (String, String) {
    (folder(0, count), folder(count.saturating_sub(1), count))
}

fn folder(index: u32, count: u32) -> String {
    let width = count.saturating_sub(1).to_string().len();
    format!("shard-{index:0width$}-of-{count}")
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse::<u32>().unwrap_or(u32::MAX))
        };
        let parsed = text
            .split_once('/')
            .and_then(|(index, count)| Some((number(index)?, number(count)?)));
        let Some((index, count)) = parsed else {
            return Err(format!(
                "`{text}` is not a shard; expected an index and the number of shards, such as 0/8"
            ));
        };
        if !(1..=MAX_SHARDS).contains(&count) {
            return Err(format!(
                "the number of shards in `{text}` is out of range; expected 1 to {MAX_SHARDS}"
            ));
        }
        if index >= count {
            return Err(format!(
                "`{text}` is out of range: the index counts from 0, so the shards are 0/{count} to \
                 {}/{count}",
                count - 1
            ));
        }
        Ok(Self { index, count })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    #[test]
    fn rule_of_names_and_row_groups_never_changes() {
        let shard_of = |has: &dyn Fn(Shard) -> bool, count: u32| {
            (0..count)
                .map(|index| Shard { index, count })
                .filter(|&shard| has(shard))
                .map(|shard| shard.index)
                .collect::<Vec<_>>()
        };
        // Computed with Python: int(sha256(name).hexdigest()[:16], 16) % count
        let files = [
            ("a.jpg", 8, 2),
            ("a.jpg", 1000, 26),
            ("holiday/Grün 1.jpg", 1000, 564),
        ];
        for (name, count, expected) in files {
            assert_eq!(
                shard_of(&|shard| shard.has_file(name), count),
                [expected],
                "{name}"
            );
        }
        let group = |index, count| {
            shard_of(
                &|shard: Shard| shard.has_row_group("t.parquet", index),
                count,
            )
        };
        assert_eq!((group(0, 1000), group(11, 1000)), (vec![801], vec![898]));
    }

    #[test]
    fn ranges_of_all_shards_cover_each_row_once() {
        for (rows, count) in [(0, 3), (1, 3), (10, 3), (7, 7), (5, 8), (u64::MAX, 65_536)] {
            let mut end = 0;
            for index in 0..count {
                let range = Shard { index, count }.range_of(rows);
                assert_eq!(range.start, end);
                assert!(range.end - range.start <= rows / u64::from(count) + 1);
                end = range.end;
            }
            assert_eq!(end, rows);
        }
    }

    #[test]
    fn folders_sort_by_index() {
        assert_eq!(shard("3/8").folder(), "shard-3-of-8");
        assert_eq!(shard("9/10").folder(), "shard-9-of-10");
        assert_eq!(shard("0/1").folder(), "shard-0-of-1");
        assert_eq!(shard("3/16").folder(), "shard-03-of-16");
        assert_eq!(
            first_and_last_folder(101),
            ("shard-000-of-101".to_owned(), "shard-100-of-101".to_owned())
        );
    }

    #[test]
    fn refusal_of_invalid_shard_states_the_expected_form() {
        let refusal = |text: &str| text.parse::<Shard>().unwrap_err();
        for text in ["", "3", "3/", "/8", "a/8", "-1/8", "+1/8", "1/8/2", " 1/8"] {
            assert_eq!(
                refusal(text),
                format!(
                    "`{text}` is not a shard; expected an index and the number of shards, such as \
                     0/8"
                )
            );
        }
        let counted =
            "`8/8` is out of range: the index counts from 0, so the shards are 0/8 to 7/8";
        assert_eq!(refusal("8/8"), counted);
        for count in ["0", "65537", "99999999999999999999"] {
            assert_eq!(
                refusal(&format!("0/{count}")),
                format!("the number of shards in `0/{count}` is out of range; expected 1 to 65536")
            );
        }
        assert_eq!(shard("65535/65536").to_string(), "65535/65536");
    }
}
