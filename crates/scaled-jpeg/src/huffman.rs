//! Huffman tables (ITU-T T.81, annex C and F.2.2.3).
//!
//! Three tables are indexed by the next [`WINDOW`] bits: the code at their beginning, the coefficient
//! that it starts with its value bits, and all whole coefficients, for those that are skipped.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bit_reader::BitReader;
use crate::error::ScanError;

/// The number of bits that the tables are indexed by.
const WINDOW: u32 = 10;
/// The number of bits that the table of skipped coefficients is indexed by.
const RUN_WINDOW: u32 = 12;
/// The number of times that a table is used before the window of bits is filled.
const LOOKUPS: usize = 4;

/// A Huffman table.
pub(crate) struct HuffmanTable {
    /// The lengths and the symbols of codes; the length is 0 if the code is longer than the window.
    short: Box<[(u8, u8); 1 << WINDOW]>,
    /// The AC coefficients that begin with the index.
    coefficients: Box<[Coefficient; 1 << WINDOW]>,
    /// The whole symbols of AC coefficients that begin with the index.
    runs: Box<[Run; 1 << RUN_WINDOW]>,
    /// For each length, the first 16-bit number that is above its codes.
    ends: [u32; 17],
    /// For each length, the difference between the index of a symbol and its code.
    offsets: [i32; 17],
    symbols: Vec<u8>,
    /// The definition, by which equal tables are found.
    definition: Vec<u8>,
}

/// An AC coefficient with its value bits, or the end of a block, whose value is 0.
#[derive(Clone, Copy, Default)]
struct Coefficient {
    value: i16,
    /// The number of its bits; 0 if they do not fit into the window, or it is not a coefficient.
    bits: u8,
    /// The number of zeros before it.
    zeros: u8,
}

/// Successive symbols of AC coefficients with their value bits.
#[derive(Clone, Copy, Default)]
struct Run {
    /// The number of their bits; 0 if the first symbol does not fit into the window.
    bits: u8,
    /// The number of coefficients that they cover.
    places: u8,
    /// Whether the last of them is the end of the block.
    is_end: bool,
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
            coefficients: Box::new([Coefficient::default(); 1 << WINDOW]),
            runs: Box::new([Run::default(); 1 << RUN_WINDOW]),
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
        for bits in 0..1 << WINDOW {
            table.coefficients[bits] = table.coefficient(bits);
        }
        for bits in 0..1 << RUN_WINDOW {
            table.runs[bits] = table.run(bits);
        }
        Some(table)
    }

    /// The coefficient at the beginning of the window.
    fn coefficient(&self, window: usize) -> Coefficient {
        let (length, symbol) = self.short[window];
        let size = u32::from(symbol & 15);
        let bits = u32::from(length) + size;
        if length > 0 && symbol == 0 {
            return Coefficient {
                bits: length,
                ..Coefficient::default()
            };
        }
        if length == 0 || size == 0 || bits > WINDOW {
            return Coefficient::default();
        }
        let value = (window >> (WINDOW - bits)) & ((1 << size) - 1);
        Coefficient {
            value: extend(value as u32, size) as i16,
            bits: bits as u8,
            zeros: symbol >> 4,
        }
    }

    /// The symbols at the beginning of the window.
    fn run(&self, window: usize) -> Run {
        let mut run = Run::default();
        loop {
            let rest = (window << run.bits) & ((1 << RUN_WINDOW) - 1);
            let (length, symbol) = self.short[rest >> (RUN_WINDOW - WINDOW)];
            let bits = u32::from(length) + u32::from(symbol & 15) + u32::from(run.bits);
            let is_end = symbol == 0;
            let places = match symbol {
                0 => 0,
                0xf0 => 16,
                _ => (symbol >> 4) + 1,
            };
            // An invalid symbol is met again when it is the first one.
            let is_valid = is_end || symbol == 0xf0 || symbol & 15 != 0;
            if length == 0 || bits > RUN_WINDOW || !is_valid || run.places + places > 63 {
                return run;
            }
            run = Run {
                bits: bits as u8,
                places: run.places + places,
                is_end,
            };
            if is_end {
                return run;
            }
        }
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

    /// Reads the difference of a DC coefficient.
    #[inline(always)]
    pub(crate) fn difference(&self, bits: &mut BitReader<'_>) -> Result<i32, ScanError> {
        bits.refill();
        let size = self.symbol(bits)?;
        // 11 bits hold every difference of samples of 8 bits.
        if size > 11 {
            return Err(ScanError::InvalidCode);
        }
        Ok(extend(bits.take(size.into()), size.into()))
    }

    /// Reads the AC coefficients of a block of a sequential image. Those up to the place `last` in
    /// zigzag order are passed to `store`, with their places; the others are skipped. Returns the
    /// place of the last one that was stored, 0 if there is none.
    #[inline(always)]
    pub(crate) fn read_block(
        &self,
        bits: &mut BitReader<'_>,
        last: usize,
        mut store: impl FnMut(usize, i32),
    ) -> Result<usize, ScanError> {
        let (mut next, mut stored) = (1, 0);
        'block: while next <= last {
            bits.refill();
            let mut lookups = 0;
            loop {
                let found = self.coefficients[bits.peek(WINDOW)];
                if found.bits == 0 {
                    break;
                }
                bits.skip(found.bits.into());
                if found.value == 0 {
                    return Ok(stored);
                }
                let place = next + usize::from(found.zeros);
                next = place + 1;
                if place > last {
                    break 'block;
                }
                store(place, found.value.into());
                stored = place;
                if next > last {
                    break 'block;
                }
                lookups += 1;
                if lookups == LOOKUPS {
                    continue 'block;
                }
            }
            match self.next_value(bits)? {
                None => return Ok(stored),
                Some((places, value)) => {
                    next += places;
                    if next > last + 1 {
                        break;
                    }
                    if value != 0 {
                        store(next - 1, value);
                        stored = next - 1;
                    }
                }
            }
        }
        self.skip_block(bits, next)?;
        Ok(stored)
    }

    /// Reads a symbol and its value bits: the number of places that it covers and the value of the
    /// last one; `None` at the end of a block.
    #[inline(always)]
    fn next_value(&self, bits: &mut BitReader<'_>) -> Result<Option<(usize, i32)>, ScanError> {
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

    /// Skips the AC coefficients of a block of a sequential image from the place `next` on.
    #[inline(always)]
    pub(crate) fn skip_block(
        &self,
        bits: &mut BitReader<'_>,
        mut next: usize,
    ) -> Result<(), ScanError> {
        'block: while next < 64 {
            bits.refill();
            let mut lookups = 0;
            loop {
                let run = self.runs[bits.peek(RUN_WINDOW)];
                let after = next + usize::from(run.places);
                // A run that ends the block has its last symbol in the block.
                if run.bits == 0 || after > 64 - usize::from(run.is_end) {
                    break;
                }
                bits.skip(run.bits.into());
                if run.is_end {
                    return Ok(());
                }
                next = after;
                lookups += 1;
                if lookups == LOOKUPS || next == 64 {
                    continue 'block;
                }
            }
            match self.next_value(bits)? {
                None => return Ok(()),
                Some((places, _)) => next += places,
            }
        }
        if next > 64 {
            return Err(ScanError::RunPastBlock);
        }
        Ok(())
    }
}

/// The value of the `size` bits of a coefficient (T.81, F.2.2.1).
#[inline(always)]
pub(crate) fn extend(value: u32, size: u32) -> i32 {
    let half = (1_u32 << size) >> 1;
    let negative = i32::from(value < half);
    value as i32 - negative * ((1 << size) - 1)
}
