//! Tests on the test images of other decoders, broken and hostile ones included: no panic, no hang,
//! and correct results.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use latentflow::image::{Channels, ImageError, Pixels, decode};

use crate::common::test_data::test_data;

/// More than the pixels of any image of the corpus except for decompression bombs.
const MAX_PIXELS: u64 = 20_000_000;
/// Timeout of one image; the slowest takes a fraction of a second.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn valid_pngs_are_decoded_and_corrupt_ones_refused() {
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
fn no_image_hangs_or_panics_and_decoded_images_are_complete() {
    let mut valid = 0;
    let mut refused = 0;
    for part in ["pngsuite", "pillow", "go-image", "libjpeg-turbo"] {
        let Some(folder) = test_data(&format!("bad/{part}")) else {
            return;
        };
        for path in files(&folder) {
            match decoded(&path) {
                Ok(pixels) => {
                    valid += 1;
                    assert_eq!(
                        pixels.data.len(),
                        pixels.width * pixels.height * 3,
                        "{}",
                        path.display()
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty(), "{}", path.display());
                }
            }
        }
    }
    // Pillow decodes about 40 more, most of them in formats that latentflow does not support, such
    // as icons.
    assert!(valid > 560, "{valid} decoded, {refused} refused");
}

/// Decodes on a separate thread, so that a hang fails the test.
fn decoded(path: &Path) -> Result<Pixels, ImageError> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(decode(&bytes, Channels::Rgb, MAX_PIXELS)));
    receiver
        .recv_timeout(HANG_TIMEOUT)
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
