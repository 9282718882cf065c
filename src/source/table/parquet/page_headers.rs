//! The headers of the pages of a column, in the compact protocol of Thrift.

use std::io::{self, Read};

/// The fields of a page header that determine its decoded size.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(super) is_dictionary: bool,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
    pub(super) values: u64,
    pub(super) encoding: i64,
}

/// Reads the parts of Thrift's compact protocol that page headers use.
///
/// The library ignores the types of known fields, shortens integers to 32 bits, and chooses one of
/// several headers of page types. Headers that it would read differently are errors, since their
/// pages could be larger than the sizes that are computed here.
pub(super) struct ThriftReader<'a, R> {
    pub(super) input: &'a mut R,
    pub(super) read: u64,
}

/// Maximum nesting depth of structures; a page header has three levels.
const MAX_DEPTH: usize = 16;

/// Type codes of the compact protocol.
const I32: u8 = 5;

const STRUCT: u8 = 12;

/// Field ids of the page header that hold the header of the page type.
const DATA: i64 = 5;

const INDEX: i64 = 6;

const DICTIONARY: i64 = 7;

const DATA_V2: i64 = 8;

impl<R: Read> ThriftReader<'_, R> {
    pub(super) fn page(&mut self) -> io::Result<PageHeader> {
        let mut page = PageHeader::default();
        let (mut id, mut packed, mut unpacked, mut parts) = (0, None, None, 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1 | 4, I32) => drop(self.integer()?),
                (2, I32) => unpacked = Some(self.size()?),
                (3, I32) => packed = Some(self.size()?),
                (DATA | DICTIONARY | DATA_V2, STRUCT) => {
                    parts += 1;
                    self.part(id, &mut page)?;
                }
                (INDEX, STRUCT) => self.skip(kind, 0)?,
                (1..=DATA_V2, _) => return Err(wrong_type()),
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        (page.packed, page.unpacked) = packed
            .zip(unpacked)
            .ok_or_else(|| invalid_data("a page header has no size"))?;
        if parts > 1 {
            return Err(invalid_data("a page header has several page types"));
        }
        Ok(page)
    }

    /// Reads the header of a page type: data, dictionary or data v2.
    fn part(&mut self, which: i64, page: &mut PageHeader) -> io::Result<()> {
        page.is_dictionary = which == DICTIONARY;
        // The fields up to this one are integers; a boolean follows them except in data pages.
        let (last_integer, encoding_id) = match which {
            DATA => (4, 2),
            DICTIONARY => (2, 2),
            _ => (6, 4),
        };
        let boolean_id = (which != DATA).then_some(last_integer + 1);
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match kind {
                I32 if id == 1 => page.values = self.size()?,
                I32 if id == encoding_id => page.encoding = self.integer()?.into(),
                I32 if (1..=last_integer).contains(&id) => drop(self.integer()?),
                1 | 2 if Some(id) == boolean_id => {}
                _ if (1..=last_integer).contains(&id) || Some(id) == boolean_id => {
                    return Err(wrong_type());
                }
                kind => self.skip(kind, 1)?,
            }
        }
        Ok(())
    }

    fn size(&mut self) -> io::Result<u64> {
        u64::try_from(self.integer()?).map_err(|_| invalid_data("a page has a negative size"))
    }

    fn integer(&mut self) -> io::Result<i32> {
        i32::try_from(self.number()?)
            .map_err(|_| invalid_data("a page header has an integer of more than 32 bits"))
    }

    /// Returns the type of the next field and stores its id in `id`; `None` at the end of a
    /// structure.
    fn field(&mut self, id: &mut i64) -> io::Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *id = match byte >> 4 {
            0 => self.number()?,
            step => id.saturating_add(i64::from(step)),
        };
        if i16::try_from(*id).is_err() {
            return Err(invalid_data("a page header has an invalid field id"));
        }
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(invalid_data("a page header is nested too deeply"));
        }
        match kind {
            // The type code of a boolean field is its value.
            1 | 2 => Ok(()),
            3 => self.bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let start = self.byte()?;
                let count = if start >> 4 == 15 {
                    self.varint()?
                } else {
                    u64::from(start >> 4)
                };
                (0..count).try_for_each(|_| match start & 0x0f {
                    // A boolean in a list takes one byte, but the library skips none.
                    1 | 2 => Err(wrong_type()),
                    item_kind => self.skip(item_kind, depth + 1),
                })
            }
            STRUCT => {
                let mut id = 0;
                while let Some(field_kind) = self.field(&mut id)? {
                    self.skip(field_kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(invalid_data("a page header has a field of an unknown type")),
        }
    }

    fn number(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid_data(
            "a page header has an integer that does not end",
        ))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    pub(super) fn bytes(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.take(count), &mut io::sink())?;
        self.read += skipped;
        if skipped == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

fn wrong_type() -> io::Error {
    invalid_data("a page header has a field of the wrong type")
}

fn invalid_data(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
