//! The source `images`: image files of a folder or a glob, their bytes as they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;

use super::files;
use super::listing::{self, Entry, Listing};
use super::{BatchSender, BatchSize, IMAGE, IMAGE_RECORDS, Opened, Source, SourceConfig, read_blocking, with_origin};
use crate::batch::{Batch, Provenance, Reject, RejectCode, SourceBatch, Split};
use crate::context::{Context, Limits};
use crate::coverage::Progress;
use crate::error::{Fault, StageError};
use crate::image::read_header;

/// File names that are taken for images where a folder is searched.
pub(super) const EXTENSIONS: [&str; 12] =
    ["bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"];

/// Options of `images`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Config {
    /// A folder (its files with a known image extension, and those of its subfolders), a glob such as
    /// `photos/**/*.jpg` (what it matches, whatever the extension), or a file.
    path: String,
}

impl SourceConfig for Config {
    fn plan(self, name: &str, batch: BatchSize, context: &Context) -> Result<Box<dyn Source>, Vec<Fault>> {
        if self.path.is_empty() {
            return Err(vec![Fault::new("path", "is empty; expected a folder, a glob or a file")]);
        }
        Ok(Box::new(Images { stage: name.to_owned(), path: self.path, batch, limits: context.limits }))
    }
}

struct Images {
    stage: String,
    path: String,
    batch: BatchSize,
    limits: Limits,
}

impl Source for Images {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn open(self: Box<Self>, progress: &Progress) -> Result<Opened, StageError> {
        let files = files::list(&self.stage, &self.path, &EXTENSIONS)?;
        let listings = listing::update(&self.stage, progress.state.as_deref(), &files)?;
        let files: BTreeMap<Entry, PathBuf> = files.into_iter().map(|file| (Entry::of(&file), file.path)).collect();
        let pending = |listing: &Listing| {
            let rows = 0..listing.entries.len() as u64;
            rows.filter(|&row| !progress.done(listing.split.name(), &(row..row + 1))).count() as u64
        };
        let total = listings.iter().map(pending).sum();
        let progress = progress.clone();
        let batches = read_blocking(2, move |sender| {
            let mut open = OpenBatch::new(self.batch, self.limits);
            for listing in listings {
                if !read_listing(&listing, &files, &progress, &mut open, sender)? {
                    break;
                }
            }
            Ok(())
        });
        Ok(Opened { batches, total: Some(total) })
    }
}

fn schema() -> SchemaRef {
    with_origin(&Schema::new(vec![Field::new(IMAGE, DataType::Binary, false)]))
}

/// Reads what is not done of a listing. `false`: nobody wants more.
fn read_listing(
    listing: &Listing,
    files: &BTreeMap<Entry, PathBuf>,
    progress: &Progress,
    open: &mut OpenBatch,
    sender: &BatchSender,
) -> Result<bool, StageError> {
    for (row, entry) in (0_u64..).zip(&listing.entries) {
        if progress.done(listing.split.name(), &(row..row + 1)) {
            if !open.send(&listing.split, sender)? {
                return Ok(false);
            }
            continue;
        }
        let image = match files.get(entry) {
            Some(path) => read_file(path, open.limits.record_bytes.0),
            None => Err((RejectCode::Unreadable, "it was listed, but has been removed or changed since".to_owned())),
        };
        if !open.fits(&image) && !open.send(&listing.split, sender)? {
            return Ok(false);
        }
        open.push(row, &entry.name, image);
        if open.is_full() && !open.send(&listing.split, sender)? {
            return Ok(false);
        }
    }
    open.send(&listing.split, sender)
}

pub(super) type Image = Result<Vec<u8>, (RejectCode, String)>;

