//! The marker segments before and between the scans.

use std::sync::Arc;

use crate::error::Error;
use crate::frame::{Frame, Scan};
use crate::huffman::HuffmanTable;
use crate::markers::{APP0, APP14, DHT, DNL, DQT, DRI, EOI, MarkerSegments, SOF2, SOI, SOS};
use crate::{ColorModel, Limits};

/// The tables for DC and AC coefficients, by their number.
#[derive(Clone, Default)]
pub(crate) struct HuffmanTables {
    pub(crate) dc: [Option<Arc<HuffmanTable>>; 4],
    pub(crate) ac: [Option<Arc<HuffmanTable>>; 4],
}

impl std::fmt::Debug for HuffmanTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HuffmanTables")
    }
}

/// The state after the segments that were read.
#[derive(Debug, Clone)]
pub(crate) struct Headers<'a> {
    pub(crate) frame: Frame,
    pub(crate) tables: HuffmanTables,
    /// The factors of coefficients in zigzag order.
    pub(crate) quantization: [Option<[u16; 64]>; 4],
    /// The number of MCUs of a restart interval; 0 for no restarts.
    pub(crate) restart: usize,
    /// The application segments before the first scan.
    pub(crate) app_segments: Vec<(u8, &'a [u8])>,
    /// Whether the first scan has all components.
    pub(crate) is_interleaved: bool,
    /// The offset after the last segment.
    at: usize,
    segments: usize,
    is_jfif: bool,
    /// The color transform of the Adobe segment.
    adobe: Option<u8>,
    /// The body of the header of the next scan.
    scan: Option<&'a [u8]>,
    pub(crate) scans: usize,
}

/// A scan with its entropy-coded data.
pub(crate) struct NextScan<'a> {
    pub(crate) scan: Scan,
    pub(crate) data: &'a [u8],
    /// The number of the scan, counted from 1.
    pub(crate) number: usize,
}

fn malformed(reason: &str) -> Error {
    Error::Malformed(reason.to_owned())
}

impl<'a> Headers<'a> {
    fn empty() -> Self {
        Self {
            frame: Frame {
                progressive: false,
                width: 0,
                height: 0,
                components: Vec::new(),
                max_sampling: (1, 1),
            },
            tables: HuffmanTables::default(),
            quantization: [None; 4],
            restart: 0,
            app_segments: Vec::new(),
            is_interleaved: true,
            at: 0,
            segments: 0,
            is_jfif: false,
            adobe: None,
            scan: None,
            scans: 0,
        }
    }

    /// Reads the segments up to the header of the first scan.
    pub(crate) fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, Error> {
        let mut headers = Self::empty();
        if !bytes.starts_with(&[0xff, SOI]) {
            return Err(malformed("it does not begin with a start marker"));
        }
        headers.advance(bytes, limits)?;
        let Some(scan) = headers.scan else {
            return Err(malformed("it has no scan"));
        };
        if headers.frame.components.is_empty() {
            return Err(malformed("its frame header is missing or invalid"));
        }
        headers.is_interleaved = usize::from(scan[0]) == headers.frame.components.len();
        if headers.frame.height == 0 {
            headers.frame.height = headers.lines_after_scan(bytes)?;
        }
        let pixels = headers.frame.width as u64 * headers.frame.height as u64;
        if pixels > limits.pixels {
            return Err(Error::TooLarge(format!(
                "it has {} x {} pixels, more than {}, the maximum",
                headers.frame.width, headers.frame.height, limits.pixels
            )));
        }
        Ok(headers)
    }

