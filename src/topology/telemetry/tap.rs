//! The tap, which keeps the last rejects of a run and, while a viewer is connected, sampled images.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use crate::image::{OutputFormat, Pixels, encode};
use crate::units::unix_seconds;

/// The number of rejects that are kept.
pub(crate) const REJECTS: usize = 20;
/// The number of images that are kept.
const IMAGES: usize = 8;
/// The time after the last request of a viewer during which images are sampled.
const VIEWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The minimum time between two images of a stage.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// The last rejects and images of a run.
pub struct Tap {
    began: Instant,
    /// The end of sampling, in milliseconds after `began`; 0 before the first viewer.
    sampling_until: AtomicU64,
    /// Per stage, the earliest time of the next image, in milliseconds after `began`.
    next_image: Vec<AtomicU64>,
    rejects: Mutex<VecDeque<RecentReject>>,
    images: Mutex<VecDeque<Arc<SampledImage>>>,
}

/// A rejected record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecentReject {
    /// The time of the reject, in seconds since 1970.
    pub unix_seconds: f64,
    /// The stage that rejected the record.
    pub stage: Arc<str>,
    /// The reject code.
    pub code: &'static str,
    /// The reason, as a sentence.
    pub reason: String,
    /// The file or request of the record.
    pub source: String,
    /// The row of the record in its file or request.
    pub row: u64,
    /// The number of records that the reject represents.
    pub records: u64,
}

/// The input and the output of a model for one image.
#[derive(Debug, PartialEq, Serialize)]
pub struct SampledImage {
    /// The number of the image, which is unique in the run.
    pub number: u64,
    /// The time of the sample, in seconds since 1970.
    pub unix_seconds: f64,
    /// The stage that runs the model.
    pub stage: Arc<str>,
    /// The file or request of the record.
    pub source: String,
    /// The input and the output of the model, as PNG files.
    #[serde(skip)]
    pub files: [Vec<u8>; 2],
}

impl Tap {
    pub(crate) fn new(stages: usize) -> Self {
        Self {
            began: Instant::now(),
            sampling_until: AtomicU64::new(0),
            next_image: (0..stages).map(|_| AtomicU64::new(0)).collect(),
            rejects: Mutex::default(),
            images: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Samples images for the next 10 seconds. A viewer calls this with each of its requests.
    pub(crate) fn keep_sampling(&self) {
        self.sampling_until
            .store(self.now() + VIEWER_TIMEOUT.as_millis() as u64, Relaxed);
    }

    /// Whether an image of this stage should be sampled now: a viewer is connected, and the last
    /// sample of the stage is at least 2 seconds old.
    pub(crate) fn should_sample(&self, stage: usize) -> bool {
        let until = self.sampling_until.load(Relaxed);
        if until == 0 {
            return false;
        }
        let now = self.now();
        now < until && now >= self.next_image[stage].load(Relaxed)
    }

    /// Stores an image of the stage with the index `at`. If several workers sampled an image at the
    /// same time, only the first is stored.
    pub(crate) fn add_image(
        &self,
        at: usize,
        stage: &Arc<str>,
        source: String,
        images: &[Pixels; 2],
    ) {
        let (now, next) = (self.now(), self.next_image[at].load(Relaxed));
        let after = now + SAMPLE_INTERVAL.as_millis() as u64;
        if now < next
            || self.next_image[at]
                .compare_exchange(next, after, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let [Ok(input), Ok(output)] = images
            .each_ref()
            .map(|image| encode(image, OutputFormat::Png))
        else {
            return;
        };
        let mut kept = self.images.lock();
        let number = kept.back().map_or(0, |last| last.number + 1);
        let files = [input, output];
        kept.push_back(Arc::new(SampledImage {
            number,
            unix_seconds: unix_seconds(),
            stage: Arc::clone(stage),
            source,
            files,
        }));
        let over = kept.len().saturating_sub(IMAGES);
        kept.drain(..over);
    }

    pub(crate) fn add_rejects(&self, rejects: Vec<RecentReject>) {
        let mut kept = self.rejects.lock();
        kept.extend(rejects);
        let over = kept.len().saturating_sub(REJECTS);
        kept.drain(..over);
    }

    /// The last rejects, the latest first.
    pub fn rejects(&self) -> Vec<RecentReject> {
        self.rejects.lock().iter().rev().cloned().collect()
    }

    /// The last images, the latest first.
    pub fn images(&self) -> Vec<Arc<SampledImage>> {
        self.images.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    #[test]
    fn images_are_sampled_at_intervals_while_viewer_is_connected() {
        let tap = Tap::new(2);
        let pixel = || Pixels {
            width: 1,
            height: 1,
            channels: Channels::Gray,
            data: vec![7],
        };
        let stage: Arc<str> = Arc::from("codes");
        assert!(!tap.should_sample(1));
        tap.keep_sampling();
        assert!(tap.should_sample(1));
        tap.add_image(1, &stage, "a.png".to_owned(), &[pixel(), pixel()]);
        assert!(!tap.should_sample(1), "immediately after a sample");
        assert!(tap.should_sample(0), "the interval is per stage");
        tap.add_image(1, &stage, "b.png".to_owned(), &[pixel(), pixel()]);
        let images = tap.images();
        assert_eq!(images.len(), 1);
        assert!(
            images[0].source == "a.png"
                && images[0]
                    .files
                    .iter()
                    .all(|file| file.starts_with(b"\x89PNG"))
        );
    }

    #[test]
    fn last_20_rejects_are_kept_latest_first() {
        let tap = Tap::new(1);
        let reject = |row| RecentReject {
            unix_seconds: 0.0,
            stage: Arc::from("pixels"),
            code: "corrupt",
            reason: String::new(),
            source: String::new(),
            row,
            records: 1,
        };
        (0..50).for_each(|row| tap.add_rejects(vec![reject(row)]));
        let rows: Vec<u64> = tap.rejects().iter().map(|recent| recent.row).collect();
        assert_eq!(rows, (30..50).rev().collect::<Vec<_>>());
    }
}
