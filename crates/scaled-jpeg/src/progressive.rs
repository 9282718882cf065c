//! Images with several scans, whose coefficients are kept until the last one.

use crate::Limits;
use crate::bit_reader::EntropyData;
use crate::block_reader::{BlockReader, DifferenceReader};
use crate::error::{Error, ScanError};
use crate::frame::{Scan, ScanComponent};
use crate::headers::{Headers, NextScan};
use crate::idct::{Block, positions, used};
use crate::row_output::RowOutput;
use crate::scan_blocks::{
    AcRefinement, BlockPart, DcRefinement, FirstAc, FirstDc, ScanBlocks, WholeBlocks,
};
use crate::sequential::{Restart, arrange, write_block};
use crate::simd::Vectors;

/// The coefficients of a component.
struct Coefficients {
    /// The number of blocks of a row.
    columns: usize,
    /// The number of coefficients of a block that are kept, in the order of a [`Block`]; 0 for a
    /// component that the output does not depend on.
    kept: usize,
    /// For each place in zigzag order, the index of its coefficient.
    positions: &'static [u8; 64],
    /// The last place in zigzag order whose coefficient is kept.
    last_place: usize,
    values: Vec<i16>,
    /// For each block, a bit for each coefficient that is not zero, since the length of a refinement
    /// depends on them.
    nonzero: Vec<u64>,
}

impl Coefficients {
    /// Whether a coefficient of these places in zigzag order is kept.
    fn keeps(&self, first: usize, last: usize) -> bool {
        self.positions[first..=last]
            .iter()
            .any(|position| usize::from(*position) < self.kept)
    }

    /// The values of a block, and its bits.
    #[inline(always)]
    fn block(&mut self, index: usize) -> BlockPart<'_> {
        BlockPart {
            values: &mut self.values[index * self.kept..(index + 1) * self.kept],
            positions: self.positions,
            last_place: self.last_place,
            nonzero: &mut self.nonzero[index],
        }
    }
}

/// Decodes the image.
///
/// # Errors
/// If it is truncated or corrupt.
#[inline(always)]
pub(crate) fn decode<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    mut headers: Headers<'a>,
    output: &mut RowOutput<'_>,
    vectors: impl Vectors,
) -> Result<(), Error> {
    let coefficients = output.planes.iter().map(|plane| {
        let (columns, rows) = plane.plan.blocks;
        let kept = if plane.plan.is_used {
            used(plane.plan.side)
        } else {
            0
        };
        Coefficients {
            columns,
            kept,
            positions: positions(plane.plan.side),
            last_place: match plane.plan.is_used {
                true => plane.plan.last_place,
                false => 0,
            },
            values: vec![0; columns * rows * kept],
            nonzero: vec![0; columns * rows],
        }
    });
    let mut coefficients: Vec<Coefficients> = coefficients.collect();
    // The factors are those of the first scan of a component.
    let mut factors: Vec<Option<[u16; 64]>> = vec![None; coefficients.len()];
    let mut buffer = Vec::new();
    while let Some(next) = headers.next_scan(bytes, limits)? {
        for part in &next.scan.components {
            let table = headers.frame.components[part.index].quantization;
            factors[part.index] = factors[part.index].or(headers.quantization[table]);
        }
        let mut data = EntropyData::new(next.data, buffer);
        decode_scan(&headers, &next, &mut data, &mut coefficients)
            .map_err(|error| error.in_scan(next.number))?;
        buffer = data.into_buffer();
        headers.end_scan(bytes, limits)?;
    }
    let (_, rows) = headers.frame.mcus();
    for row in 0..rows {
        for (index, component) in coefficients.iter().enumerate() {
            let factors = factors[index].unwrap_or([0; 64]);
            write_row(component, &factors, row, index, output, vectors);
        }
        output.end_mcu_row(row + 1 == rows);
    }
    Ok(())
}

/// Transforms the blocks of a component in a row of MCUs.
#[inline(always)]
fn write_row(
    component: &Coefficients,
    factors: &[u16; 64],
    row: usize,
    index: usize,
    output: &mut RowOutput<'_>,
    vectors: impl Vectors,
) {
    let plan = &output.planes[index].plan;
    if !plan.is_used {
        return;
    }
    let (side, down) = (plan.side, plan.sampling.1);
    let factors = arrange(factors, side);
    let (samples, stride) = output.samples(index);
    let mut block = Block([0; 64]);
    for y in 0..down {
        let first = (row * down + y) * component.columns;
        for x in 0..component.columns {
            let at = first + x;
            let values = &component.values[at * component.kept..(at + 1) * component.kept];
            block.0[..component.kept].copy_from_slice(values);
            write_block(
                vectors,
                &block,
                &factors,
                component.nonzero[at] == 0,
                side,
                &mut samples[y * side * stride + x * side..],
                stride,
            );
        }
    }
}

