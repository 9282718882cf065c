//! The blocks of the scans of an image whose coefficients are kept (ITU-T T.81, G.1.2).

use crate::bit_reader::BitReader;
use crate::block_reader::{BlockReader, DifferenceReader};
use crate::coefficient_table::{Coefficient, CoefficientTable, LOOKUPS};
use crate::error::ScanError;
use crate::frame::Scan;
use crate::huffman::{HuffmanTable, extend};

/// The kept coefficients of a block, and a bit for each that is not zero.
pub(crate) struct BlockPart<'c> {
    pub(crate) values: &'c mut [i16],
    /// For each place in zigzag order, the index of its coefficient, which may exceed those kept.
    pub(crate) positions: &'static [u8; 64],
    /// The last place whose coefficient is kept.
    pub(crate) last_place: usize,
    pub(crate) nonzero: &'c mut u64,
}

impl BlockPart<'_> {
    /// The coefficient at a place in zigzag order, if it is kept.
    #[inline(always)]
    fn kept(&mut self, place: usize) -> Option<&mut i16> {
        let position = self.positions[place & 63];
        self.values.get_mut(usize::from(position))
    }

    /// Sets a coefficient that is not zero.
    #[inline(always)]
    fn set(&mut self, place: usize, value: i32) {
        *self.nonzero |= 1 << (place & 63);
        if let Some(kept) = self.kept(place) {
            // 16 bits hold every coefficient of a valid image.
            *kept = value as i16;
        }
    }
}

/// Reads the parts of blocks that are in a scan, in the order of the scan.
pub(crate) trait ScanBlocks {
    /// Reads a block of the component at the index `member` of the scan.
    fn read(
        &mut self,
        member: usize,
        block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError>;

    /// Begins a restart interval.
    fn restart(&mut self) {}

    /// Whether a run of blocks has further blocks.
    fn is_in_run(&self) -> bool {
        false
    }
}

/// The last DC coefficients of the components of a scan.
#[derive(Default)]
struct LastDc([i32; 4]);

impl LastDc {
    /// Adds a difference to the last coefficient of a component.
    #[inline(always)]
    fn add(&mut self, member: usize, difference: i32) -> i32 {
        let last = &mut self.0[member & 3];
        *last = last.wrapping_add(difference);
        *last
    }
}

/// Blocks of a sequential image.
pub(crate) struct WholeBlocks<'t> {
    readers: Vec<BlockReader<'t>>,
    last: LastDc,
}

impl<'t> WholeBlocks<'t> {
    pub(crate) fn new(readers: Vec<BlockReader<'t>>) -> Self {
        Self {
            readers,
            last: LastDc::default(),
        }
    }
}

impl ScanBlocks for WholeBlocks<'_> {
    #[inline(always)]
    fn read(
        &mut self,
        member: usize,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let reader = self.readers[member];
        let dc = self.last.add(member, reader.differences.read(bits)?);
        if let Some(value) = block.values.first_mut() {
            *value = dc as i16;
        }
        let last = block.last_place;
        reader.read(bits, last, |place, value| block.set(place, value.into()))?;
        Ok(())
    }

    fn restart(&mut self) {
        self.last = LastDc::default();
    }
}

/// The first scan of DC coefficients.
pub(crate) struct FirstDc<'t> {
    readers: Vec<DifferenceReader<'t>>,
    low: u32,
    last: LastDc,
}

impl<'t> FirstDc<'t> {
    pub(crate) fn new(readers: Vec<DifferenceReader<'t>>, low: u32) -> Self {
        Self {
            readers,
            low,
            last: LastDc::default(),
        }
    }
}

impl ScanBlocks for FirstDc<'_> {
    #[inline(always)]
    fn read(
        &mut self,
        member: usize,
        block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let dc = self.last.add(member, self.readers[member].read(bits)?);
        if let Some(value) = block.values.first_mut() {
            *value = dc.wrapping_shl(self.low) as i16;
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.last = LastDc::default();
    }
}

/// A scan that adds a bit to DC coefficients.
pub(crate) struct DcRefinement {
    pub(crate) low: u32,
}

impl ScanBlocks for DcRefinement {
    #[inline(always)]
    fn read(
        &mut self,
        _: usize,
        block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let bit = bits.read(1) as i16;
        if let Some(dc) = block.values.first_mut() {
            *dc |= bit << self.low;
        }
        Ok(())
    }
}

/// A band of AC coefficients of one component.
struct Band<'t> {
    table: &'t HuffmanTable,
    first: usize,
    last: usize,
    low: u32,
    /// The number of further blocks without new coefficients.
    empty: u32,
}

impl<'t> Band<'t> {
    fn new(table: &'t HuffmanTable, scan: &Scan) -> Self {
        Self {
            table,
            first: scan.first,
            last: scan.last,
            low: scan.low,
            empty: 0,
        }
    }
}

/// The first scan of AC coefficients. Without `KEPT`, no value of the band is kept.
pub(crate) struct FirstAc<'t, const KEPT: bool> {
    band: Band<'t>,
    coefficients: &'t CoefficientTable,
}

impl<'t, const KEPT: bool> FirstAc<'t, KEPT> {
    pub(crate) fn new(table: &'t HuffmanTable, scan: &Scan) -> Self {
        Self {
            band: Band::new(table, scan),
            coefficients: table.coefficients(),
        }
    }

