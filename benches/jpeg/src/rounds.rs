//! Rounds in which decoders take turns.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use scaled_jpeg::Scale;

use crate::decoders::DecodeImage;

/// The milliseconds per image of each round, in ascending order.
pub struct Times(Vec<f64>);

impl Times {
    /// The least time.
    pub fn best(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The median time.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

/// The CPU time of this thread, which other programs on the machine change little.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Decodes all images with each decoder in each round. A round without measurement precedes them.
pub fn run(
    decoders: &mut [Box<dyn DecodeImage>],
    images: &[Vec<u8>],
    scale: Scale,
    rounds: usize,
) -> Result<Vec<Times>> {
    let mut out = Vec::new();
    let mut times = vec![Vec::new(); decoders.len()];
    for round in 0..=rounds {
        for (decoder, times) in decoders.iter_mut().zip(&mut times) {
            let start = cpu_time();
            for image in images {
                decoder.decode(image, scale, &mut out)?;
            }
            let spent = cpu_time() - start;
            if round > 0 {
                times.push(spent.as_secs_f64() * 1000.0 / images.len() as f64);
            }
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    Ok(times.into_iter().map(Times).collect())
}