/// Reads the blocks of a scan.
#[inline(always)]
fn decode_scan(
    headers: &Headers<'_>,
    next: &NextScan<'_>,
    data: &mut EntropyData<'_>,
    coefficients: &mut [Coefficients],
) -> Result<(), ScanError> {
    let scan = &next.scan;
    let missing = ScanError::MissingTable;
    let dc = |part: &ScanComponent| headers.tables.dc[part.dc].as_deref().ok_or(missing);
    let ac = |part: &ScanComponent| headers.tables.ac[part.ac].as_deref().ok_or(missing);
    let area = Area::new(headers, scan);
    if !headers.frame.progressive {
        let reader = |part: &ScanComponent| {
            let last = coefficients[part.index].last_place;
            Ok(BlockReader::new(dc(part)?, ac(part)?, last))
        };
        let readers: Result<Vec<_>, ScanError> = scan.components.iter().map(reader).collect();
        return area.read(&mut WholeBlocks::new(readers?), data, coefficients);
    }
    let [first_part, ..] = scan.components.as_slice() else {
        return Err(missing);
    };
    // A band that is not kept is checked, and its coefficients that are not zero are marked.
    let is_kept = coefficients[first_part.index].keeps(scan.first, scan.last);
    match (scan.first, scan.is_refinement, is_kept) {
        (0, true, _) => area.read(&mut DcRefinement { low: scan.low }, data, coefficients),
        (0, false, _) => {
            let reader = |part: &ScanComponent| Ok(DifferenceReader::new(dc(part)?));
            let readers: Result<Vec<_>, ScanError> = scan.components.iter().map(reader).collect();
            area.read(&mut FirstDc::new(readers?, scan.low), data, coefficients)
        }
        (_, false, true) => {
            let mut blocks = FirstAc::<true>::new(ac(first_part)?, scan);
            area.read(&mut blocks, data, coefficients)
        }
        (_, false, false) => {
            let mut blocks = FirstAc::<false>::new(ac(first_part)?, scan);
            area.read(&mut blocks, data, coefficients)
        }
        (_, true, true) => {
            let mut blocks = AcRefinement::<true>::new(ac(first_part)?, scan);
            area.read(&mut blocks, data, coefficients)
        }
        (_, true, false) => {
            let mut blocks = AcRefinement::<false>::new(ac(first_part)?, scan);
            area.read(&mut blocks, data, coefficients)
        }
    }
}

/// The MCUs of a scan.
struct Area<'h> {
    parts: &'h [ScanComponent],
    columns: usize,
    rows: usize,
    restart: usize,
}

impl<'h> Area<'h> {
    fn new(headers: &Headers<'_>, scan: &'h Scan) -> Self {
        let (columns, rows) = match scan.components.as_slice() {
            [only] => headers.frame.blocks(&headers.frame.components[only.index]),
            _ => headers.frame.mcus(),
        };
        Self {
            parts: &scan.components,
            columns,
            rows,
            restart: headers.restart,
        }
    }

    /// Reads the blocks, and checks the ends of the restart intervals.
    #[inline(always)]
    fn read(
        &self,
        blocks: &mut impl ScanBlocks,
        data: &mut EntropyData<'_>,
        coefficients: &mut [Coefficients],
    ) -> Result<(), ScanError> {
        let mut restart = Restart::new(self.restart);
        let mut bits = data.bits();
        for row in 0..self.rows {
            for column in 0..self.columns {
                if restart.is_due() {
                    if blocks.is_in_run() {
                        return Err(ScanError::RunPastScan);
                    }
                    restart.check(bits.has_rest(), data.end())?;
                    data.start_interval();
                    bits = data.bits();
                    blocks.restart();
                }
                if bits.needs_more() {
                    let state = bits.state();
                    bits = data.advance(state);
                }
                for (member, part) in self.parts.iter().enumerate() {
                    let component = &mut coefficients[part.index];
                    let (across, down) = part.blocks;
                    for y in row * down..(row + 1) * down {
                        for x in column * across..(column + 1) * across {
                            let block = component.block(y * component.columns + x);
                            blocks.read(member, block, &mut bits)?;
                        }
                    }
                }
                if bits.is_past_end() {
                    return Err(ScanError::EarlyEnd);
                }
                restart.left = restart.left.wrapping_sub(1);
            }
        }
        if blocks.is_in_run() {
            return Err(ScanError::RunPastScan);
        }
        let has_rest = bits.has_rest();
        restart.end(has_rest, data)
    }
}
