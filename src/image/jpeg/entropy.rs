//! Checks the entropy-coded data of JPEG scans, which decoders accept even if it is corrupt: they
//! fill the missing part of the image with gray, or continue with a wrong code.

use thiserror::Error;

use super::frame::{Frame, Scan};
use super::huffman::{BitReader, HuffmanTable, PADDING};

/// The kind of damage in the data of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum EntropyError {
    #[error("its bits are not a Huffman code")]
    InvalidCode,
    #[error("a run of coefficients exceeds its block")]
    RunPastBlock,
    #[error("a run of empty blocks exceeds the scan or its restart interval")]
    RunPastScan,
    #[error("its data ends before its last block")]
    EarlyEnd,
    #[error("data is left after its last block")]
    LeftoverData,
    #[error("its restart markers are missing or out of order")]
    RestartMarkers,
    #[error("it refers to a Huffman table that is missing")]
    MissingTable,
}

/// The tables for DC and AC coefficients, by their number.
#[derive(Default)]
pub(super) struct HuffmanTables {
    pub(super) dc: [Option<HuffmanTable>; 4],
    pub(super) ac: [Option<HuffmanTable>; 4],
}

/// Checks the scans of an image, one after another.
#[derive(Default)]
pub(super) struct EntropyChecker {
    /// Progressive images: for each block of each component, a bit for each coefficient that is not
    /// zero, because the length of a refinement depends on them.
    nonzero: Vec<Vec<u64>>,
    /// The bytes of an interval without stuffing.
    interval: Vec<u8>,
}

