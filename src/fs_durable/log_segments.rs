//! The files of a log that is removed in parts: segments named by the number of their first row.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::StageError;

/// The file name of the segment that begins at row `first`. Numbers have equal length, so that
/// names sort like rows.
pub(crate) fn segment_name(first: u64, extension: &str) -> String {
    format!("{first:020}.{extension}")
}

/// The first rows of the segments in a folder, ascending; empty if the folder does not exist. Other
/// files are ignored.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn first_rows(folder: &Path, extension: &str) -> Result<Vec<u64>, StageError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StageError::io(folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(StageError::io(folder))?.file_name();
        let row = name.to_str().and_then(|name| {
            let number = name.strip_suffix(extension)?.strip_suffix('.')?;
            number.parse::<u64>().ok()
        });
        found.extend(row);
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn segments_are_listed_in_the_order_of_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(first_rows(&missing, "frames").unwrap().is_empty());
        for name in [
            segment_name(300, "frames"),
            segment_name(7, "frames"),
            segment_name(9, "ndjson"),
            "x.frames".to_owned(),
            "12frames".to_owned(),
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(first_rows(folder.path(), "frames").unwrap(), [7, 300]);
        assert_eq!(segment_name(7, "frames"), "00000000000000000007.frames");
    }
}
