//! The rows in flight on disk.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use crate::batch::provenance::Provenance;
use crate::topology::poison_records::PoisonRecordTracker;

/// The number of bytes of a slot in the file of batches in flight. If a batch has more row ranges
/// than fit, its first ranges are recorded.
const SLOT_BYTES: usize = 256;

impl PoisonRecordTracker {
    /// Records that a batch is in flight.
    pub(in crate::topology) fn begin(&self, number: u64, provenance: &Provenance) {
        let ranges = provenance.ranges().iter();
        let ranges = ranges.map(|range| {
            format!(
                "{} {} {}\n",
                range.split.id(),
                range.rows.start,
                range.rows.end
            )
        });
        let mut text = String::new();
        for range in ranges.take_while(|range| range.len() < SLOT_BYTES) {
            if text.len() + range.len() <= SLOT_BYTES {
                text.push_str(&range);
            }
        }
        self.write_slot(number, &text);
    }

    /// Records that a batch has been processed, whether it failed or not.
    pub(in crate::topology) fn end(&self, number: u64) {
        self.write_slot(number, "");
        self.processed.send_modify(|processed| *processed += 1);
    }

    fn write_slot(&self, number: u64, text: &str) {
        let Some(file) = &self.file else { return };
        let mut file = file.lock();
        let start = (number % self.slots) * SLOT_BYTES as u64;
        // A failed write only hinders the isolation of a poison record, so it does not end the run.
        let _ = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.write_all(format!("{text:SLOT_BYTES$}").as_bytes()));
    }

    /// Waits until `numbers` batches have been processed, which means that none is in flight.
    pub(in crate::topology) async fn wait_idle(&self, numbers: u64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .processed
            .subscribe()
            .wait_for(|&processed| processed >= numbers)
            .await;
    }

    /// Records that the one row of `provenance` is processed alone from now on, or, for `None`,
    /// that it has been processed.
    pub(in crate::topology) fn record_single(&self, provenance: Option<&Provenance>) {
        let Some(folder) = &self.folder else { return };
        let path = folder.join("alone");
        let row = provenance.and_then(|provenance| provenance.row(0));
        let written = match row {
            Some((split, row)) => fs::write(&path, format!("{} {row} {}\n", split.id(), row + 1)),
            None => fs::remove_file(&path),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "cannot record which row is processed alone");
        }
    }

    /// Ends the tracking after a run that has not crashed, so that no row is suspected any more.
    /// Unless the run has `finished`, the quarantined rows are kept for the next run.
    pub(in crate::topology) fn close(&self, finished: bool) {
        let Some(folder) = &self.folder else { return };
        let cleared = if finished || self.state.quarantined.is_empty() {
            fs::remove_dir_all(folder)
        } else {
            fs::remove_file(folder.join("in-flight"))
        };
        if let Err(error) = cleared {
            tracing::debug!(
                folder = %folder.display(),
                %error,
                "cannot delete the crash state"
            );
        }
    }
}
