//! The marker segments of a JPEG (ITU-T T.81, annex B): what its decoder does not tell, or tells too late.

use crate::image::error::ImageError;
use crate::image::header::Format;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// Width and height by the frame header.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    for (marker, body) in Segments::new(bytes) {
        match (marker, body) {
            // SOF0 to SOF15 without DHT, JPG and DAC, which lie between them.
            (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, &[_, h1, h0, w1, w0, ..]) => {
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                if height == 0 {
                    return Err(ImageError::unsupported(Format::Jpeg, "its height is only given after its pixels"));
                }
                return Ok((width.into(), height.into()));
            }
            (SOS | EOI, _) => return Err(ImageError::malformed(Format::Jpeg, "it has no frame header")),
            _ => {}
        }
    }
    Err(ImageError::truncated(Format::Jpeg, bytes, "in its header"))
}

/// Walks from marker to marker, past the entropy-coded data of scans, until the end of the bytes.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Segments<'a> {
    /// The marker's second byte, and the body of its segment without the length.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += self.bytes.get(self.at..)?.iter().position(|&byte| byte == 0xff)? + 1;
            match *self.bytes.get(self.at)? {
                // Stuffing, fill bytes, TEM and restarts are part of what lies between segments.
                0x00 | 0x01 | 0xd0..=0xd7 | 0xff => {}
                marker @ (SOI | EOI) => {
                    self.at += 1;
                    return Some((marker, &[]));
                }
                marker => {
                    let length = self.bytes.get(self.at + 1..self.at + 3)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let body = self.bytes.get(self.at + 3..self.at + 1 + length.max(2))?;
                    self.at += 1 + length.max(2);
                    return Some((marker, body));
                }
            }
        }
    }
}
