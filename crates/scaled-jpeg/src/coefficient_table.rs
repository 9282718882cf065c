//! A table of the codes of coefficients of sequential images, whose values are taken from the bits
//! that follow.

use crate::bit_reader::BitReader;
use crate::huffman::{Code, MAX_DIFFERENCE_BITS};

/// The number of bits that a table is indexed by. All tables of an image fit into the first cache.
const WINDOW: u32 = 10;
/// The number of look-ups that a full window of bits suffices for.
pub(crate) const LOOKUPS: usize = 2;

/// The codes that begin with the index. From the lowest bits on, an entry has the number of bits of
/// the code and of the value (6), of the value (4), and the number of places (6).
pub(crate) struct CoefficientTable(Box<[u16; 1 << WINDOW]>);

/// A coefficient, with the window of bits that begins with it.
#[derive(Clone, Copy)]
pub(crate) struct Coefficient {
    entry: u32,
    window: u64,
}

impl Coefficient {
    /// The number of places of the end of a block.
    pub(crate) const END: usize = 63;

    /// Whether the code is longer than the window of the table, or not one of a coefficient. Then no
    /// bits were read.
    #[inline(always)]
    pub(crate) fn is_missing(self) -> bool {
        self.entry == 0
    }

    /// The number of places.
    #[inline(always)]
    pub(crate) fn places(self) -> usize {
        (self.entry >> 10) as usize
    }

    /// The value (T.81, F.2.2.1), which is 0 for the end of a block.
    #[inline(always)]
    pub(crate) fn value(self) -> i16 {
        let size = self.entry >> 6 & 15;
        let length = (self.entry & 63) - size;
        let rest = self.window << length;
        // Two shifts, since a shift by 64 is not one.
        let value = (rest >> 1 >> (63 - size)) as i32;
        // All bits are set if the first one of the value is not.
        let negative = !(rest as i64 >> 63) as i32;
        (value - (negative & ((1 << size) - 1))) as i16
    }
}

impl CoefficientTable {
    /// The differences of DC coefficients, which cover one place.
    pub(crate) fn of_differences(codes: &[Code]) -> Self {
        Self::new(codes, |symbol| {
            (symbol <= MAX_DIFFERENCE_BITS).then_some((1, symbol))
        })
    }

    /// The AC coefficients, and the end of a block.
    pub(crate) fn of_coefficients(codes: &[Code]) -> Self {
        Self::new(codes, |symbol| match (symbol >> 4, symbol & 15) {
            (0, 0) => Some((Coefficient::END as u8, 0)),
            // The symbol of 16 zeros has no value.
            (_, 0) => None,
            (zeros, size) => Some((zeros + 1, size)),
        })
    }

    /// `meaning` returns the number of places of a symbol, and the number of bits of its value.
    fn new(codes: &[Code], meaning: impl Fn(u8) -> Option<(u8, u8)>) -> Self {
        let mut table = Box::new([0; 1 << WINDOW]);
        for code in codes.iter().filter(|code| code.length <= WINDOW) {
            let Some((places, size)) = meaning(code.symbol) else {
                continue;
            };
            let (places, size) = (u16::from(places), u16::from(size));
            // At most 25 bits.
            let bits = code.length as u16 + size;
            let first = (code.bits as usize) << (WINDOW - code.length);
            table[first..][..1 << (WINDOW - code.length)].fill(bits | size << 6 | places << 10);
        }
        Self(table)
    }

    /// Reads a coefficient, if it is in the table. The window must have 25 bits.
    #[inline(always)]
    pub(crate) fn read(&self, bits: &mut BitReader<'_>) -> Coefficient {
        let entry = u32::from(self.0[bits.peek(WINDOW)]);
        let window = bits.window();
        bits.skip(entry & 63);
        Coefficient { entry, window }
    }
}
