//! Other decoders' test images, broken and hostile ones among them: no panic, no hang, and the
//! verdicts make sense.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use latentflow::image::{Channels, ImageError, Pixels, decode};

use crate::common::test_data::test_data;

/// As large as no image of the corpus is, but its bombs.
const MAX_PIXELS: u64 = 20_000_000;
/// Beyond all doubt a hang: the slowest image takes a fraction of a second.
const HANG: Duration = Duration::from_secs(60);

#[test]
fn every_sound_png_is_decoded_and_every_corrupt_one_refused() {
    let Some(folder) = test_data("bad/pngsuite/png") else {
        return;
    };
    let images: Vec<PathBuf> = files(&folder)
        .into_iter()
        .filter(|path| extension(path) == "png")
        .collect();
    assert!(
        images.len() > 100,
        "only {} images in {}",
        images.len(),
        folder.display()
    );
    for path in images {
        let corrupt = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('x'));
        let outcome = decoded(&path);
        assert_eq!(
            outcome.is_err(),
            corrupt,
            "{}: {:?}",
            path.display(),
            outcome.err()
        );
    }
}

#[test]
fn no_image_hangs_or_panics_and_what_is_decoded_is_complete() {
    let mut sound = 0;
    let mut refused = 0;
    for part in ["pngsuite", "pillow", "go-image", "libjpeg-turbo"] {
        let Some(folder) = test_data(&format!("bad/{part}")) else {
            return;
        };
        for path in files(&folder) {
            match decoded(&path) {
                Ok(pixels) => {
                    sound += 1;
                    assert_eq!(
                        pixels.data.len(),
                        pixels.width * pixels.height * 3,
                        "{}",
                        path.display()
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    // Pillow takes some 40 more, most of them of kinds that are not supported here: icons, TIFF
    // with a palette.
    assert!(sound > 560, "{sound} decoded, {refused} refused");
}

/// Decodes on a thread of its own, so that a hang is a failure of the test.
fn decoded(path: &Path) -> Result<Pixels, ImageError> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(decode(&bytes, Channels::Rgb, MAX_PIXELS)));
    receiver
        .recv_timeout(HANG)
        .unwrap_or_else(|error| panic!("{}: hangs or panics: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn extension(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}
