//! Huffman tables (ITU-T T.81, annex C and F.2.2.3).
//!
//! A table of all codes is indexed by the next [`WINDOW`] bits. Two further ones are built for scans
//! that need them: of coefficients, and of runs of coefficients that are skipped.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::bit_reader::BitReader;
use crate::coefficient_table::CoefficientTable;
use crate::error::ScanError;
use crate::run_table::RunTable;

/// The number of bits that the table of codes is indexed by.
const WINDOW: u32 = 10;

/// A Huffman table.
pub(crate) struct HuffmanTable {
    /// The lengths and the symbols of codes; the length is 0 if the code is longer than the window.
    short: Box<[(u8, u8); 1 << WINDOW]>,
    differences: OnceLock<CoefficientTable>,
    coefficients: OnceLock<CoefficientTable>,
    runs: OnceLock<RunTable>,
    /// For each length, the first 16-bit number that is above its codes.
    ends: [u32; 17],
    /// For each length, the difference between the index of a symbol and its code.
    offsets: [i32; 17],
    symbols: Vec<u8>,
    /// The definition, by which equal tables are found.
    definition: Vec<u8>,
}

/// Number of tables that are kept. Most images have the four tables of annex K.
const CACHED: usize = 16;

/// The tables of earlier images. Building one takes as long as decoding a thumbnail.
static CACHE: Mutex<Vec<Arc<HuffmanTable>>> = Mutex::new(Vec::new());

impl HuffmanTable {
    /// Returns the table of the 16 numbers of codes of each length, and the symbols in the order of
    /// their codes; `None` if the codes do not fit into their lengths.
    pub(crate) fn cached(definition: &[u8]) -> Option<Arc<Self>> {
        let find = |tables: &[Arc<Self>]| {
            let found = tables.iter().find(|table| table.definition == definition);
            found.map(Arc::clone)
        };
        if let Some(found) = find(&CACHE.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(found);
        }
        let table = Arc::new(Self::new(definition)?);
        let mut tables = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if find(&tables).is_none() {
            tables.truncate(CACHED - 1);
            tables.insert(0, Arc::clone(&table));
        }
        Some(table)
    }

    fn new(definition: &[u8]) -> Option<Self> {
        let (counts, symbols) = definition.split_first_chunk::<16>()?;
        let mut table = Self {
            short: Box::new([(0, 0); 1 << WINDOW]),
            differences: OnceLock::new(),
            coefficients: OnceLock::new(),
            runs: OnceLock::new(),
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
            definition: definition.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0);
        for (length, &count) in (1_u32..).zip(counts) {
            let count = usize::from(count);
            table.offsets[length as usize] = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + count)? {
                if code >= 1 << length {
                    return None;
                }
                if length <= WINDOW {
                    let first = (code as usize) << (WINDOW - length);
                    table.short[first..first + (1 << (WINDOW - length))]
                        .fill((length as u8, symbol));
                }
                code += 1;
            }
            index += count;
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The codes with their lengths and symbols, in ascending order.
    fn codes(&self) -> Vec<Code> {
        let mut symbols = self.symbols.iter();
        let mut codes = Vec::with_capacity(self.symbols.len());
        for (length, count) in (1..=16).zip(&self.definition) {
            let end = self.ends[length as usize] >> (16 - length);
            let numbers = end - u32::from(*count)..end;
            codes.extend(numbers.zip(&mut symbols).map(|(bits, &symbol)| Code {
                bits,
                length,
                symbol,
            }));
        }
        codes
    }

    /// The differences of DC coefficients.
    pub(crate) fn differences(&self) -> &CoefficientTable {
        self.differences
            .get_or_init(|| CoefficientTable::of_differences(&self.codes()))
    }

    /// The AC coefficients, and the end of a block.
    pub(crate) fn coefficients(&self) -> &CoefficientTable {
        self.coefficients
            .get_or_init(|| CoefficientTable::of_coefficients(&self.codes()))
    }

    /// The runs of AC coefficients of sequential images.
    pub(crate) fn runs(&self) -> &RunTable {
        self.runs.get_or_init(|| RunTable::new(&self.codes()))
    }

    /// Reads a symbol. The window must have 16 bits.
    #[inline(always)]
    pub(crate) fn symbol(&self, bits: &mut BitReader<'_>) -> Result<u8, ScanError> {
        let (length, symbol) = self.short[bits.peek(WINDOW)];
        if length > 0 {
            bits.skip(length.into());
            return Ok(symbol);
        }
        self.long_symbol(bits)
    }

    #[cold]
    #[inline(never)]
    fn find_long(&self, next: usize) -> Option<(u32, u8)> {
        let length =
            (WINDOW as usize + 1..=16).find(|&length| next < self.ends[length] as usize)?;
        let index = (next >> (16 - length)) as i32 + self.offsets[length];
        let symbol = self.symbols.get(usize::try_from(index).ok()?)?;
        Some((length as u32, *symbol))
    }

    #[inline(always)]
    fn long_symbol(&self, bits: &mut BitReader<'_>) -> Result<u8, ScanError> {
        let (length, symbol) = self
            .find_long(bits.peek(16))
            .ok_or(ScanError::InvalidCode)?;
        bits.skip(length);
        Ok(symbol)
    }

    /// Reads the difference of a DC coefficient. The window must have 27 bits.
    #[inline(always)]
    pub(crate) fn difference(&self, bits: &mut BitReader<'_>) -> Result<i32, ScanError> {
        let size = self.symbol(bits)?;
        if size > MAX_DIFFERENCE_BITS {
            return Err(ScanError::InvalidCode);
        }
        Ok(extend(bits.take(size.into()), size.into()))
    }

    /// Reads a symbol and its value bits: the number of places that it covers and the value of the
    /// last one; `None` at the end of a block.
    #[inline(always)]
    pub(crate) fn next_value(
        &self,
        bits: &mut BitReader<'_>,
    ) -> Result<Option<(usize, i32)>, ScanError> {
        bits.refill();
        let symbol = self.symbol(bits)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (0, 0) => Ok(None),
            (15, 0) => Ok(Some((16, 0))),
            (_, 0) => Err(ScanError::InvalidCode),
            _ => Ok(Some((zeros + 1, extend(bits.take(size), size)))),
        }
    }
}

/// The number of bits of the largest difference of DC coefficients of samples of 8 bits.
pub(crate) const MAX_DIFFERENCE_BITS: u8 = 11;

/// A code of a table.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pub(crate) bits: u32,
    pub(crate) length: u32,
    pub(crate) symbol: u8,
}

/// The value of the `size` bits of a coefficient (T.81, F.2.2.1).
#[inline(always)]
pub(crate) fn extend(value: u32, size: u32) -> i32 {
    let half = (1_u32 << size) >> 1;
    let negative = i32::from(value < half);
    value as i32 - negative * ((1 << size) - 1)
}
