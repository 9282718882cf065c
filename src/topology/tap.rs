//! What people may see of a run beside its counters: the last rejects, and, while somebody looks,
//! some images.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::image::{OutputFormat, Pixels, encode};
use crate::units::unix_seconds;

/// Rejects that are kept to be looked at.
pub(super) const REJECTS: usize = 20;
/// Images that are.
const IMAGES: usize = 8;
/// Somebody who has looked this long ago looks still.
const VIEWER_TIMEOUT: Duration = Duration::from_secs(10);
/// From one image to the next.
const PAUSE: Duration = Duration::from_secs(2);

/// The last rejects and images of a run.
pub struct Tap {
    began: Instant,
    /// Milliseconds after `began`: until when somebody looks, and, per stage, when the next image
    /// may be taken.
    sampling_until: AtomicU64,
    next_image: Vec<AtomicU64>,
    rejects: Mutex<VecDeque<RecentReject>>,
    images: Mutex<VecDeque<Arc<SampledImage>>>,
}

/// A record that was refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecentReject {
    /// When, in seconds since 1970.
    pub unix_seconds: f64,
    /// By which stage.
    pub stage: Arc<str>,
    /// Why, in a word.
    pub code: &'static str,
    /// Why, in a sentence.
    pub reason: String,
    /// The file or request that it came from.
    pub source: String,
    /// Its row there.
    pub row: u64,
    /// The number of records that it stands for.
    pub records: u64,
}

/// An image on its way through a model.
#[derive(Debug, PartialEq, Serialize)]
pub struct SampledImage {
    /// Its number, which no other image of the run has.
    pub number: u64,
    /// When it was taken, in seconds since 1970.
    pub unix_seconds: f64,
    /// The stage that runs the model.
    pub stage: Arc<str>,
    /// The file or request that it came from.
    pub source: String,
    /// What the model was given, and what it made of it: PNG files.
    #[serde(skip)]
    pub files: [Vec<u8>; 2],
}

impl Tap {
    pub(super) fn new(stages: usize) -> Self {
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

    /// Somebody looks: for some seconds from now on, images are taken now and then.
    pub fn keep_sampling(&self) {
        self.sampling_until
            .store(self.now() + VIEWER_TIMEOUT.as_millis() as u64, Relaxed);
    }

    /// Whether an image of this stage is to be taken now: somebody looks, and the last one was
    /// taken a while ago.
    pub(super) fn should_sample(&self, stage: usize) -> bool {
        let until = self.sampling_until.load(Relaxed);
        if until == 0 {
            return false;
        }
        let now = self.now();
        now < until && now >= self.next_image[stage].load(Relaxed)
    }

    /// Keeps an image of the stage at `at`; of several workers that took one at the same time, the
    /// first is heard.
    pub(super) fn add_image(
        &self,
        at: usize,
        stage: &Arc<str>,
        source: String,
        images: &[Pixels; 2],
    ) {
        let (now, next) = (self.now(), self.next_image[at].load(Relaxed));
        let after = now + PAUSE.as_millis() as u64;
        if now < next
            || self.next_image[at]
                .compare_exchange(next, after, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let [Ok(before), Ok(made)] = images
            .each_ref()
            .map(|image| encode(image, OutputFormat::Png))
        else {
            return;
        };
        let mut kept = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(0, |last| last.number + 1);
        let files = [before, made];
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

    pub(super) fn add_rejects(&self, rejects: Vec<RecentReject>) {
        let mut kept = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(rejects);
        let over = kept.len().saturating_sub(REJECTS);
        kept.drain(..over);
    }

    /// The last rejects, the latest first.
    pub fn rejects(&self) -> Vec<RecentReject> {
        self.rejects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect()
    }

    /// The last images, the latest first.
    pub fn images(&self) -> Vec<Arc<SampledImage>> {
        self.images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    #[test]
    fn images_are_taken_while_somebody_looks_and_seldom() {
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
        assert!(!tap.should_sample(1), "a moment later");
        assert!(tap.should_sample(0), "of another stage");
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
    fn the_last_rejects_are_kept() {
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
        let rows: Vec<u64> = tap.rejects().iter().map(|reject| reject.row).collect();
        assert_eq!(rows, (30..50).rev().collect::<Vec<_>>());
    }
}