/// The bytes of a file, at most `limit` of them.
fn read_file(path: &std::path::Path, limit: u64) -> Image {
    let refused = |error: std::io::Error| (RejectCode::Unreadable, format!("cannot be read: {error}"));
    // What was a file when it was listed may be a pipe by now, and opening one would wait for ever.
    if !path.metadata().map_err(refused)?.is_file() {
        return Err((RejectCode::Unreadable, "it is no longer a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes)).map_err(refused)?;
    if bytes.len() as u64 > limit {
        let limit = crate::units::Bytes(limit);
        return Err((RejectCode::TooLarge, format!("the file is larger than limits.record_bytes, {limit}")));
    }
    Ok(bytes)
}

/// A column of encoded images cannot hold more: Arrow counts its bytes with 31 bits.
const COLUMN_BYTES: u64 = 1 << 30;

/// Bytes of a decoded pixel: red, green, blue.
const PIXEL_BYTES: u64 = 3;

/// A batch of images that is being filled: rows of one split that follow each other.
pub(super) struct OpenBatch {
    limits: Limits,
    records: usize,
    bytes: u64,
    first_row: u64,
    names: Vec<String>,
    rows: Vec<u64>,
    images: Vec<Vec<u8>>,
    origin: Vec<u32>,
    rejects: Vec<Reject>,
    weight: u64,
    stored: u64,
    pixels: u64,
}

impl OpenBatch {
    pub(super) fn new(size: BatchSize, limits: Limits) -> Self {
        Self {
            limits,
            records: size.records_or(IMAGE_RECORDS),
            bytes: size.bytes(),
            first_row: 0,
            names: Vec::new(),
            rows: Vec::new(),
            images: Vec::new(),
            origin: Vec::new(),
            rejects: Vec::new(),
            weight: 0,
            stored: 0,
            pixels: 0,
        }
    }

    fn len(&self) -> usize {
        self.images.len() + self.rejects.len()
    }

    /// Whether the image still goes into the batch; an empty one takes every image.
    pub(super) fn fits(&self, image: &Image) -> bool {
        let Ok(image) = image else { return true };
        let weight = self.weight + self.weigh(image).0;
        self.len() == 0 || (weight <= self.bytes && self.stored + image.len() as u64 <= COLUMN_BYTES)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.records
    }

    /// What an image counts: its bytes or its decoded pixels, whichever is more, and its pixels.
    /// One that is too large to be decoded will be refused before it is: it counts as it is stored.
    fn weigh(&self, image: &[u8]) -> (u64, u64) {
        let pixels = read_header(image).map_or(0, |header| header.pixels());
        let pixels = if pixels > self.limits.pixels { 0 } else { pixels };
        ((image.len() as u64).max(pixels * PIXEL_BYTES), pixels)
    }

    /// Adds row `row` of the split; rows must follow each other.
    pub(super) fn push(&mut self, row: u64, name: &str, image: Image) {
        self.push_as(row, name, 0, image);
    }

    /// As [`Self::push`], for the image that is number `place` in its source.
    pub(super) fn push_as(&mut self, row: u64, name: &str, place: u64, image: Image) {
        if self.len() == 0 {
            self.first_row = row;
        }
        let ordinal = u32::try_from(self.len()).unwrap_or(u32::MAX);
        match image {
            Ok(image) => {
                let (weight, pixels) = self.weigh(&image);
                self.weight += weight;
                self.pixels += pixels;
                self.stored += image.len() as u64;
                self.names.push(name.to_owned());
                self.rows.push(place);
                self.images.push(image);
                self.origin.push(ordinal);
            }
            Err((code, reason)) => {
                let reason = format!("{name}: {reason}");
                self.rejects.push(Reject { ordinal, code, reason, record: None });
            }
        }
    }

    /// Hands the batch over, if there is anything in it, and begins the next. `false`: nobody wants more.
    pub(super) fn send(&mut self, split: &Arc<Split>, sender: &BatchSender) -> Result<bool, StageError> {
        if self.len() == 0 {
            return Ok(true);
        }
        let rows = self.first_row..self.first_row + self.len() as u64;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&self.names)),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.rows))),
            Arc::new(BinaryArray::from_iter_values(&self.images)),
        ];
        let batch = Batch {
            records: RecordBatch::try_new(schema(), columns)?,
            origin: std::mem::take(&mut self.origin),
            provenance: Arc::new(Provenance::rows(Arc::clone(split), rows)),
        };
        let rejects = std::mem::take(&mut self.rejects);
        let pixels = std::mem::take(&mut self.pixels);
        (self.weight, self.stored) = (0, 0);
        self.names.clear();
        self.images.clear();
        Ok(sender.send(SourceBatch { batch, rejects, pixels }))
    }
}
