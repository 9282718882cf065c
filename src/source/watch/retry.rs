//! The schedule of retries for files and folders that are unavailable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::provenance::Split;
use crate::source::discovery::listed_file::ListedFile;

/// Pause before the second attempt. Each later pause is twice as long as the previous one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Maximum pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The row of a file that was journaled by an earlier run; `None` for a file that is not journaled.
pub(super) type JournaledRow = Option<(Arc<Split>, u64)>;

/// A file that waits to be read.
#[derive(Clone)]
pub(super) struct FileRetry {
    /// The file as it was found.
    pub(super) file: ListedFile,
    /// Its row, if it has one.
    pub(super) row: JournaledRow,
    /// The error of the last attempt.
    pub(super) error: String,
    since: Instant,
    pause: Duration,
    next: Instant,
}

/// The waiting files, by name and row.
#[derive(Default)]
pub(super) struct FileRetries {
    files: BTreeMap<(String, String, u64), FileRetry>,
}

fn key(name: &str, row: &JournaledRow) -> (String, String, u64) {
    let (split, row) = row
        .as_ref()
        .map_or(("", 0), |(split, row)| (split.name(), *row));
    (name.to_owned(), split.to_owned(), row)
}

impl FileRetries {
    /// Records a failed attempt. Returns the time since the first attempt.
    pub(super) fn failed(
        &mut self,
        file: &ListedFile,
        row: JournaledRow,
        error: String,
        now: Instant,
    ) -> Duration {
        let entry = self
            .files
            .entry(key(&file.name, &row))
            .or_insert_with(|| FileRetry {
                file: file.clone(),
                row,
                error: String::new(),
                since: now,
                pause: FIRST_PAUSE / 2,
                next: now,
            });
        entry.file.clone_from(file);
        entry.error = error;
        entry.pause = (entry.pause * 2).min(LONGEST_PAUSE);
        entry.next = now + entry.pause;
        now - entry.since
    }

    /// Removes a file that was read, does not exist, or is rejected.
    pub(super) fn remove(&mut self, name: &str, row: &JournaledRow) {
        self.files.remove(&key(name, row));
    }

    /// Returns the files whose next attempt is due. If neither [`Self::failed`] nor
    /// [`Self::remove`] is called for a file, it is due again after the maximum pause.
    pub(super) fn due(&mut self, now: Instant) -> Vec<FileRetry> {
        let mut due = Vec::new();
        for retry in self.files.values_mut().filter(|retry| retry.next <= now) {
            retry.next = now + LONGEST_PAUSE;
            due.push(retry.clone());
        }
        due
    }

    /// Makes all retries at or below a path due, after a change there.
    pub(super) fn hasten(&mut self, name: &str, now: Instant) {
        let first = |path: &str| (path.to_owned(), String::new(), 0);
        let below = format!("{name}/");
        let exact = self
            .files
            .range_mut(first(name)..)
            .take_while(|((file, ..), _)| file == name);
        exact.for_each(|(_, retry)| retry.next = now);
        let files = self
            .files
            .range_mut(first(&below)..)
            .take_while(|((file, ..), _)| file.starts_with(&below));
        files.for_each(|(_, retry)| retry.next = now);
    }

    /// Makes all retries due, after the watched folder became available again.
    pub(super) fn hasten_all(&mut self, now: Instant) {
        self.files.values_mut().for_each(|retry| retry.next = now);
    }

    /// The number of waiting files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The file that has waited longest, and its waiting time.
    pub(super) fn oldest(&self, now: Instant) -> Option<(&FileRetry, Duration)> {
        let oldest = self.files.values().min_by_key(|retry| retry.since)?;
        Some((oldest, now - oldest.since))
    }
}

/// Paths that could not be listed, each with the time and the pause of its next listing.
#[derive(Default)]
pub(super) struct FolderRescans {
    names: BTreeMap<String, (Instant, Duration)>,
}

impl FolderRescans {
    /// Records a failed listing.
    pub(super) fn failed(&mut self, name: String, now: Instant) {
        let entry = self.names.entry(name).or_insert((now, FIRST_PAUSE / 2));
        entry.1 = (entry.1 * 2).min(LONGEST_PAUSE);
        entry.0 = now + entry.1;
    }

    /// As [`Self::failed`], if the path still waits.
    pub(super) fn again(&mut self, name: &str, now: Instant) {
        if self.names.contains_key(name) {
            self.failed(name.to_owned(), now);
        }
    }

    /// Removes a path that was listed or does not exist.
    pub(super) fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// The paths whose listing is due.
    pub(super) fn due(&self, now: Instant) -> Vec<String> {
        self.names
            .iter()
            .filter(|(_, (next, _))| *next <= now)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn failed_listing_is_repeated_at_growing_intervals() {
        let (mut rescans, begin) = (FolderRescans::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        rescans.failed("sub".to_owned(), begin);
        assert!(rescans.due(begin).is_empty());
        assert_eq!(rescans.due(at(1)), ["sub"]);
        rescans.failed("sub".to_owned(), at(1));
        assert!(rescans.due(at(2)).is_empty());
        assert_eq!(rescans.due(at(3)), ["sub"]);
        rescans.remove("sub");
        assert!(rescans.due(at(3)).is_empty());
    }

    #[test]
    fn pause_doubles_up_to_one_minute() {
        let file: ListedFile =
            serde_json::from_str(r#"{"path":"sub/a","size":1,"mtime_ns":2}"#).unwrap();
        let mut retries = FileRetries::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(
            retries.failed(&file, None, "no".into(), begin),
            Duration::ZERO
        );
        assert!(retries.due(begin).is_empty());
        assert_eq!(retries.due(at(1)).len(), 1);
        assert!(retries.due(at(2)).is_empty(), "the attempt is under way");
        assert_eq!(
            retries.failed(&file, None, "no".into(), at(2)),
            Duration::from_secs(2)
        );
        assert!(retries.due(at(3)).is_empty());
        assert_eq!(retries.due(at(4)).len(), 1);
        for _ in 0..10 {
            retries.failed(&file, None, "no".into(), at(100));
        }
        assert!(retries.due(at(159)).is_empty());
        retries.hasten("sub", at(120));
        assert_eq!(retries.due(at(120)).len(), 1);
        let (oldest, age) = retries.oldest(at(200)).unwrap();
        assert_eq!(
            (&*oldest.error, age, retries.len()),
            ("no", Duration::from_secs(200), 1)
        );
        retries.remove("sub/a", &Some((Split::new("s"), 0)));
        assert_eq!(retries.len(), 1, "the removed key has another row");
        retries.remove("sub/a", &None);
        assert_eq!(retries.len(), 0);
    }
}
