//! Compares the time of scaled-jpeg with that of libjpeg-turbo and zune-jpeg on a folder of JPEGs:
//!
//! ```sh
//! cd benches/jpeg && cargo run --release -- FOLDER [ROUNDS [DECODERS]]
//! ```
//!
//! All decoders decode to RGB in one thread, and take turns in each round. Times are CPU milliseconds
//! of the thread per image. The best and the median are those of the rounds. The ratio is that of the
//! best times; below 1, scaled-jpeg is faster. `DECODERS` names those that run, such as `ours`.
//!
//! Progressive copies of photographs are made with `jpegtran -progressive`.

mod decoders;
mod rounds;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use decoders::{DecodeImage, Ours, Turbo, Zune};
use rounds::Times;
use scaled_jpeg::Scale;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("the first argument is a folder")?);
    let rounds: usize = arguments.next().map_or(Ok(15), |text| text.parse())?;
    let chosen = arguments.next().unwrap_or_default();
    ensure!(rounds > 0, "the number of rounds is 0; expected at least 1");
    let images = jpegs(&folder)?;
    println!("{} images, {rounds} rounds", images.len());
    println!("scale  decoder  best ms  median ms  ours/this");
    for scale in Scale::ALL {
        let mut decoders: Vec<Box<dyn DecodeImage>> = vec![Box::new(Ours), Box::new(Turbo::new()?)];
        if scale == Scale::Full {
            decoders.push(Box::new(Zune));
        }
        decoders.retain(|decoder| chosen.is_empty() || chosen.contains(decoder.name()));
        let times = rounds::run(&mut decoders, &images, scale, rounds)?;
        let ours = times.first().map_or(0.0, Times::best);
        for (decoder, times) in decoders.iter().zip(&times) {
            println!(
                "{:5}  {:7}  {:7.3}  {:9.3}  {:9.2}",
                format!("1/{}", scale.divisor()),
                decoder.name(),
                times.best(),
                times.median(),
                ours / times.best(),
            );
        }
    }
    Ok(())
}

/// The contents of the JPEGs of a folder, in the order of their names.
fn jpegs(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| {
        let extension = path.extension().unwrap_or_default();
        extension.eq_ignore_ascii_case("jpg") || extension.eq_ignore_ascii_case("jpeg")
    });
    paths.sort();
    ensure!(!paths.is_empty(), "{} has no JPEGs", folder.display());
    let read = |path: PathBuf| {
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    paths.into_iter().map(read).collect()
}