    /// Reads the frame header without the tables, whose preparation takes longer.
    pub(crate) fn read_frame(bytes: &'a [u8], limits: &Limits) -> Result<Frame, Error> {
        let mut headers = Self::empty();
        let mut segments = MarkerSegments::new(bytes, 0);
        while let Some((marker, body)) = segments.next() {
            headers.count_segment(limits)?;
            match marker {
                SOS | EOI if headers.frame.components.is_empty() => {
                    return Err(malformed("its frame header is missing or invalid"));
                }
                SOS => {
                    headers.at = segments.at;
                    headers.frame.height = headers.lines_after_scan(bytes)?;
                }
                DHT => {}
                0xc0..=0xcf => headers.add(marker, body)?,
                _ => {}
            }
            if headers.frame.height > 0 {
                return Ok(headers.frame);
            }
        }
        Err(headers.truncated(bytes))
    }

    /// # Errors
    /// If there are more segments than allowed.
    fn count_segment(&mut self, limits: &Limits) -> Result<(), Error> {
        self.segments += 1;
        if self.segments > limits.segments {
            return Err(Error::TooLarge(format!(
                "it has more than {} segments, the maximum",
                limits.segments
            )));
        }
        Ok(())
    }

    /// The number of lines of a DNL segment, which follows the first scan.
    fn lines_after_scan(&self, bytes: &'a [u8]) -> Result<usize, Error> {
        let mut segments = MarkerSegments::new(bytes, self.at);
        let found = segments
            .skip_entropy_coded_data()
            .and_then(|_| segments.next());
        match found {
            Some((DNL, &[high, low])) if (high, low) != (0, 0) => {
                Ok(u16::from_be_bytes([high, low]).into())
            }
            Some(_) => Err(malformed("it has no number of lines (DNL segment)")),
            None => Err(self.truncated(bytes)),
        }
    }

