//! Encodes records in memory: the stages of a pipeline without its source and its sink, on the thread
//! of the caller.
//!
//! ```sh
//! cargo run --example encode_batch
//! ```

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::datatypes::Float32Type;
use latentflow::config;
use latentflow::embed::EmbeddedPipeline;
use latentflow::image::{Channels, OutputFormat, Pixels, encode};
use latentflow::plan::EmbeddedEnds;

/// The pipeline. The program supplies images in place of the source, and takes the records in place of
/// the sink.
const PIPELINE: &str = "
[models.photo]
path = 'models/photo-ae'
[stages.in]
kind = 'images'
path = 'photos'
[stages.pixels]
kind = 'pixels'
inputs = ['in']
model = 'photo'
[stages.latents]
kind = 'encode'
inputs = ['pixels']
model = 'photo'
reconstruct = true
[stages.out]
kind = 'discard'
inputs = ['latents']
";

#[expect(clippy::print_stdout, reason = "the program prints its result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for Encoded { latent, error } in run()? {
        println!("{} values, error {error:.5}", latent.len());
    }
    Ok(())
}

/// A latent and the reconstruction error of its image.
#[derive(Debug)]
pub struct Encoded {
    /// The values of the latent.
    pub latent: Vec<f32>,
    /// The mean squared error of the reconstruction.
    pub error: f32,
}

/// Encodes a gray and a striped image.
pub fn run() -> Result<Vec<Encoded>, Box<dyn std::error::Error>> {
    let gray = vec![128; SIDE * SIDE * 3];
    let stripe = |byte: usize| {
        if (byte / 24).is_multiple_of(2) {
            0
        } else {
            255
        }
    };
    let striped = (0..SIDE * SIDE * 3).map(stripe).collect();
    let images = [png(gray)?, png(striped)?];
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(&images));
    let records = RecordBatch::try_from_iter([("image", images)])?;

    let pipeline = config::parse(
        Path::new("encode_batch.toml"),
        PIPELINE,
        std::iter::empty(),
        &[],
    )?;
    // Models are relative to the checkout. One pipeline may be used by several threads.
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ends = EmbeddedEnds {
        columns: Some(records.schema()),
        ..EmbeddedEnds::default()
    };
    let pipeline = EmbeddedPipeline::open(pipeline, &ends, Some(base))?;
    let mut found = Vec::new();
    for part in pipeline.process(&records)? {
        if let Some(reject) = part.rejects.first() {
            return Err(format!("row {}: {}", reject.row, reject.reason).into());
        }
        let latents = part.records["latent"].as_fixed_size_list();
        let errors = part.records["reconstruction_error"].as_primitive::<Float32Type>();
        for (row, error) in errors.values().iter().enumerate() {
            let latent = latents.value(row);
            found.push(Encoded {
                latent: latent.as_primitive::<Float32Type>().values().to_vec(),
                error: *error,
            });
        }
    }
    Ok(found)
}

/// The width and height of the images.
const SIDE: usize = 64;

fn png(data: Vec<u8>) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let pixels = Pixels {
        width: SIDE,
        height: SIDE,
        channels: Channels::Rgb,
        data,
    };
    Ok(encode(&pixels, OutputFormat::Png)?)
}
