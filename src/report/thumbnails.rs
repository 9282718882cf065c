//! Thumbnails of the images that the rows of a dataset come from, as far as this machine has them.

use std::path::{Component, Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{Markup, html};

use crate::fs_durable::bounded_read::read_bounded;
use crate::image::decode::decode_resized;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::{
    Channels, DecodeMode, DecodeOptions, OutputFormat, Pixels, ResizeMode, Resizer, encode,
};
use crate::sink::OutputIdentity;
use crate::source::discovery::file_set::FileSet;

/// Width and height of a thumbnail.
const SIDE: usize = 160;
/// Quality of its JPEG.
const JPEG: JpegOptions = JpegOptions::of_quality(85);
/// Maximum size of an image file.
const MAX_FILE: u64 = 256 << 20;
/// Maximum number of pixels of an image.
const MAX_PIXELS: u64 = 200_000_000;
/// Maximum number of thumbnails on a page, which is then about 3 MB in size.
const MAX_THUMBNAILS: usize = 400;

/// Reads images and makes thumbnails of them.
pub(crate) struct Thumbnails {
    /// The folders that the names of images are relative to.
    folders: Vec<PathBuf>,
    resizer: Resizer,
    left: usize,
}

impl Thumbnails {
    /// Looks for images in `folder`, or in the folders that the pipelines of a dataset read.
    pub(crate) fn new(folder: Option<&Path>, writers: &[OutputIdentity]) -> Self {
        let stages = writers.iter().flat_map(|writer| writer.stages.values());
        let paths = stages
            .filter(|stage| stage.kind == "images")
            .filter_map(|stage| stage.options.get("path")?.as_str());
        let mut folders: Vec<PathBuf> = match folder {
            Some(folder) => vec![folder.to_path_buf()],
            None => paths
                .filter_map(|path| {
                    let files = FileSet::new(path.to_owned(), false, &[]).ok()?;
                    files.local_root()
                })
                .collect(),
        };
        folders.sort_unstable();
        folders.dedup();
        Self {
            folders,
            resizer: Resizer::new(SIDE, SIDE, ResizeMode::Pad),
            left: MAX_THUMBNAILS,
        }
    }

    /// The thumbnail of the image with this name, or of the file at `path`; `None` if it does not
    /// exist, is not an image, or the page has the maximum number of them.
    pub(crate) fn of_name(&mut self, name: &str) -> Option<Markup> {
        let relative = Path::new(name);
        // A name in a dataset does not lead out of the folders.
        let is_below = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !relative.components().all(is_below) {
            return None;
        }
        let found = self.folders.iter().map(|folder| folder.join(relative));
        let path = found.into_iter().find(|path| path.is_file())?;
        self.of_file(&path)
    }

    /// The thumbnail of a file.
    pub(crate) fn of_file(&mut self, path: &Path) -> Option<Markup> {
        self.left = self.left.checked_sub(1)?;
        let bytes = read_bounded(path, MAX_FILE).ok()?;
        let options = DecodeOptions {
            channels: Channels::Rgb,
            max_pixels: MAX_PIXELS,
            value_range: None,
        };
        let data = decode_resized(&bytes, &options, DecodeMode::Scaled, &mut self.resizer).ok()?;
        let pixels = Pixels {
            width: SIDE,
            height: SIDE,
            channels: Channels::Rgb,
            data: data.to_vec(),
        };
        let jpeg = encode(&pixels, OutputFormat::Jpeg(JPEG)).ok()?;
        let source = format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(&jpeg));
        Some(html! {
            img width=(SIDE) height=(SIDE) src=(source) alt="";
        })
    }
}

/// A row of a dataset on a page.
pub(super) struct Card {
    pub(super) title: String,
    pub(super) image: Option<Markup>,
    /// Lines below the image.
    pub(super) lines: Vec<String>,
}

/// Arranges rows side by side, with their thumbnails.
pub(super) fn cards(cards: impl IntoIterator<Item = Card>) -> Markup {
    html! {
        div.cards {
            @for card in cards {
                figure {
                    @if let Some(image) = card.image { (image) }
                    figcaption { h3 { (card.title) } }
                    @for line in card.lines.iter().filter(|line| !line.is_empty()) {
                        p { (line) }
                    }
                }
            }
        }
    }
}
