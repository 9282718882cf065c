//! Tables of Huffman codes together with the value bits that follow them.

use crate::bit_reader::BitReader;
use crate::huffman::{Code, MAX_DIFFERENCE_BITS, extend};

/// The number of bits that a table is indexed by.
const WINDOW: u32 = 10;
/// The number of look-ups that a full window of bits suffices for.
pub(crate) const LOOKUPS: usize = 5;

/// The values that begin with the index.
pub(crate) struct ValueTable(Box<[Value; 1 << WINDOW]>);

/// A value with its code: the number of its bits in the lowest 8 bits, the number of places that it
/// covers in the next 8 bits, and the value in the upper 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Value(i32);

impl Value {
    /// The number of places of the end of a block.
    pub(crate) const END: usize = 64;
    const MISSING: Self = Self(0);

    /// Whether the bits are not a value, or do not fit into the window. Then none were read.
    #[inline(always)]
    pub(crate) fn is_missing(self) -> bool {
        self.0 & 63 == 0
    }

    /// The number of places.
    #[inline(always)]
    pub(crate) fn places(self) -> usize {
        (self.0 >> 8) as usize & 255
    }

    /// The value, which is 0 for the end of a block and for 16 zeros.
    #[inline(always)]
    pub(crate) fn value(self) -> i16 {
        (self.0 >> 16) as i16
    }
}

impl ValueTable {
    /// The values of DC coefficients, which cover one place.
    pub(crate) fn of_differences(codes: &[Code]) -> Self {
        let mut table = Self(Box::new([Value::MISSING; 1 << WINDOW]));
        for code in codes {
            if code.symbol <= MAX_DIFFERENCE_BITS {
                table.add(*code, code.symbol.into(), 1);
            }
        }
        table
    }

    /// The values of AC coefficients, and the end of a block.
    pub(crate) fn of_coefficients(codes: &[Code]) -> Self {
        let mut table = Self(Box::new([Value::MISSING; 1 << WINDOW]));
        for code in codes {
            match (code.symbol >> 4, code.symbol & 15) {
                (0, 0) => table.add(*code, 0, Value::END),
                // The symbol of 16 zeros has no value.
                (_, 0) => {}
                (zeros, size) => table.add(*code, size.into(), usize::from(zeros) + 1),
            }
        }
        table
    }

    /// Adds the values of `size` bits after a code.
    fn add(&mut self, code: Code, size: u32, places: usize) {
        let bits = code.length + size;
        if bits > WINDOW {
            return;
        }
        let first = (code.bits as usize) << (WINDOW - code.length);
        let entries = self.0[first..].chunks_mut(1 << (WINDOW - bits));
        for (value, entries) in (0..1 << size).zip(entries) {
            let value = extend(value, size) << 16;
            entries.fill(Value(value | (places as i32) << 8 | bits as i32));
        }
    }

    /// Reads a value, if it is in the table.
    #[inline(always)]
    pub(crate) fn read(&self, bits: &mut BitReader<'_>) -> Value {
        let found = self.0[bits.peek(WINDOW)];
        bits.skip(found.0 as u32 & 63);
        found
    }
}
