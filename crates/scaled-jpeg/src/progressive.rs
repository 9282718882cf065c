//! Images with several scans, whose coefficients are kept until the last one.

use crate::Limits;
use crate::bit_reader::{BitReader, EntropyData};
use crate::error::{Error, ScanError};
use crate::frame::{Scan, ScanComponent};
use crate::headers::{Headers, HuffmanTables, NextScan};
use crate::huffman::{HuffmanTable, extend};
use crate::idct::{Block, positions, used};
use crate::row_output::RowOutput;
use crate::sequential::{Restart, arrange, write_block};
use crate::vectors::Vectors;

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

#[inline(always)]
fn decode_scan(
    headers: &Headers<'_>,
    next: &NextScan<'_>,
    data: &mut EntropyData<'_>,
    coefficients: &mut [Coefficients],
) -> Result<(), ScanError> {
    let scan = &next.scan;
    let (columns, rows) = match scan.components.as_slice() {
        [only] => headers.frame.blocks(&headers.frame.components[only.index]),
        _ => headers.frame.mcus(),
    };
    let mut restart = Restart::new(headers.restart);
    let mut reader = ScanReader {
        scan,
        tables: &headers.tables,
        is_progressive: headers.frame.progressive,
        last_dc: [0; 4],
        empty: 0,
    };
    let mut bits = data.bits();
    for row in 0..rows {
        for column in 0..columns {
            if restart.is_due() {
                if reader.empty > 0 {
                    return Err(ScanError::RunPastScan);
                }
                restart.check(bits.has_rest(), data.end())?;
                data.start_interval();
                bits = data.bits();
                reader.last_dc = [0; 4];
            }
            if bits.needs_more() {
                let state = bits.state();
                bits = data.advance(state);
            }
            for part in &scan.components {
                let component = &mut coefficients[part.index];
                let (across, down) = part.blocks;
                for y in row * down..(row + 1) * down {
                    for x in column * across..(column + 1) * across {
                        let index = y * component.columns + x;
                        let block = component.block(index);
                        reader.read(part, block, &mut bits)?;
                    }
                }
            }
            if bits.is_past_end() {
                return Err(ScanError::EarlyEnd);
            }
            restart.left = restart.left.wrapping_sub(1);
        }
    }
    if reader.empty > 0 {
        return Err(ScanError::RunPastScan);
    }
    let has_rest = bits.has_rest();
    restart.end(has_rest, data)
}

/// The kept coefficients of a block, and a bit for each that is not zero.
struct BlockPart<'c> {
    values: &'c mut [i16],
    positions: &'static [u8; 64],
    last_place: usize,
    nonzero: &'c mut u64,
}

impl BlockPart<'_> {
    /// The coefficient at a place in zigzag order, if it is kept.
    #[inline(always)]
    fn kept(&mut self, place: usize) -> Option<&mut i16> {
        let position = self.positions[place & 63];
        self.values.get_mut(usize::from(position))
    }

    #[inline(always)]
    fn set(&mut self, place: usize, value: i32) {
        *self.nonzero |= 1 << place;
        if let Some(kept) = self.kept(place) {
            // 16 bits hold every coefficient of a valid image.
            *kept = value as i16;
        }
    }
}

/// The state of a scan.
struct ScanReader<'h> {
    scan: &'h Scan,
    tables: &'h HuffmanTables,
    is_progressive: bool,
    /// The last DC coefficient of each component.
    last_dc: [i32; 4],
    /// The number of further blocks without new coefficients.
    empty: u32,
}

impl ScanReader<'_> {
    /// Reads the part of a block that is in the scan.
    #[inline(always)]
    fn read(
        &mut self,
        part: &ScanComponent,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let ac = self.tables.ac[part.ac]
            .as_deref()
            .ok_or(ScanError::MissingTable);
        match (self.scan.first, self.scan.is_refinement) {
            (0, true) => {
                let bit = bits.read(1) as i16;
                if let Some(dc) = block.values.first_mut() {
                    *dc |= bit << self.scan.low;
                }
                Ok(())
            }
            (0, false) => {
                let dc = self.tables.dc[part.dc]
                    .as_deref()
                    .ok_or(ScanError::MissingTable)?;
                let last = &mut self.last_dc[part.index];
                *last = last.wrapping_add(dc.difference(bits)?);
                if let Some(value) = block.values.first_mut() {
                    *value = last.wrapping_shl(self.scan.low) as i16;
                }
                if !self.is_progressive {
                    ac?.read_block(bits, block.last_place, |place, value| {
                        block.set(place, value)
                    })?;
                }
                Ok(())
            }
            (_, false) => self.read_first(ac?, block, bits),
            (_, true) => self.refine(ac?, block, bits),
        }
    }

    /// The first scan of AC coefficients.
    #[inline(always)]
    fn read_first(
        &mut self,
        table: &HuffmanTable,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let (mut next, last) = (self.scan.first, self.scan.last);
        while next <= last {
            bits.refill();
            let symbol = table.symbol(bits)?;
            let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, size) {
                (15, 0) => next += 16,
                (_, 0) => {
                    self.empty = (1 << zeros) + bits.take(zeros as u32) - 1;
                    return Ok(());
                }
                _ => {
                    let value = extend(bits.take(size), size);
                    next += zeros;
                    if next > last {
                        return Err(ScanError::RunPastBlock);
                    }
                    block.set(next, value.wrapping_shl(self.scan.low));
                    next += 1;
                }
            }
        }
        if next > last + 1 {
            return Err(ScanError::RunPastBlock);
        }
        Ok(())
    }

    /// A scan that adds a bit to AC coefficients.
    #[inline(always)]
    fn refine(
        &mut self,
        table: &HuffmanTable,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let (mut next, last) = (self.scan.first, self.scan.last);
        let bit = 1_i32 << self.scan.low;
        while self.empty == 0 && next <= last {
            bits.refill();
            let symbol = table.symbol(bits)?;
            let mut zeros = u32::from(symbol >> 4);
            let mut value = 0;
            match symbol & 15 {
                0 if zeros < 15 => {
                    self.empty = (1 << zeros) + bits.take(zeros);
                    break;
                }
                0 => {}
                1 => value = if bits.take(1) == 1 { bit } else { -bit },
                _ => return Err(ScanError::InvalidCode),
            }
            // Coefficients that are not zero have a bit, and do not count.
            loop {
                if next > last {
                    return Err(ScanError::RunPastBlock);
                }
                if *block.nonzero >> next & 1 == 1 {
                    block.refine(next, bits.read(1), bit);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                next += 1;
            }
            if value != 0 {
                block.set(next, value);
            }
            next += 1;
        }
        if self.empty > 0 {
            self.empty -= 1;
            let band = u64::MAX >> (63 - last) & u64::MAX.checked_shl(next as u32).unwrap_or(0);
            let mut left = *block.nonzero & band;
            while left > 0 {
                block.refine(left.trailing_zeros() as usize, bits.read(1), bit);
                left &= left - 1;
            }
        }
        Ok(())
    }
}

impl BlockPart<'_> {
    /// Adds a bit to the magnitude of a coefficient that is not zero.
    #[inline(always)]
    fn refine(&mut self, place: usize, is_set: u32, bit: i32) {
        if let (1, Some(value)) = (is_set, self.kept(place)) {
            let sign = i32::from(*value).signum();
            *value = (i32::from(*value) + sign * bit) as i16;
        }
    }
}
