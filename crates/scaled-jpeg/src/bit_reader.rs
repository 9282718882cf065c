//! The bits of entropy-coded data (ITU-T T.81, F.2.2.5), without the stuffing.

/// Number of bytes that are copied at a time.
const CHUNK: usize = 64 << 10;
/// The number of bytes that must be ahead of the reader before an MCU, unless the data ends: more
/// than 10 blocks of 64 coefficients of 32 bits each.
const AHEAD: usize = 10 * 64 * 4 + 16;
/// The number of zero bytes that follow the end of the data.
const PADDING: usize = AHEAD + 8;

/// The data of a scan, of which a part is held without its stuffing.
pub(crate) struct EntropyData<'a> {
    /// The bytes that were not copied yet.
    rest: &'a [u8],
    /// The copied bytes, followed by [`PADDING`] zeros.
    buffer: Vec<u8>,
    /// The number of copied bytes.
    len: usize,
    end: IntervalEnd,
}

/// The end of a restart interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntervalEnd {
    /// The interval has more bytes than were copied.
    Ahead,
    /// A restart marker with this number.
    Restart(u8),
    /// The end of the scan.
    Scan,
}

impl<'a> EntropyData<'a> {
    /// `data` has the bytes between the header of the scan and the next marker that is not a restart
    /// marker. `buffer` is used again.
    pub(crate) fn new(data: &'a [u8], buffer: Vec<u8>) -> Self {
        let mut new = Self {
            rest: data,
            buffer,
            len: 0,
            end: IntervalEnd::Restart(0),
        };
        new.start_interval();
        new
    }

    /// Returns the buffer, for another scan.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Begins with the bytes after a restart marker.
    pub(crate) fn start_interval(&mut self) {
        self.len = 0;
        self.end = IntervalEnd::Ahead;
        self.copy();
    }

    /// The end of the interval.
    pub(crate) fn end(&self) -> IntervalEnd {
        self.end
    }

    /// A reader from the first copied byte on.
    pub(crate) fn bits(&self) -> BitReader<'_> {
        BitReader {
            bytes: &self.buffer,
            at: 0,
            window: 0,
            count: 0,
            is_last: self.end != IntervalEnd::Ahead,
            len: self.len,
        }
    }

    /// A reader that continues after the position `state` of another one.
    #[inline(always)]
    pub(crate) fn resume(&self, state: BitState) -> BitReader<'_> {
        BitReader {
            at: state.at,
            window: state.window,
            count: state.count,
            ..self.bits()
        }
    }

    /// Copies further bytes. `state` is that of a reader; its successor continues with the same bit.
    pub(crate) fn advance(&mut self, state: BitState) -> BitReader<'_> {
        // Bytes in the window are read again.
        let unread = state.at - state.count as usize / 8;
        let drop_bits = (8 - state.count % 8) % 8;
        let (unread, drop_bits) = match drop_bits {
            0 => (unread, 0),
            bits => (unread - 1, bits),
        };
        self.buffer.copy_within(unread.min(self.len)..self.len, 0);
        self.len -= unread.min(self.len);
        self.copy();
        let mut bits = self.bits();
        bits.refill();
        bits.skip(drop_bits);
        bits
    }

    /// Copies up to [`CHUNK`] bytes, or to the end of the interval.
    fn copy(&mut self) {
        self.buffer.truncate(self.len);
        while self.end == IntervalEnd::Ahead && self.len < CHUNK {
            let room = CHUNK - self.len;
            let Some(at) = memchr::memchr(0xff, &self.rest[..room.min(self.rest.len())]) else {
                let (copied, rest) = self.rest.split_at(room.min(self.rest.len()));
                self.buffer.extend_from_slice(copied);
                self.rest = rest;
                if rest.is_empty() {
                    self.end = IntervalEnd::Scan;
                }
                self.len = self.buffer.len();
                continue;
            };
            let (before, from) = self.rest.split_at(at);
            self.buffer.extend_from_slice(before);
            // Bytes of 0xff may fill the space before a marker.
            let fill = from.iter().take_while(|&&byte| byte == 0xff).count();
            match from.get(fill) {
                Some(0) => {
                    self.buffer.push(0xff);
                    self.rest = &from[fill + 1..];
                }
                Some(&marker @ 0xd0..=0xd7) => {
                    self.rest = &from[fill + 1..];
                    self.end = IntervalEnd::Restart(marker - 0xd0);
                }
                _ => {
                    self.rest = &[];
                    self.end = IntervalEnd::Scan;
                }
            }
            self.len = self.buffer.len();
        }
        self.buffer.resize(self.len + PADDING, 0);
    }
}

/// The position of a reader.
#[derive(Clone, Copy)]
pub(crate) struct BitState {
    at: usize,
    window: u64,
    count: u32,
}

/// Reads bits, the highest of a byte first. It is a value, so that its parts are in registers.
#[derive(Clone, Copy)]
pub(crate) struct BitReader<'b> {
    /// The bytes, followed by [`PADDING`] zeros.
    bytes: &'b [u8],
    /// The offset of the next byte that is not in `window`.
    at: usize,
    /// The next bits, at the upper end.
    window: u64,
    /// The number of bits in `window`.
    count: u32,
    /// Whether `bytes` has the end of the interval.
    is_last: bool,
    /// The number of bytes without the padding.
    len: usize,
}

impl BitReader<'_> {
    /// The position, for [`EntropyData::advance`].
    pub(crate) fn state(&self) -> BitState {
        BitState {
            at: self.at,
            window: self.window,
            count: self.count,
        }
    }

    /// Whether an MCU may exceed the copied bytes although the interval has more.
    #[inline(always)]
    pub(crate) fn needs_more(&self) -> bool {
        !self.is_last && self.at + AHEAD > self.len
    }

    /// Whether bits beyond the end of the interval were read.
    #[inline(always)]
    pub(crate) fn is_past_end(&self) -> bool {
        self.at * 8 - self.count as usize > self.len * 8
    }

    /// Whether whole bytes of the interval are left.
    pub(crate) fn has_rest(&self) -> bool {
        (self.at * 8 - self.count as usize).div_ceil(8) < self.len
    }

    /// Fills the window with at least 56 bits.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let next = self.bytes.get(self.at..self.at + 8);
        let next = next.map_or(0, |next| {
            u64::from_be_bytes(next.try_into().unwrap_or_default())
        });
        self.window |= next >> self.count;
        self.at += (63 - self.count as usize) >> 3;
        self.count |= 56;
    }

    /// The next bits, at the upper end.
    #[inline(always)]
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// The next bits, of which the window must have as many; at least 1.
    #[inline(always)]
    pub(crate) fn peek(&self, bits: u32) -> usize {
        (self.window >> (64 - bits)) as usize
    }

    /// Skips bits that are in the window.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bits: u32) {
        self.window <<= bits;
        self.count -= bits;
    }

    /// Reads up to 32 bits that are in the window.
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: u32) -> u32 {
        // Two shifts, since a shift by 64 is not one.
        let value = (self.window >> 1 >> (63 - bits)) as u32;
        self.skip(bits);
        value
    }

    /// Reads up to 16 bits.
    #[inline(always)]
    pub(crate) fn read(&mut self, bits: u32) -> u32 {
        self.refill();
        self.take(bits)
    }
}
