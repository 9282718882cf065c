//! The check of a JPEG before it is decoded: its markers, its scans, and their entropy-coded data.

use image::metadata::Orientation;

use super::entropy::{EntropyChecker, EntropyError, HuffmanTables};
use super::frame::{Frame, Scan};
use super::huffman::HuffmanTable;
use super::markers::{APP0, APP1, APP14, DHT, DQT, DRI, EOI, MarkerSegments, SOF0, SOF2, SOI, SOS};
use crate::image::error::ImageError;
use crate::image::exif_orientation::{XMP_IN_JPEG, find_orientation};
use crate::image::probe::ImageFormat;

/// Maximum number of scans of an image: progressive encoders write about 10, and each costs a pass
/// over all coefficients.
pub(in crate::image) const MAX_SCANS: usize = 64;
/// Maximum number of segments of a file: the largest profiles and depth maps take a few hundred.
const MAX_SEGMENTS: usize = 2048;

/// A complete JPEG whose entropy-coded data is valid.
pub(in crate::image) struct CheckedJpeg<'a> {
    pub(in crate::image) orientation: Orientation,
    /// The segments that decoding depends on, in their order.
    segments: Vec<Segment<'a>>,
    frame: Frame,
    scans: usize,
    colors: Colors,
}

/// A marker segment, with the data of the scan that follows it.
struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
    data: &'a [u8],
}

/// The application segments that state the meaning of the components.
#[derive(Default)]
struct Colors {
    is_jfif: bool,
    /// The color transform of the Adobe segment.
    adobe: Option<u8>,
}

/// Checks that the image has an end marker, all of its scans, and all of their blocks, and bounds
/// the cost of its decoding.
///
/// # Errors
/// If the image is not valid and complete. Bytes between the segments of a header are not an error.
pub(in crate::image) fn check(bytes: &[u8]) -> Result<CheckedJpeg<'_>, ImageError> {
    let mut walk = MarkerWalk {
        bytes,
        kept: Vec::new(),
        frame: None,
        tables: HuffmanTables::default(),
        quantization: [false; 4],
        checker: EntropyChecker::default(),
        restart: 0,
        scans: 0,
        colors: Colors::default(),
        exif: None,
        xmp: None,
    };
    let mut segments = MarkerSegments::new(bytes);
    for count in 0.. {
        let Some((marker, body)) = segments.next() else {
            break;
        };
        if count >= MAX_SEGMENTS {
            return Err(ImageError::TooLarge(format!(
                "JPEG has more than {MAX_SEGMENTS} segments, the maximum"
            )));
        }
        if marker == EOI {
            return walk.finish();
        }
        walk.add(marker, body, &mut segments)?;
    }
    let position = match walk.scans {
        0 => "before its first scan".to_owned(),
        scan => format!("in the middle of scan {scan}"),
    };
    Err(ImageError::truncated(ImageFormat::Jpeg, bytes, &position))
}

/// The state of a check between two segments.
struct MarkerWalk<'a> {
    bytes: &'a [u8],
    kept: Vec<Segment<'a>>,
    frame: Option<Frame>,
    tables: HuffmanTables,
    /// Whether each quantization table is defined.
    quantization: [bool; 4],
    checker: EntropyChecker,
    /// The number of MCUs of a restart interval.
    restart: usize,
    scans: usize,
    colors: Colors,
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> MarkerWalk<'a> {
    fn add(
        &mut self,
        marker: u8,
        body: &'a [u8],
        segments: &mut MarkerSegments<'a>,
    ) -> Result<(), ImageError> {
        let malformed = |reason: String| ImageError::malformed(ImageFormat::Jpeg, reason);
        let mut data: &[u8] = &[];
        match marker {
            SOF0..=SOF2 => {
                if self.frame.is_some() {
                    return Err(malformed("it has two frame headers".to_owned()));
                }
                let frame = Frame::parse(body, marker == SOF2).map_err(malformed)?;
                self.frame = Some(frame);
            }
            SOS => {
                data = self.check_scan(body, segments)?;
            }
            DHT => self
                .define_tables(body)
                .ok_or_else(|| malformed("a Huffman table is invalid".to_owned()))?,
            DRI => match *body {
                [high, low] => self.restart = u16::from_be_bytes([high, low]).into(),
                _ => return Err(malformed("its restart interval is invalid".to_owned())),
            },
            DQT => self
                .define_quantization(body)
                .ok_or_else(|| malformed("a quantization table is invalid".to_owned()))?,
            APP0 => self.colors.is_jfif |= body.starts_with(b"JFIF\0") && body.len() >= 12,
            APP14 if body.starts_with(b"Adobe") && body.len() >= 12 => {
                self.colors.adobe = Some(body[11]);
            }
            // Further segments continue the first one, which has the orientation.
            APP1 if body.starts_with(b"Exif\0\0") => self.exif = self.exif.or(Some(body)),
            APP1 if body.starts_with(XMP_IN_JPEG) => self.xmp = Some(body),
            _ => {}
        }
        if matches!(marker, SOF0..=SOF2 | SOS | DHT | DRI | DQT) {
            self.kept.push(Segment { marker, body, data });
        }
        Ok(())
    }

    /// Adds the quantization tables of a segment; returns `None` if one is invalid.
    fn define_quantization(&mut self, body: &[u8]) -> Option<()> {
        let mut rest = body;
        while let Some((&place, after)) = rest.split_first() {
            let length = match place >> 4 {
                0 => 64,
                1 => 128,
                _ => return None,
            };
            *self.quantization.get_mut(usize::from(place & 15))? = true;
            rest = after.get(length..)?;
        }
        Some(())
    }

    /// Adds the Huffman tables of a segment; returns `None` if one is invalid.
    fn define_tables(&mut self, body: &[u8]) -> Option<()> {
        let mut rest = body;
        while !rest.is_empty() {
            let (&place, after) = rest.split_first()?;
            let (counts, symbols) = after.split_first_chunk::<16>()?;
            let count = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, next) = symbols.split_at_checked(count)?;
            let tables = match place >> 4 {
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(place & 15))? = Some(HuffmanTable::new(counts, symbols)?);
            rest = next;
        }
        Some(())
    }

    /// Checks a scan and returns its entropy-coded data.
    fn check_scan(
        &mut self,
        body: &[u8],
        segments: &mut MarkerSegments<'a>,
    ) -> Result<&'a [u8], ImageError> {
        let malformed = |reason: String| ImageError::malformed(ImageFormat::Jpeg, reason);
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(ImageError::TooLarge(format!(
                "JPEG has more than {MAX_SCANS} scans, the maximum"
            )));
        }
        let number = self.scans;
        let frame = self
            .frame
            .as_mut()
            .ok_or_else(|| malformed("its frame header is missing or invalid".to_owned()))?;
        let scan = Scan::parse(body, frame).map_err(malformed)?;
        let has_table = |index: usize| {
            let table = frame.components[index].quantization;
            self.quantization.get(table) == Some(&true)
        };
        if !scan.components.iter().all(|part| has_table(part.index)) {
            return Err(malformed("a quantization table is missing".to_owned()));
        }
        let Some(data) = segments.skip_entropy_coded_data() else {
            let position = format!("in the middle of scan {number}");
            return Err(ImageError::truncated(
                ImageFormat::Jpeg,
                self.bytes,
                &position,
            ));
        };
        self.checker
            .check(frame, &scan, &mut self.tables, self.restart, data)
            .map_err(|error: EntropyError| {
                malformed(format!("scan {number} is corrupt: {error}"))
            })?;
        Ok(data)
    }

    fn finish(self) -> Result<CheckedJpeg<'a>, ImageError> {
        let Some(frame) = self.frame.filter(Frame::is_complete) else {
            return Err(ImageError::truncated(
                ImageFormat::Jpeg,
                self.bytes,
                "before all of its scans are complete",
            ));
        };
        Ok(CheckedJpeg {
            orientation: find_orientation(self.exif, self.xmp),
            segments: self.kept,
            frame,
            scans: self.scans,
            colors: self.colors,
        })
    }
}

