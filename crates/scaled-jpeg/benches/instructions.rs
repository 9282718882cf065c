//! Decodes an image a few times, for the instruction counts of `make bench-ci`:
//! `instructions NAME`. The images are noise with the spectrum of photographs, 4:2:0 of quality 85.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use scaled_jpeg::{Channels, Decoder, Limits, Scale};

const BASELINE: &[u8] = include_bytes!("baseline.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("progressive.jpg");

/// The only function whose instructions are counted.
#[inline(never)]
fn measured(image: &[u8], scale: Scale) {
    for _ in 0..3 {
        let decoder = Decoder::new(black_box(image), Limits::default()).unwrap();
        black_box(decoder.decode(scale, Channels::Rgb).unwrap());
    }
}

fn main() {
    let (image, scale) = match std::env::args().nth(1).as_deref() {
        Some("full") => (BASELINE, Scale::Full),
        Some("half") => (BASELINE, Scale::Half),
        Some("progressive-eighth") => (PROGRESSIVE, Scale::Eighth),
        // `cargo bench` calls every benchmark with an option.
        _ => return,
    };
    // The tables of the image are built once.
    Decoder::new(image, Limits::default())
        .and_then(|decoder| decoder.decode(scale, Channels::Rgb))
        .unwrap();
    measured(image, scale);
}
