//! Files that have arrived and are not read yet: complete ones, and ones that may still be written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::source::discovery::listed_file::ListedFile;

/// The pending files by name.
#[derive(Default)]
pub(super) struct PendingFiles {
    /// Files that are complete.
    ready: BTreeMap<String, ListedFile>,
    /// Files that may still be written, each with the time of the last observed change.
    unstable: BTreeMap<String, (ListedFile, Instant)>,
}

impl PendingFiles {
    /// Whether no file is complete.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Adds a complete file.
    pub(super) fn add_ready(&mut self, file: ListedFile) {
        self.unstable.remove(&file.name);
        self.ready.insert(file.name.clone(), file);
    }

    /// Adds a file that may still be written. The waiting time of a known file continues unless the
    /// file has changed.
    pub(super) fn add_unstable(&mut self, file: ListedFile, now: Instant) {
        self.ready.remove(&file.name);
        let known = self.unstable.get(&file.name);
        if known.is_none_or(|(known, _)| (known.size, known.mtime_ns) != (file.size, file.mtime_ns))
        {
            self.unstable.insert(file.name.clone(), (file, now));
        }
    }

    /// Removes a file that does not exist or need not be read.
    pub(super) fn remove(&mut self, name: &str) {
        self.ready.remove(name);
        self.unstable.remove(name);
    }

    /// Takes the files that have not changed for `stable_for`, which must be checked again.
    pub(super) fn due(&mut self, stable_for: Duration, now: Instant) -> Vec<ListedFile> {
        let is_due = |(_, since): &(ListedFile, Instant)| now - *since >= stable_for;
        let due = self
            .unstable
            .values()
            .filter(|entry| is_due(entry))
            .map(|(file, _)| file.clone())
            .collect();
        self.unstable.retain(|_, entry| !is_due(entry));
        due
    }

    /// Takes the first files that are complete, at most `count` of them.
    pub(super) fn take(&mut self, count: usize) -> Vec<ListedFile> {
        let rest = self.ready.keys().nth(count).cloned();
        let rest = rest
            .map(|name| self.ready.split_off(&name))
            .unwrap_or_default();
        std::mem::replace(&mut self.ready, rest)
            .into_values()
            .collect()
    }
}

/// Whether the modification time of a file is at least `age` ago; `false` for one in the future.
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
    fn unchanged_file_is_due_after_the_stable_time() {
        let (mut pending, begin) = (PendingFiles::default(), Instant::now());
        let stable_for = Duration::from_secs(2);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        pending.add_unstable(file("a", 1), begin);
        pending.add_unstable(file("a", 1), at(1));
        pending.add_unstable(file("b", 1), begin);
        pending.add_unstable(file("b", 2), at(1));
        assert_eq!(pending.due(stable_for, at(2)), [file("a", 1)]);
        assert_eq!(pending.due(stable_for, at(3)), [file("b", 2)]);
        pending.add_ready(file("a", 3));
        pending.add_ready(file("c", 3));
        assert!(!pending.is_empty());
        assert_eq!(pending.take(1), [file("a", 3)]);
        pending.remove("c");
        assert!(pending.is_empty());
    }

    #[test]
    fn file_from_the_future_is_not_old() {
        assert!(is_older_than(&file("a", 1), Duration::from_secs(2)));
        assert!(!is_older_than(&file("a", i64::MAX), Duration::from_secs(2)));
    }
}