impl EntropyChecker {
    /// Checks a scan. `data` has the bytes between its header and the next marker that is not a
    /// restart marker; `restart` is the number of MCUs of a restart interval, 0 for no restarts.
    pub(super) fn check(
        &mut self,
        frame: &Frame,
        scan: &Scan,
        tables: &mut HuffmanTables,
        restart: usize,
        data: &[u8],
    ) -> Result<(), EntropyError> {
        if frame.progressive && self.nonzero.is_empty() {
            let blocks = frame.components.iter();
            self.nonzero = blocks
                .map(|component| vec![0; component.stride * component.padded_rows])
                .collect();
        }
        let (columns, rows) = frame.mcus(scan);
        let total = columns * rows;
        let mut rest = data;
        let mut done = 0;
        for number in 0.. {
            let next_marker;
            (rest, next_marker) = remove_stuffing(rest, &mut self.interval);
            let length = self.interval.len();
            if done == total {
                // A restart marker after the last interval.
                return if length > 0 {
                    Err(EntropyError::LeftoverData)
                } else {
                    Ok(())
                };
            }
            self.interval.resize(length + PADDING, 0);
            let end = match restart {
                0 => total,
                count => total.min(done + count),
            };
            self.check_interval(frame, scan, tables, done..end, length)?;
            done = end;
            match next_marker {
                Some(marker) if marker != number % 8 => return Err(EntropyError::RestartMarkers),
                None if done < total => return Err(EntropyError::EarlyEnd),
                None => break,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Checks the MCUs of an interval of `length` bytes.
    fn check_interval(
        &mut self,
        frame: &Frame,
        scan: &Scan,
        tables: &mut HuffmanTables,
        mcus: std::ops::Range<usize>,
        length: usize,
    ) -> Result<(), EntropyError> {
        let is_inside = |bits: &BitReader| {
            if bits.position() > length * 8 {
                return Err(EntropyError::EarlyEnd);
            }
            Ok(())
        };
        // Bits beyond the end are zeros, which may be a code or not.
        let ended = |bits: &BitReader, error| is_inside(bits).err().unwrap_or(error);
        let mut reader = BitReader::new(&self.interval);
        if frame.progressive {
            let mut blocks = ProgressiveBlocks {
                scan,
                tables,
                empty: 0,
            };
            for mcu in mcus {
                frame.for_each_block(scan, mcu, |member, block| {
                    let nonzero = &mut self.nonzero[scan.components[member].index][block];
                    blocks
                        .check(member, nonzero, &mut reader)
                        .map_err(|error| ended(&reader, error))
                })?;
                is_inside(&reader)?;
            }
            if blocks.empty > 0 {
                return Err(EntropyError::RunPastScan);
            }
        } else {
            for component in &scan.components {
                let table = tables.ac[component.ac].as_mut();
                table.ok_or(EntropyError::MissingTable)?.prepare_runs();
            }
            for _ in mcus {
                for component in &scan.components {
                    let dc = table(&tables.dc, component.dc)?;
                    let ac = table(&tables.ac, component.ac)?;
                    for _ in 0..component.blocks_per_mcu {
                        skip_difference(dc, &mut reader)
                            .and_then(|()| ac.skip_block(&mut reader))
                            .map_err(|error| ended(&reader, error))?;
                    }
                }
                is_inside(&reader)?;
            }
        }
        if reader.position().div_ceil(8) < length {
            return Err(EntropyError::LeftoverData);
        }
        Ok(())
    }
}

fn table(tables: &[Option<HuffmanTable>; 4], number: usize) -> Result<&HuffmanTable, EntropyError> {
    tables[number].as_ref().ok_or(EntropyError::MissingTable)
}

/// Skips the difference of a DC coefficient.
fn skip_difference(dc: &HuffmanTable, reader: &mut BitReader) -> Result<(), EntropyError> {
    // 11 bits hold every difference of samples of 8 bits.
    let bits = dc.symbol(reader)?;
    if bits > 11 {
        return Err(EntropyError::InvalidCode);
    }
    reader.bits(bits.into());
    Ok(())
}

/// The state of a progressive scan.
struct ProgressiveBlocks<'a> {
    scan: &'a Scan,
    tables: &'a HuffmanTables,
    /// The number of further blocks without new coefficients.
    empty: u32,
}

impl ProgressiveBlocks<'_> {
    /// Checks the next block, which belongs to a component of the scan.
    fn check(
        &mut self,
        member: usize,
        nonzero: &mut u64,
        reader: &mut BitReader,
    ) -> Result<(), EntropyError> {
        let component = &self.scan.components[member];
        match (self.scan.first, self.scan.is_refinement) {
            (0, true) => {
                reader.bits(1);
                Ok(())
            }
            (0, false) => skip_difference(table(&self.tables.dc, component.dc)?, reader),
            (_, false) => self.check_first(table(&self.tables.ac, component.ac)?, nonzero, reader),
            (_, true) => {
                self.check_refinement(table(&self.tables.ac, component.ac)?, nonzero, reader)
            }
        }
    }

    /// The first scan of AC coefficients.
    fn check_first(
        &mut self,
        table: &HuffmanTable,
        nonzero: &mut u64,
        reader: &mut BitReader,
    ) -> Result<(), EntropyError> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let mut next = self.scan.first;
        while next <= self.scan.last {
            let symbol = table.symbol(reader)?;
            let (zeros, bits) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, bits) {
                (15, 0) => next += 16,
                (_, 0) => {
                    self.empty = (1 << zeros) + reader.bits(zeros) - 1;
                    return Ok(());
                }
                _ => {
                    reader.bits(bits);
                    next += zeros;
                    if next > self.scan.last {
                        return Err(EntropyError::RunPastBlock);
                    }
                    *nonzero |= 1 << next;
                    next += 1;
                }
            }
        }
        if next > self.scan.last + 1 {
            return Err(EntropyError::RunPastBlock);
        }
        Ok(())
    }

    /// A scan that adds a bit to AC coefficients.
    fn check_refinement(
        &mut self,
        table: &HuffmanTable,
        nonzero: &mut u64,
        reader: &mut BitReader,
    ) -> Result<(), EntropyError> {
        let mut next = self.scan.first;
        while self.empty == 0 && next <= self.scan.last {
            let symbol = table.symbol(reader)?;
            let mut zeros = u32::from(symbol >> 4);
            match symbol & 15 {
                0 if zeros < 15 => {
                    self.empty = (1 << zeros) + reader.bits(zeros);
                    break;
                }
                0 => {}
                // The sign of a new coefficient.
                1 => {
                    reader.bits(1);
                }
                _ => return Err(EntropyError::InvalidCode),
            }
            // Coefficients that are not zero have a bit, and do not count.
            loop {
                if next > self.scan.last {
                    return Err(EntropyError::RunPastBlock);
                }
                if *nonzero >> next & 1 == 1 {
                    reader.bits(1);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                next += 1;
            }
            if symbol & 15 == 1 {
                *nonzero |= 1 << next;
            }
            next += 1;
        }
        if self.empty > 0 {
            self.empty -= 1;
            let band =
                (u64::MAX >> (63 - self.scan.last)) & (u64::MAX.checked_shl(next)).unwrap_or(0);
            let mut refined = (*nonzero & band).count_ones();
            while refined > 0 {
                let bits = refined.min(16);
                reader.bits(bits);
                refined -= bits;
            }
        }
        Ok(())
    }
}

/// Copies the bytes up to the next restart marker without the stuffing. Returns the bytes after the
/// marker, and its number; `None` at the end of the data.
fn remove_stuffing<'a>(data: &'a [u8], interval: &mut Vec<u8>) -> (&'a [u8], Option<usize>) {
    interval.clear();
    let mut rest = data;
    while let Some(at) = memchr::memchr(0xff, rest) {
        let (before, from) = rest.split_at(at);
        interval.extend_from_slice(before);
        // Bytes of 0xff may fill the space before a marker.
        let fill = from.iter().take_while(|&&byte| byte == 0xff).count();
        match from.get(fill) {
            Some(0) => {
                interval.push(0xff);
                rest = &from[fill + 1..];
            }
            Some(&marker @ 0xd0..=0xd7) => {
                return (&from[fill + 1..], Some(usize::from(marker - 0xd0)));
            }
            _ => {
                return (&[], None);
            }
        }
    }
    interval.extend_from_slice(rest);
    (&[], None)
}