impl CheckedJpeg<'_> {
    /// The number of columns and rows.
    pub(in crate::image) fn size(&self) -> (usize, usize) {
        (self.frame.width, self.frame.height)
    }

    /// Number of components.
    pub(in crate::image) fn components(&self) -> usize {
        self.frame.components.len()
    }

    /// Checks that the decoder supports the sampling factors and the scans: it decodes some others
    /// wrongly.
    ///
    /// # Errors
    /// [`ImageError::Unsupported`] if it does not.
    pub(in crate::image) fn check_sampling(&self) -> Result<(), ImageError> {
        let unsupported = |reason: String| Err(ImageError::unsupported(ImageFormat::Jpeg, reason));
        if !self.frame.has_common_sampling() {
            let factors = self.frame.components.iter().map(|component| {
                let (across, down) = component.sampling;
                format!("{across}x{down}")
            });
            let factors: Vec<String> = factors.collect();
            return unsupported(format!(
                "its components have the sampling factors {}; the first one must have the largest, \
                 and the others must divide them",
                factors.join(", ")
            ));
        }
        let count = self.frame.components.len();
        let is_flat = self
            .frame
            .components
            .iter()
            .all(|part| part.sampling.1 == 1);
        if !self.frame.progressive && self.scans > 1 && !(self.scans == count && is_flat) {
            return unsupported(format!(
                "its {count} components are in {} scans; the components of a baseline image must \
                 be in one scan",
                self.scans
            ));
        }
        Ok(())
    }

    /// The image without the segments that decoding does not depend on, with the colors stated in
    /// the only way that the decoder reads.
    pub(super) fn stream(&self) -> Vec<u8> {
        let lengths = self
            .segments
            .iter()
            .map(|part| part.body.len() + part.data.len() + 4);
        let mut stream = Vec::with_capacity(lengths.sum::<usize>() + 20);
        stream.extend([0xff, SOI]);
        if let Some(transform) = self.transform() {
            stream.extend([0xff, APP14, 0, 14]);
            stream.extend(b"Adobe\0\x64\0\0\0\0");
            stream.push(transform);
        }
        for Segment { marker, body, data } in &self.segments {
            // The length of a body has 16 bits in the file, too.
            let [.., high, low] = (body.len() + 2).to_be_bytes();
            stream.extend([0xff, *marker, high, low]);
            stream.extend_from_slice(body);
            if matches!(*marker, SOF0..=SOF2) && self.frame.components.len() == 1 {
                // The sampling factors of an only component have no meaning, but the decoder uses
                // them. They are before the number of the quantization table.
                let at = stream.len() - 2;
                stream[at] = 0x11;
            }
            stream.extend_from_slice(data);
        }
        stream.extend([0xff, EOI]);
        stream
    }

    /// The color transform of the Adobe segment for the decoder, according to the rules of libjpeg
    /// for the segments of the file.
    fn transform(&self) -> Option<u8> {
        match self.frame.components.len() {
            3 if self.colors.is_jfif => Some(1),
            3 => self.colors.adobe.map(|transform| transform.min(1)),
            4 => Some(match self.colors.adobe {
                None | Some(0) => 0,
                Some(_) => 2,
            }),
            _ => None,
        }
    }
}
