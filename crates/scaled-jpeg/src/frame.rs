//! The headers of frames and scans (ITU-T T.81, B.2.2 and B.2.3).

use crate::error::Error;

/// The maximum number of blocks of an MCU (T.81, B.2.3).
const MAX_BLOCKS_PER_MCU: usize = 10;

/// A frame: the image with its components.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) progressive: bool,
    pub(crate) width: usize,
    /// 0 until the number of lines is known from a DNL segment.
    pub(crate) height: usize,
    pub(crate) components: Vec<Component>,
    /// The largest sampling factors of the components.
    pub(crate) max_sampling: (usize, usize),
}

/// A component of a frame, such as luma.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) id: u8,
    /// The number of the quantization table.
    pub(crate) quantization: usize,
    /// The horizontal and the vertical sampling factor.
    pub(crate) sampling: (usize, usize),
    /// For each coefficient, the number of low bits that are still missing; [`ABSENT`] if all are.
    missing: [u8; 64],
}

const ABSENT: u8 = u8::MAX;

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed(reason.into())
}

impl Frame {
    /// Parses the body of a frame header with samples of 8 bits.
    pub(crate) fn parse(body: &[u8], progressive: bool) -> Result<Self, Error> {
        let invalid = || malformed("its frame header is missing or invalid");
        let (&[_, h1, h0, w1, w0, count], parts) = body.split_first_chunk().ok_or_else(invalid)?;
        let (width, height) = (
            usize::from(u16::from_be_bytes([w1, w0])),
            usize::from(u16::from_be_bytes([h1, h0])),
        );
        if !(1..=4).contains(&count) || parts.len() != 3 * usize::from(count) || width == 0 {
            return Err(invalid());
        }
        let mut components = Vec::new();
        let mut max_sampling = (1, 1);
        for part in parts.chunks_exact(3) {
            let (across, down) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(malformed(format!(
                    "a component has the sampling factors {across} x {down}; both are 1 to 4"
                )));
            }
            // The sampling factors of an only component have no meaning.
            let sampling = if count == 1 { (1, 1) } else { (across, down) };
            max_sampling = (
                max_sampling.0.max(sampling.0),
                max_sampling.1.max(sampling.1),
            );
            components.push(Component {
                id: part[0],
                quantization: part[2].into(),
                sampling,
                missing: [ABSENT; 64],
            });
        }
        Ok(Self {
            progressive,
            width,
            height,
            components,
            max_sampling,
        })
    }

    /// The number of columns and rows of MCUs of all components.
    pub(crate) fn mcus(&self) -> (usize, usize) {
        (
            self.width.div_ceil(8 * self.max_sampling.0),
            self.height.div_ceil(8 * self.max_sampling.1),
        )
    }

    /// The number of columns and rows of blocks of a component that have samples of the image.
    pub(crate) fn blocks(&self, component: &Component) -> (usize, usize) {
        let (across, down) = component.sampling;
        (
            (self.width * across).div_ceil(8 * self.max_sampling.0),
            (self.height * down).div_ceil(8 * self.max_sampling.1),
        )
    }

    /// The number of columns and rows of blocks, with those that complete the last MCUs.
    pub(crate) fn padded_blocks(&self, component: &Component) -> (usize, usize) {
        let (columns, rows) = self.mcus();
        (columns * component.sampling.0, rows * component.sampling.1)
    }

    /// Whether the scans so far contain all bits of all coefficients.
    pub(crate) fn is_complete(&self) -> bool {
        self.components
            .iter()
            .all(|component| component.missing == [0; 64])
    }
}

/// A scan: some of the coefficients of some components.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) components: Vec<ScanComponent>,
    /// The first and the last coefficient in zigzag order.
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// Whether the scan adds a bit to coefficients of an earlier scan.
    pub(crate) is_refinement: bool,
    /// The position of the lowest bit of the scan.
    pub(crate) low: u32,
}

/// A component of a scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanComponent {
    /// The index of the component in the frame.
    pub(crate) index: usize,
    /// The numbers of the Huffman tables.
    pub(crate) dc: usize,
    pub(crate) ac: usize,
    /// The number of columns and rows of its blocks in an MCU of the scan.
    pub(crate) blocks: (usize, usize),
}

impl Scan {
    /// Parses the body of a scan header, and records its coefficients in the frame.
    pub(crate) fn parse(body: &[u8], frame: &mut Frame) -> Result<Self, Error> {
        let invalid = || malformed("the header of a scan is invalid");
        let (&count, rest) = body.split_first().ok_or_else(invalid)?;
        let (parts, parameters) = rest
            .split_at_checked(2 * usize::from(count))
            .ok_or_else(invalid)?;
        let &[first, last, bits] = parameters else {
            return Err(invalid());
        };
        let mut components: Vec<ScanComponent> = Vec::new();
        for part in parts.chunks_exact(2) {
            let index = frame
                .components
                .iter()
                .position(|component| component.id == part[0]);
            let is_new = |&index: &usize| components.iter().all(|other| other.index != index);
            let index = index.filter(is_new).ok_or_else(invalid)?;
            components.push(ScanComponent {
                index,
                dc: usize::from(part[1] >> 4),
                ac: usize::from(part[1] & 15),
                blocks: if count == 1 {
                    (1, 1)
                } else {
                    frame.components[index].sampling
                },
            });
        }
        if components.iter().any(|part| part.dc > 3 || part.ac > 3) || components.is_empty() {
            return Err(invalid());
        }
        let blocks: usize = components
            .iter()
            .map(|part| part.blocks.0 * part.blocks.1)
            .sum();
        if blocks > MAX_BLOCKS_PER_MCU {
            return Err(malformed(format!(
                "a scan has {blocks} blocks in an MCU, more than {MAX_BLOCKS_PER_MCU}, the maximum"
            )));
        }
        let (first, last, high, low) = match frame.progressive {
            true => (usize::from(first), usize::from(last), bits >> 4, bits & 15),
            false => (0, 63, 0, 0),
        };
        let is_band = first > 0 && first <= last && last < 64 && count == 1;
        if frame.progressive && !((first, last) == (0, 0) || is_band) || low > 13 {
            return Err(invalid());
        }
        for part in &components {
            for left in &mut frame.components[part.index].missing[first..=last] {
                let expected = if high == 0 { ABSENT } else { high };
                if *left != expected || high > 0 && low + 1 != high {
                    return Err(malformed("its scans repeat or skip bits of coefficients"));
                }
                *left = low;
            }
        }
        Ok(Self {
            components,
            first,
            last,
            is_refinement: high > 0,
            low: low.into(),
        })
    }
}
