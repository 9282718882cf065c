//! The number of records of all files, which is counted while they are read.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::batch::provenance::Provenance;
use crate::coverage::ResumeState;
use crate::source::RecordCount;
use crate::source::discovery::input_file::{InputFile, unusable};
use crate::source::table::file_source::{FileFormat, FileSource};
use crate::storage;

/// Maximum number of objects whose rows are counted: each of them takes a request.
const COUNTED_OBJECTS: usize = 256;

/// Counts the rows to be read on a separate thread, so that the count of many files does not delay
/// the first records.
pub(super) fn count<F: FileFormat>(
    source: &Arc<FileSource<F>>,
    files: &Arc<[InputFile]>,
    resume: &ResumeState,
) -> RecordCount {
    if storage::is_url(&source.path) && files.len() > COUNTED_OBJECTS {
        return RecordCount::Unknown;
    }
    let (source, files, resume) = (Arc::clone(source), Arc::clone(files), resume.clone());
    let (sender, receiver) = oneshot::channel();
    let counting = std::thread::Builder::new().name("count".to_owned());
    let spawned = counting.spawn(move || {
        let pending = |file: &InputFile| {
            // The count is not needed after the end of the run.
            let rows = if sender.is_closed() {
                None
            } else {
                source.format.count_rows(file)
            }?;
            if resume.is_committed(unusable(&file.split).name(), &(0..1)) {
                return Some(0);
            }
            let parts = resume.uncommitted_ranges(&Provenance::rows(file.split.clone(), 0..rows));
            Some(parts.iter().map(|part| part.end - part.start).sum::<u64>())
        };
        let total = files.iter().try_fold(0, |total: u64, file| {
            Some(total.saturating_add(pending(file)?))
        });
        total.map(|total| sender.send(total))
    });
    spawned.map_or(RecordCount::Unknown, |_| RecordCount::Counting(receiver))
}
