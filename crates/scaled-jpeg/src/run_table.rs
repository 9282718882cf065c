//! Tables of successive AC coefficients that are skipped together.

use crate::bit_reader::BitReader;
use crate::huffman::Code;

/// The number of bits that a table is indexed by.
const WINDOW: u32 = 13;
/// The number of look-ups that a full window of bits suffices for.
pub(crate) const LOOKUPS: usize = 4;

/// The whole symbols that begin with the index.
pub(crate) struct RunTable(Box<[Run; 1 << WINDOW]>);

/// Successive symbols with their value bits: the number of their bits in the lowest 6 bits, and above
/// the number of coefficients that they cover.
#[derive(Clone, Copy)]
pub(crate) struct Run(u16);

impl Run {
    /// The number that is added to the places if the last symbol is the end of the block.
    pub(crate) const END: usize = 256;
    /// Whether the first symbol is invalid, or does not fit into the window. Then no bits were skipped.
    #[inline(always)]
    pub(crate) fn is_missing(self) -> bool {
        self.0 == 0
    }

    /// The number of places.
    #[inline(always)]
    pub(crate) fn places(self) -> usize {
        usize::from(self.0 >> 6)
    }
}

impl RunTable {
    /// The runs of the codes of a table.
    pub(crate) fn new(codes: &[Code]) -> Self {
        // For each number of bits, a table that is indexed by as many: it begins at the index
        // `1 << bits`. A symbol is followed by the runs of the table of the bits that are left.
        let mut tables = vec![0_u16; 2 << WINDOW];
        for window in 1..=WINDOW {
            let (shorter, table) = tables.split_at_mut(1 << window);
            for code in codes {
                let (zeros, size) = (code.symbol >> 4, u32::from(code.symbol & 15));
                let bits = code.length + size;
                let places = match (zeros, size) {
                    (0, 0) => Run::END,
                    (15, 0) => 16,
                    // Other symbols without a value are invalid.
                    (_, 0) => continue,
                    _ => usize::from(zeros) + 1,
                };
                if bits > window {
                    continue;
                }
                let rest = 1 << (window - bits);
                let first = (code.bits as usize) << (window - code.length);
                let entry = (places << 6) as u16 | bits as u16;
                for entries in table[first..].chunks_exact_mut(rest).take(1 << size) {
                    if places == Run::END {
                        entries.fill(entry);
                        continue;
                    }
                    for (out, after) in entries.iter_mut().zip(&shorter[rest..2 * rest]) {
                        *out = entry + after;
                    }
                }
            }
        }
        let mut runs = Box::new([Run(0); 1 << WINDOW]);
        for (run, entry) in runs.iter_mut().zip(&tables[1 << WINDOW..]) {
            *run = Run(*entry);
        }
        Self(runs)
    }

    /// Skips a run, if it is in the table.
    #[inline(always)]
    pub(crate) fn skip(&self, bits: &mut BitReader<'_>) -> Run {
        let run = self.0[bits.peek(WINDOW)];
        bits.skip(u32::from(run.0) & 63);
        run
    }
}
