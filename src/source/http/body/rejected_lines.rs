//! Truncated lists in responses: the first entries, and the total number.

use serde::Serialize;

/// Maximum number of entries that a response lists.
pub(crate) const LISTED: usize = 100;

/// The first entries of a list, and its total length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TruncatedList<T> {
    pub(crate) first: Vec<T>,
    pub(crate) count: u64,
}

impl<T> Default for TruncatedList<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            count: 0,
        }
    }
}

impl<T> TruncatedList<T> {
    /// Adds an entry; entries beyond the first [`LISTED`] are only counted.
    pub(crate) fn push(&mut self, entry: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(entry());
        }
    }
}

/// A record of a request that was rejected when the body was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RejectedLine {
    /// The position in the request, counted from 0; blank lines do not count.
    pub(crate) record: u64,
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_keeps_its_first_entries_and_counts_all() {
        let mut list = TruncatedList::default();
        (0..1000).for_each(|entry| list.push(|| entry));
        assert_eq!((list.count, list.first), (1000, (0..100).collect()));
    }
}
