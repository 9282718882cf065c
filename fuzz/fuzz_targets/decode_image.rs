//! Decodes arbitrary bytes as an image: no panic, bounded memory, and complete pixels.
#![no_main]

use latentflow::image::{Channels, decode, probe};
use libfuzzer_sys::fuzz_target;

const MAX_PIXELS: u64 = 1 << 20;

fuzz_target!(init: latentflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    for channels in [Channels::Rgb, Channels::Gray] {
        match decode(bytes, channels, MAX_PIXELS) {
            Ok(pixels) => {
                assert_eq!(pixels.data.len(), pixels.width * pixels.height * channels.count());
                let header = probe(bytes).expect("a decoded image has a header");
                assert_eq!(header.pixels(), (pixels.width * pixels.height) as u64);
                assert!(header.pixels() <= MAX_PIXELS);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