    #[inline(always)]
    fn set(&self, block: &mut BlockPart<'_>, place: usize, value: i32) {
        match KEPT {
            true => block.set(place, value.wrapping_shl(self.band.low)),
            false => *block.nonzero |= 1 << (place & 63),
        }
    }
}

impl<const KEPT: bool> ScanBlocks for FirstAc<'_, KEPT> {
    #[inline(always)]
    fn read(
        &mut self,
        _: usize,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        if self.band.empty > 0 {
            self.band.empty -= 1;
            return Ok(());
        }
        let (mut next, last) = (self.band.first, self.band.last);
        let limit = (last + 1).min(Coefficient::END);
        'block: while next <= last {
            bits.refill();
            for _ in 0..LOOKUPS {
                let found = self.coefficients.read(bits);
                if !found.is_missing() {
                    let after = next + found.places();
                    if after <= limit {
                        self.set(&mut block, after - 1, found.value().into());
                        next = after;
                        if next > last {
                            return Ok(());
                        }
                        continue;
                    }
                    if found.places() == Coefficient::END {
                        return Ok(());
                    }
                    if after > last + 1 {
                        return Err(ScanError::RunPastBlock);
                    }
                    self.set(&mut block, last, found.value().into());
                    return Ok(());
                }
                bits.refill();
                let symbol = self.band.table.symbol(bits)?;
                let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                match (zeros, size) {
                    (15, 0) => next += 16,
                    (_, 0) => {
                        self.band.empty = (1 << zeros) + bits.take(zeros) - 1;
                        return Ok(());
                    }
                    _ => {
                        let value = extend(bits.take(size), size);
                        next += zeros as usize + 1;
                        if next > last + 1 {
                            return Err(ScanError::RunPastBlock);
                        }
                        self.set(&mut block, next - 1, value);
                    }
                }
                continue 'block;
            }
        }
        if next > last + 1 {
            return Err(ScanError::RunPastBlock);
        }
        Ok(())
    }

    #[inline(always)]
    fn is_in_run(&self) -> bool {
        self.band.empty > 0
    }
}

/// A scan that adds a bit to AC coefficients. Without `KEPT`, no value of the band is kept.
pub(crate) struct AcRefinement<'t, const KEPT: bool>(Band<'t>);

impl<'t, const KEPT: bool> AcRefinement<'t, KEPT> {
    pub(crate) fn new(table: &'t HuffmanTable, scan: &Scan) -> Self {
        Self(Band::new(table, scan))
    }

    /// Reads a bit for each of the coefficients at `places`, which are not zero: whether it is added
    /// to the magnitude.
    #[inline(always)]
    fn correct(&self, block: &mut BlockPart<'_>, places: u64, bits: &mut BitReader<'_>) {
        let mut left = places;
        while left > 0 {
            bits.refill();
            let count = left.count_ones().min(32);
            if !KEPT {
                bits.skip(count);
                if left.count_ones() == count {
                    return;
                }
                for _ in 0..count {
                    left &= left - 1;
                }
                continue;
            }
            let corrections = u64::from(bits.take(count)) << (64 - count);
            for at in 0..count {
                let is_set = corrections << at >> 63 == 1;
                if let (true, Some(value)) = (is_set, block.kept(left.trailing_zeros() as usize)) {
                    let bit = 1_i32 << self.0.low;
                    *value = (i32::from(*value) + i32::from(*value).signum() * bit) as i16;
                }
                left &= left - 1;
            }
        }
    }
}

/// The places from `first` on, before `end`.
#[inline(always)]
fn places(first: usize, end: usize) -> u64 {
    let from = |place: usize| u64::MAX.checked_shl(place as u32).unwrap_or(0);
    from(first) & !from(end)
}

impl<const KEPT: bool> ScanBlocks for AcRefinement<'_, KEPT> {
    #[inline(always)]
    fn read(
        &mut self,
        _: usize,
        mut block: BlockPart<'_>,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ScanError> {
        let (mut next, last) = (self.0.first, self.0.last);
        while self.0.empty == 0 && next <= last {
            bits.refill();
            let symbol = self.0.table.symbol(bits)?;
            let zeros = u32::from(symbol >> 4);
            let mut value = 0;
            match symbol & 15 {
                0 if zeros < 15 => {
                    self.0.empty = (1 << zeros) + bits.take(zeros);
                    break;
                }
                0 => {}
                1 => value = if bits.take(1) == 1 { 1 } else { -1 },
                _ => return Err(ScanError::InvalidCode),
            }
            // Coefficients that are not zero have a bit, and do not count.
            let mut left = !*block.nonzero & places(next, last + 1);
            for _ in 0..zeros {
                left &= left.wrapping_sub(1);
            }
            if left == 0 {
                return Err(ScanError::RunPastBlock);
            }
            let place = left.trailing_zeros() as usize;
            let passed = *block.nonzero & places(next, place);
            self.correct(&mut block, passed, bits);
            match value {
                0 => {}
                _ if KEPT => block.set(place, value << self.0.low),
                _ => *block.nonzero |= 1 << place,
            }
            next = place + 1;
        }
        if self.0.empty > 0 {
            self.0.empty -= 1;
            let rest = *block.nonzero & places(next, last + 1);
            self.correct(&mut block, rest, bits);
        }
        Ok(())
    }

    #[inline(always)]
    fn is_in_run(&self) -> bool {
        self.0.empty > 0
    }
}
