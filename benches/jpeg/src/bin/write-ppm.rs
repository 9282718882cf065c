//! Writes the pixels of JPEGs at a scale as PPM files, for comparisons with other decoders:
//! `write-ppm DIVISOR FOLDER FILE...`. A file that is refused is reported and skipped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use scaled_jpeg::{Channels, Decoder, Error, Limits, Scale};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let divisor: u32 = arguments.next().context("expected a divisor")?.parse()?;
    let folder = PathBuf::from(arguments.next().context("expected a folder")?);
    let scale = Scale::ALL
        .into_iter()
        .find(|scale| scale.divisor() == divisor)
        .context("the divisor is not 1, 2, 4 or 8")?;
    for (index, file) in arguments.enumerate() {
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {file}"))?;
        match ppm(&bytes, scale) {
            Ok(ppm) => write(&folder, index, &ppm)?,
            Err(error) => eprintln!("{file}: {error}"),
        }
    }
    Ok(())
}

/// The file is named by the index of its source among the arguments.
fn write(folder: &Path, index: usize, ppm: &[u8]) -> Result<()> {
    let path = folder.join(format!("{index}.ppm"));
    std::fs::write(&path, ppm).with_context(|| format!("cannot write {}", path.display()))
}

fn ppm(bytes: &[u8], scale: Scale) -> Result<Vec<u8>, Error> {
    let decoder = Decoder::new(bytes, Limits::default())?;
    let (width, height) = decoder.scaled_size(scale);
    let pixels = decoder.decode(scale, Channels::Rgb)?;
    Ok([format!("P6\n{width} {height}\n255\n").into_bytes(), pixels].concat())
}
