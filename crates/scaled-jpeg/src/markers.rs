//! The marker segments of a JPEG (ITU-T T.81, B.1.1).

pub(crate) const SOF2: u8 = 0xc2;
pub(crate) const DNL: u8 = 0xdc;
pub(crate) const DHT: u8 = 0xc4;
pub(crate) const SOI: u8 = 0xd8;
pub(crate) const EOI: u8 = 0xd9;
pub(crate) const SOS: u8 = 0xda;
pub(crate) const DQT: u8 = 0xdb;
pub(crate) const DRI: u8 = 0xdd;
pub(crate) const APP0: u8 = 0xe0;
pub(crate) const APP14: u8 = 0xee;

/// The number of bytes that are searched for a marker at a time.
const PART: usize = 64;

/// Whether at least [`PART`] bytes and one follow, and no marker but restart markers begins in them.
/// Stuffed bytes are frequent, so that a search for each takes longer.
fn is_entropy_coded(bytes: &[u8]) -> bool {
    let Some(bytes) = bytes.first_chunk::<{ PART + 1 }>() else {
        return false;
    };
    let mut is_marker = false;
    for at in 0..PART {
        let (byte, next) = (bytes[at], bytes[at + 1]);
        is_marker |= (byte == 0xff) & (next != 0) & (next & 0xf8 != 0xd0);
    }
    !is_marker
}

/// Iterates over the markers up to the end of the bytes. Bytes between segments are skipped: the
/// entropy-coded data of scans, and bytes that belong to no segment.
pub(crate) struct MarkerSegments<'a> {
    bytes: &'a [u8],
    /// The offset after the last segment.
    pub(crate) at: usize,
}

impl<'a> MarkerSegments<'a> {
    /// Begins at the offset `at`.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Skips the entropy-coded data after a scan header, up to the next marker that is not a
    /// restart marker, and returns it; `None` if the bytes end before a marker.
    pub(crate) fn skip_entropy_coded_data(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut at = start;
        loop {
            while self.bytes.get(at..).is_some_and(is_entropy_coded) {
                at += PART;
            }
            at += memchr::memchr(0xff, self.bytes.get(at..)?)?;
            let fill = self.bytes[at..]
                .iter()
                .take_while(|&&byte| byte == 0xff)
                .count();
            match *self.bytes.get(at + fill)? {
                0x00 | 0xd0..=0xd7 => at += fill + 1,
                _ => {
                    self.at = at;
                    return self.bytes.get(start..at);
                }
            }
        }
    }
}

impl<'a> Iterator for MarkerSegments<'a> {
    /// The second byte of the marker, and the body of its segment without the length.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += memchr::memchr(0xff, self.bytes.get(self.at..)?)? + 1;
            match *self.bytes.get(self.at)? {
                // Stuffing, fill bytes, TEM and restart markers are not segments.
                0x00 | 0x01 | 0xd0..=0xd7 | 0xff => {}
                marker @ (SOI | EOI) => {
                    self.at += 1;
                    return Some((marker, &[]));
                }
                marker => {
                    let length = self.bytes.get(self.at + 1..self.at + 3)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let body = self.bytes.get(self.at + 3..self.at + 1 + length.max(2))?;
                    self.at += 1 + length.max(2);
                    return Some((marker, body));
                }
            }
        }
    }
}
