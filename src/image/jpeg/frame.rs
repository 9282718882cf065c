//! The headers of JPEG frames and scans (ITU-T T.81, B.2.2 and B.2.3), and the order of blocks.

use super::entropy::EntropyError;

/// The maximum number of blocks of an MCU (T.81, B.2.3).
const MAX_BLOCKS_PER_MCU: usize = 10;

/// A frame: the image with its components.
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// The largest sampling factors of the components.
    max_sampling: (usize, usize),
}

/// A component of a frame, such as luma.
pub(super) struct Component {
    pub(super) id: u8,
    /// The number of the quantization table.
    pub(super) quantization: usize,
    /// The horizontal and the vertical sampling factor.
    pub(super) sampling: (usize, usize),
    /// The number of columns and rows of blocks that have samples of the image.
    blocks: (usize, usize),
    /// The number of blocks of a row, including those that complete the last MCU.
    pub(super) stride: usize,
    /// The number of rows of blocks, including those that complete the last MCU.
    pub(super) padded_rows: usize,
    /// For each coefficient, the number of low bits that are still missing; [`ABSENT`] if all are.
    missing: [u8; 64],
}

const ABSENT: u8 = u8::MAX;

impl Frame {
    /// Parses the body of a frame header.
    pub(super) fn parse(body: &[u8], progressive: bool) -> Result<Self, String> {
        let invalid = || "its frame header is missing or invalid".to_owned();
        let (&[_, h1, h0, w1, w0, count], parts) = body.split_first_chunk().ok_or_else(invalid)?;
        let (width, height) = (
            usize::from(u16::from_be_bytes([w1, w0])),
            usize::from(u16::from_be_bytes([h1, h0])),
        );
        if !(1..=4).contains(&count) || parts.len() != 3 * usize::from(count) {
            return Err(invalid());
        }
        let factors = |part: &[u8]| (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        let mut max_sampling = (1, 1);
        for part in parts.chunks_exact(3) {
            let (across, down) = factors(part);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(format!(
                    "a component has the sampling factors {across} x {down}; both are 1 to 4"
                ));
            }
            max_sampling = (max_sampling.0.max(across), max_sampling.1.max(down));
        }
        let mcu = (
            width.div_ceil(8 * max_sampling.0),
            height.div_ceil(8 * max_sampling.1),
        );
        let component = |part: &[u8]| {
            let (across, down) = factors(part);
            Component {
                id: part[0],
                quantization: part[2].into(),
                sampling: (across, down),
                blocks: (
                    (width * across).div_ceil(8 * max_sampling.0),
                    (height * down).div_ceil(8 * max_sampling.1),
                ),
                stride: mcu.0 * across,
                padded_rows: mcu.1 * down,
                missing: [ABSENT; 64],
            }
        };
        Ok(Self {
            progressive,
            width,
            height,
            components: parts.chunks_exact(3).map(component).collect(),
            max_sampling,
        })
    }

    /// The number of columns and rows of the MCUs of a scan.
    pub(super) fn mcus(&self, scan: &Scan) -> (usize, usize) {
        match &scan.components[..] {
            [only] => self.components[only.index].blocks,
            _ => (
                self.width.div_ceil(8 * self.max_sampling.0),
                self.height.div_ceil(8 * self.max_sampling.1),
            ),
        }
    }

    /// Calls `visit` with each block of an MCU: the number of its component in the scan, and the
    /// index of the block in the component.
    pub(super) fn for_each_block(
        &self,
        scan: &Scan,
        mcu: usize,
        mut visit: impl FnMut(usize, usize) -> Result<(), EntropyError>,
    ) -> Result<(), EntropyError> {
        let (columns, _) = self.mcus(scan);
        let (x, y) = (mcu % columns, mcu / columns);
        if let [only] = &scan.components[..] {
            return visit(0, y * self.components[only.index].stride + x);
        }
        for (number, member) in scan.components.iter().enumerate() {
            let component = &self.components[member.index];
            let (across, down) = component.sampling;
            for row in y * down..(y + 1) * down {
                for column in x * across..(x + 1) * across {
                    visit(number, row * component.stride + column)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the first component has the finest sampling, which is a multiple of the others.
    pub(super) fn has_common_sampling(&self) -> bool {
        let [(across, down), rest @ ..] = &self
            .components
            .iter()
            .map(|part| part.sampling)
            .collect::<Vec<_>>()[..]
        else {
            return false;
        };
        let divides = rest
            .iter()
            .all(|(column, row)| across % column == 0 && down % row == 0);
        // The decoder upsamples columns by powers of two only, by 4 only if all other components are
        // alike, and rows by 4 only in one step.
        rest.is_empty()
            || divides
                && (*across <= 2 || *across == 4 && rest.iter().all(|part| *part == rest[0]))
                && (*down != 4 || rest.iter().all(|part| part.1 != 2))
    }

    /// Whether the scans so far contain all bits of all coefficients.
    pub(super) fn is_complete(&self) -> bool {
        self.components
            .iter()
            .all(|component| component.missing == [0; 64])
    }
}

/// A scan: some of the coefficients of some components.
pub(super) struct Scan {
    pub(super) components: Vec<ScanComponent>,
    /// The first and the last coefficient in zigzag order.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Whether the scan adds a bit to coefficients of an earlier scan.
    pub(super) is_refinement: bool,
}

/// A component of a scan.
pub(super) struct ScanComponent {
    /// The index of the component in the frame.
    pub(super) index: usize,
    /// The numbers of the Huffman tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
    pub(super) blocks_per_mcu: usize,
}

impl Scan {
    /// Parses the body of a scan header, and records its coefficients in the frame.
    pub(super) fn parse(body: &[u8], frame: &mut Frame) -> Result<Self, String> {
        let invalid = || "the header of a scan is invalid".to_owned();
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
                .position(|component| component.id == part[0])
                .filter(|&index| components.iter().all(|other| other.index != index))
                .ok_or_else(invalid)?;
            let (across, down) = frame.components[index].sampling;
            components.push(ScanComponent {
                index,
                dc: usize::from(part[1] >> 4),
                ac: usize::from(part[1] & 15),
                blocks_per_mcu: if count == 1 { 1 } else { across * down },
            });
        }
        let blocks: usize = components.iter().map(|part| part.blocks_per_mcu).sum();
        if components.iter().any(|part| part.dc > 3 || part.ac > 3) || components.is_empty() {
            return Err(invalid());
        }
        if blocks > MAX_BLOCKS_PER_MCU {
            return Err(format!(
                "a scan has {blocks} blocks in an MCU, more than {MAX_BLOCKS_PER_MCU}, the maximum"
            ));
        }
        let (first, last, high, low) = match frame.progressive {
            true => (first, last, bits >> 4, bits & 15),
            false => (0, 63, 0, 0),
        };
        let is_band = first > 0 && first <= last && last < 64 && count == 1;
        if frame.progressive && !((first, last) == (0, 0) || is_band) || low > 13 {
            return Err(invalid());
        }
        for part in &components {
            let missing = &mut frame.components[part.index].missing;
            for left in &mut missing[usize::from(first)..=usize::from(last)] {
                let expected = if high == 0 { ABSENT } else { high };
                if *left != expected || high > 0 && low + 1 != high {
                    return Err("its scans repeat or skip bits of coefficients".to_owned());
                }
                *left = low;
            }
        }
        Ok(Self {
            components,
            first: first.into(),
            last: last.into(),
            is_refinement: high > 0,
        })
    }
}
