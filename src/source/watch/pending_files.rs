//! Files that have come and are not taken: those that are complete, and those that may still be
//! written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::source::listed_file::ListedFile;

/// The files, by name.
#[derive(Default)]
pub(super) struct PendingFiles {
    /// Files that are complete.
    add_ready: BTreeMap<String, ListedFile>,
    /// Files that may still be written, and since when they have not changed.
    add_unstable: BTreeMap<String, (ListedFile, Instant)>,
}

impl PendingFiles {
    /// Whether no file is complete.
    pub(super) fn is_empty(&self) -> bool {
        self.add_ready.is_empty()
    }

    /// A file is complete.
    pub(super) fn add_ready(&mut self, file: ListedFile) {
        self.add_unstable.remove(&file.name);
        self.add_ready.insert(file.name.clone(), file);
    }

    /// A file may still be written. One that is known to wait goes on waiting, unless it has
    /// changed.
    pub(super) fn add_unstable(&mut self, file: ListedFile, now: Instant) {
        self.add_ready.remove(&file.name);
        let known = self.add_unstable.get(&file.name);
        if known.is_none_or(|(known, _)| (known.size, known.mtime_ns) != (file.size, file.mtime_ns))
        {
            self.add_unstable.insert(file.name.clone(), (file, now));
        }
    }

    /// A file is not there, or need not be taken.
    pub(super) fn remove(&mut self, name: &str) {
        self.add_ready.remove(name);
        self.add_unstable.remove(name);
    }

    /// The files that have not changed for `settle`: they are to be looked at once more.
    pub(super) fn due(&mut self, settle: Duration, now: Instant) -> Vec<ListedFile> {
        let is_due = |(_, since): &(ListedFile, Instant)| now - *since >= settle;
        let due = self
            .add_unstable
            .values()
            .filter(|entry| is_due(entry))
            .map(|(file, _)| file.clone())
            .collect();
        self.add_unstable.retain(|_, entry| !is_due(entry));
        due
    }

    /// Takes the first files that are complete, at most `count` of them.
    pub(super) fn take(&mut self, count: usize) -> Vec<ListedFile> {
        let rest = self.add_ready.keys().nth(count).cloned();
        let rest = rest
            .map(|name| self.add_ready.split_off(&name))
            .unwrap_or_default();
        std::mem::replace(&mut self.add_ready, rest)
            .into_values()
            .collect()
    }
}

/// Whether a file was last written so long ago; one from the future was not.
pub(super) fn is_older_than(file: &ListedFile, age: Duration) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    now.saturating_sub(file.mtime_ns) >= i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn file(name: &str, time: i64) -> ListedFile {
        serde_json::from_value(serde_json::json!({"path": name, "size": 1, "mtime_ns": time}))
            .unwrap()
    }

    #[test]
    fn file_settles_when_it_has_not_changed_for_a_while() {
        let (mut arrivals, begin) = (PendingFiles::default(), Instant::now());
        let settle = Duration::from_secs(2);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        arrivals.add_unstable(file("a", 1), begin);
        arrivals.add_unstable(file("a", 1), at(1));
        arrivals.add_unstable(file("b", 1), begin);
        arrivals.add_unstable(file("b", 2), at(1));
        assert_eq!(arrivals.due(settle, at(2)), [file("a", 1)]);
        assert_eq!(arrivals.due(settle, at(3)), [file("b", 2)]);
        arrivals.add_ready(file("a", 3));
        arrivals.add_ready(file("c", 3));
        assert!(!arrivals.is_empty());
        assert_eq!(arrivals.take(1), [file("a", 3)]);
        arrivals.remove("c");
        assert!(arrivals.is_empty());
    }

    #[test]
    fn file_from_the_future_is_not_old() {
        assert!(is_older_than(&file("a", 1), Duration::from_secs(2)));
        assert!(!is_older_than(&file("a", i64::MAX), Duration::from_secs(2)));
    }
}