    /// Reads segments up to the header of the next scan, or to the end of the image.
    fn advance(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<(), Error> {
        self.scan = None;
        let mut segments = MarkerSegments::new(bytes, self.at);
        loop {
            let Some((marker, body)) = segments.next() else {
                return Err(self.truncated(bytes));
            };
            self.at = segments.at;
            self.count_segment(limits)?;
            match marker {
                EOI => return Ok(()),
                SOS if body.is_empty() => return Err(malformed("the header of a scan is invalid")),
                SOS => {
                    self.scan = Some(body);
                    return Ok(());
                }
                _ => self.add(marker, body)?,
            }
        }
    }

    /// The next scan; `None` at the end of the image.
    ///
    /// # Errors
    /// If the file is truncated or malformed, or the image ends before all of its scans are complete.
    pub(crate) fn next_scan(
        &mut self,
        bytes: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<NextScan<'a>>, Error> {
        let Some(body) = self.scan else {
            return match self.frame.is_complete() {
                true => Ok(None),
                false => Err(Error::Truncated {
                    bytes: bytes.len(),
                    place: "before all of its scans are complete".to_owned(),
                }),
            };
        };
        self.scans += 1;
        if self.scans > limits.scans {
            return Err(Error::TooLarge(format!(
                "it has more than {} scans, the maximum",
                limits.scans
            )));
        }
        let scan = Scan::parse(body, &mut self.frame)?;
        let has_table = |index: usize| {
            let table = self
                .quantization
                .get(self.frame.components[index].quantization);
            table.is_some_and(Option::is_some)
        };
        if !scan.components.iter().all(|part| has_table(part.index)) {
            return Err(malformed("a quantization table is missing"));
        }
        let mut segments = MarkerSegments::new(bytes, self.at);
        let data = segments
            .skip_entropy_coded_data()
            .ok_or_else(|| self.truncated(bytes))?;
        self.at = segments.at;
        Ok(Some(NextScan {
            scan,
            data,
            number: self.scans,
        }))
    }

    /// Reads the segments after a scan.
    pub(crate) fn end_scan(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<(), Error> {
        self.advance(bytes, limits)
    }

    fn truncated(&self, bytes: &[u8]) -> Error {
        Error::Truncated {
            bytes: bytes.len(),
            place: match self.scans {
                0 => "before its first scan".to_owned(),
                scan => format!("in the middle of scan {scan}"),
            },
        }
    }

    fn add(&mut self, marker: u8, body: &'a [u8]) -> Result<(), Error> {
        match marker {
            0xc0..=0xc2 => self.define_frame(marker, body)?,
            0xc3 | 0xc5..=0xc7 => {
                return Err(Error::Unsupported(
                    "it is lossless or hierarchical".to_owned(),
                ));
            }
            0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(Error::Unsupported("it is arithmetic-coded".to_owned()));
            }
            DHT => self
                .define_tables(body)
                .ok_or_else(|| malformed("a Huffman table is invalid"))?,
            DQT => self
                .define_quantization(body)
                .ok_or_else(|| malformed("a quantization table is invalid"))?,
            DRI => match *body {
                [high, low] => self.restart = u16::from_be_bytes([high, low]).into(),
                _ => return Err(malformed("its restart interval is invalid")),
            },
            APP0 if self.scans == 0 => {
                self.is_jfif |= body.starts_with(b"JFIF\0") && body.len() >= 12;
            }
            APP14 if body.starts_with(b"Adobe") && body.len() >= 12 => self.adobe = Some(body[11]),
            _ => {}
        }
        if marker & 0xf0 == 0xe0 && self.scans == 0 {
            self.app_segments.push((marker, body));
        }
        Ok(())
    }

    fn define_frame(&mut self, marker: u8, body: &[u8]) -> Result<(), Error> {
        if !self.frame.components.is_empty() {
            return Err(malformed("it has two frame headers"));
        }
        match body.first() {
            Some(8) => {}
            Some(12) => {
                return Err(Error::Unsupported("it has 12 bits per sample".to_owned()));
            }
            _ => return Err(malformed("its frame header is missing or invalid")),
        }
        self.frame = Frame::parse(body, marker == SOF2)?;
        Ok(())
    }

    /// Adds the quantization tables of a segment; returns `None` if one is invalid.
    fn define_quantization(&mut self, body: &[u8]) -> Option<()> {
        let mut rest = body;
        while let Some((&place, after)) = rest.split_first() {
            let mut table = [0; 64];
            let width = match place >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let (values, next) = after.split_at_checked(64 * width)?;
            for (factor, value) in table.iter_mut().zip(values.chunks_exact(width)) {
                *factor = value
                    .iter()
                    .fold(0, |high, &low| high << 8 | u16::from(low));
            }
            *self.quantization.get_mut(usize::from(place & 15))? = Some(table);
            rest = next;
        }
        Some(())
    }

    /// Adds the Huffman tables of a segment; returns `None` if one is invalid.
    fn define_tables(&mut self, body: &[u8]) -> Option<()> {
        let mut rest = body;
        while let Some((&place, after)) = rest.split_first() {
            let counts = after.get(..16)?;
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (definition, next) = after.split_at_checked(16 + symbols)?;
            let tables = match place >> 4 {
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(place & 15))? = Some(HuffmanTable::cached(definition)?);
            rest = next;
        }
        Some(())
    }

    /// The meaning of the components, by the rules of libjpeg.
    pub(crate) fn color_model(&self) -> ColorModel {
        let ids: Vec<u8> = self.frame.components.iter().map(|part| part.id).collect();
        match (ids.as_slice(), self.adobe) {
            ([_], _) => ColorModel::Gray,
            ([_, _, _], _) if self.is_jfif => ColorModel::YCbCr,
            ([_, _, _], Some(transform)) => match transform {
                0 => ColorModel::Rgb,
                _ => ColorModel::YCbCr,
            },
            ([b'R', b'G', b'B'], None) => ColorModel::Rgb,
            ([_, _, _], None) => ColorModel::YCbCr,
            ([_, _, _, _], Some(transform)) if transform != 0 => ColorModel::Ycck,
            ([_, _, _, _], _) => ColorModel::Cmyk,
            _ => ColorModel::Gray,
        }
    }
}
