//! Huffman tables of JPEG (ITU-T T.81, annex C), and the reader of the bits that they code.

use super::entropy::EntropyError;

/// The number of bits that the tables of a [`HuffmanTable`] are indexed by.
const WINDOW: u32 = 10;
/// The number of zero bytes that follow the bytes of a [`BitReader`]: more than the longest block.
pub(super) const PADDING: usize = 512;

/// Reads bits, the highest of a byte first.
pub(super) struct BitReader<'a> {
    /// The bytes, followed by [`PADDING`] zero bytes.
    bytes: &'a [u8],
    /// The offset of the next byte that is not in `window`.
    at: usize,
    /// The next bits, at the upper end.
    window: u64,
    /// The number of bits in `window`.
    count: u32,
}

impl<'a> BitReader<'a> {
    /// Creates a reader of bytes that end with [`PADDING`] zero bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            window: 0,
            count: 0,
        }
    }

    /// The number of bits that have been read.
    pub(super) fn position(&self) -> usize {
        self.at * 8 - self.count as usize
    }

    /// Fills the window with at least 56 bits.
    #[inline]
    fn refill(&mut self) {
        let next = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        let next = next.copied().map_or(0, u64::from_be_bytes);
        self.window |= next >> self.count;
        self.at += (63 - self.count as usize) >> 3;
        self.count |= 56;
    }

    /// The next bits, of which the window has at least as many.
    #[inline]
    fn peek(&self, bits: u32) -> usize {
        (self.window >> (64 - bits)) as usize
    }

    #[inline]
    fn skip(&mut self, bits: u32) {
        self.window <<= bits;
        self.count -= bits;
    }

    /// Reads up to 16 bits.
    pub(super) fn bits(&mut self, bits: u32) -> u32 {
        if bits == 0 {
            return 0;
        }
        self.refill();
        let value = self.peek(bits);
        self.skip(bits);
        value as u32
    }
}

/// A Huffman table.
pub(super) struct HuffmanTable {
    /// The length and the symbol of the code that begins with the index; the length is 0 if the
    /// code is longer than the window.
    short: Vec<(u8, u8)>,
    /// For each length, the first 16-bit number that is above its codes.
    ends: [u32; 17],
    /// For each length, the difference between the index of a symbol and its code.
    offsets: [i32; 17],
    symbols: Vec<u8>,
    /// The whole symbols of AC coefficients that begin with the index.
    runs: Vec<Run>,
}

/// Successive symbols of AC coefficients with their values.
#[derive(Clone, Copy, Default)]
struct Run {
    /// The number of their bits; 0 if the first symbol does not fit into the window.
    bits: u8,
    /// The number of coefficients that they cover.
    places: u8,
    /// Whether the last of them is the end of the block.
    is_end: bool,
}

impl HuffmanTable {
    /// Creates a table from the number of codes of each length, and the symbols in the order of
    /// their codes. Returns `None` if the codes do not fit into their lengths.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            short: vec![(0, 0); 1 << WINDOW],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
            runs: Vec::new(),
        };
        let mut code = 0_u32;
        let mut index = 0;
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

    /// Prepares [`Self::skip_block`].
    pub(super) fn prepare_runs(&mut self) {
        if self.runs.is_empty() {
            self.runs = (0..1 << WINDOW).map(|bits| self.run(bits)).collect();
        }
    }

    /// The symbols at the beginning of the window.
    fn run(&self, window: usize) -> Run {
        let mut run = Run::default();
        loop {
            let rest = (window << run.bits) & ((1 << WINDOW) - 1);
            let (length, symbol) = self.short[rest];
            let bits = u32::from(length) + u32::from(symbol & 15) + u32::from(run.bits);
            let is_end = symbol == 0;
            let places = match symbol {
                0 => 0,
                0xf0 => 16,
                _ => (symbol >> 4) + 1,
            };
            // An invalid symbol is met again when it is the first one.
            let is_valid = is_end || symbol == 0xf0 || symbol & 15 != 0;
            if length == 0 || bits > WINDOW || !is_valid || run.places + places > 63 {
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

    /// Reads a symbol.
    #[inline]
    pub(super) fn symbol(&self, reader: &mut BitReader) -> Result<u8, EntropyError> {
        reader.refill();
        let (short_length, short_symbol) = self.short[reader.peek(WINDOW)];
        if short_length > 0 {
            reader.skip(short_length.into());
            return Ok(short_symbol);
        }
        let next = reader.peek(16);
        let length = (WINDOW as usize + 1..=16)
            .find(|&bits| next < self.ends[bits] as usize)
            .ok_or(EntropyError::InvalidCode)?;
        reader.skip(length as u32);
        let index = (next >> (16 - length)) as i32 + self.offsets[length];
        let symbol = usize::try_from(index)
            .ok()
            .and_then(|at| self.symbols.get(at));
        symbol.copied().ok_or(EntropyError::InvalidCode)
    }

    /// Skips the AC coefficients of a block of a sequential image.
    pub(super) fn skip_block(&self, reader: &mut BitReader) -> Result<(), EntropyError> {
        let mut next = 1;
        while next < 64 {
            reader.refill();
            let run = self.runs[reader.peek(WINDOW)];
            let after = next + u32::from(run.places);
            // A run that ends the block has its last symbol in the block.
            if run.bits > 0 && after <= 64 - u32::from(run.is_end) {
                reader.skip(run.bits.into());
                if run.is_end {
                    return Ok(());
                }
                next = after;
                continue;
            }
            let symbol = self.symbol(reader)?;
            let (zeros, bits) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, bits) {
                (0, 0) => return Ok(()),
                (15, 0) => next += 16,
                (_, 0) => return Err(EntropyError::InvalidCode),
                _ => {
                    reader.bits(bits);
                    next += zeros + 1;
                }
            }
        }
        if next > 64 {
            return Err(EntropyError::RunPastBlock);
        }
        Ok(())
    }
}
