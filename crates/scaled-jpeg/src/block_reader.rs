//! The blocks of a component in a sequential image.

use crate::bit_reader::BitReader;
use crate::coefficient_table::{self, Coefficient, CoefficientTable};
use crate::error::ScanError;
use crate::huffman::HuffmanTable;
use crate::run_table::{self, Run, RunTable};

/// Reads the differences of DC coefficients.
#[derive(Clone, Copy)]
pub(crate) struct DifferenceReader<'t> {
    table: &'t HuffmanTable,
    values: &'t CoefficientTable,
}

impl<'t> DifferenceReader<'t> {
    pub(crate) fn new(table: &'t HuffmanTable) -> Self {
        Self {
            table,
            values: table.differences(),
        }
    }

    /// Reads a difference.
    #[inline(always)]
    pub(crate) fn read(&self, bits: &mut BitReader<'_>) -> Result<i32, ScanError> {
        bits.refill();
        let found = self.values.read(bits);
        if found.is_missing() {
            return self.table.difference(bits);
        }
        Ok(found.value().into())
    }
}

/// Reads blocks with the Huffman tables of a component.
#[derive(Clone, Copy)]
pub(crate) struct BlockReader<'t> {
    pub(crate) differences: DifferenceReader<'t>,
    ac: &'t HuffmanTable,
    coefficients: &'t CoefficientTable,
    /// The runs of coefficients that are skipped; `None` if none are.
    runs: Option<&'t RunTable>,
}

impl<'t> BlockReader<'t> {
    /// A reader of coefficients up to the place `last` in zigzag order.
    pub(crate) fn new(dc: &'t HuffmanTable, ac: &'t HuffmanTable, last: usize) -> Self {
        Self {
            differences: DifferenceReader::new(dc),
            ac,
            coefficients: ac.coefficients(),
            runs: (last < 63).then(|| ac.runs()),
        }
    }

    /// Reads the AC coefficients of a block. Those up to the place `last` in zigzag order are passed
    /// to `store`, with their places; the others are skipped. Returns the place of the last one that
    /// was stored, 0 if there is none.
    #[inline(always)]
    pub(crate) fn read(
        &self,
        bits: &mut BitReader<'_>,
        last: usize,
        mut store: impl FnMut(usize, i16),
    ) -> Result<usize, ScanError> {
        let (mut next, mut stored) = (1, 0);
        // The end of a block exceeds this place from every other one.
        let limit = (last + 1).min(Coefficient::END);
        'block: while next <= last {
            bits.refill();
            for _ in 0..coefficient_table::LOOKUPS {
                let found = self.coefficients.read(bits);
                // A missing value is tested first: it is less likely to be mispredicted alone.
                if !found.is_missing() {
                    let after = next + found.places();
                    if after <= limit {
                        (stored, next) = (after - 1, after);
                        store(stored, found.value());
                        if next > last {
                            break 'block;
                        }
                        continue;
                    }
                    if found.places() == Coefficient::END {
                        return Ok(stored);
                    }
                    next = after;
                    if next == last + 1 {
                        stored = last;
                        store(stored, found.value());
                    }
                    break 'block;
                }
                let Some((places, value)) = self.ac.next_value(bits)? else {
                    return Ok(stored);
                };
                next += places;
                if value != 0 && next <= last + 1 {
                    stored = next - 1;
                    // Values of 15 bits at most.
                    store(stored, value as i16);
                }
                continue 'block;
            }
        }
        self.skip(bits, next)?;
        Ok(stored)
    }

    /// Skips the AC coefficients of a block from the place `next` on.
    #[inline(always)]
    pub(crate) fn skip(&self, bits: &mut BitReader<'_>, start: usize) -> Result<(), ScanError> {
        let mut next = start;
        'block: while next < 64 {
            let Some(runs) = self.runs else { break };
            bits.refill();
            for _ in 0..run_table::LOOKUPS {
                let before = *bits;
                let run = runs.skip(bits);
                if !run.is_missing() {
                    let after = next + run.places();
                    if after < 64 {
                        next = after;
                        continue;
                    }
                    // The last symbol of the run is in the block.
                    let is_end = run.places() >= Run::END && after < 64 + Run::END;
                    if is_end || after == 64 {
                        return Ok(());
                    }
                    // The block ends within the run.
                    *bits = before;
                }
                match self.ac.next_value(bits)? {
                    None => return Ok(()),
                    Some((places, _)) => next += places,
                }
                continue 'block;
            }
        }
        if next > 64 {
            return Err(ScanError::RunPastBlock);
        }
        Ok(())
    }
}
