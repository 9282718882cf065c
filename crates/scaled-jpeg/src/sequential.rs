//! Images whose only scan has all coefficients of all components.

use crate::Limits;
use crate::bit_reader::{BitReader, EntropyData, IntervalEnd};
use crate::block_reader::BlockReader;
use crate::component_plan::ComponentPlan;
use crate::error::{Error, ScanError};
use crate::headers::{Headers, NextScan};
use crate::idct::{Block, flat_sample, positions, transform_to_2, transform_to_4, transform_to_8};
use crate::row_output::RowOutput;
use crate::simd::Vectors;

/// A component of the scan.
struct Member<'t> {
    index: usize,
    blocks: (usize, usize),
    reader: BlockReader<'t>,
    /// The factors of coefficients, in the order of a [`Block`].
    factors: Block,
    /// For each place, the index in a [`Block`].
    positions: &'static [u8; 64],
    /// The last DC coefficient, before it is dequantized.
    last_dc: i32,
    last_place: usize,
    side: usize,
    /// The number of samples of a row.
    stride: usize,
    is_used: bool,
}

/// Decodes the image.
///
/// # Errors
/// If it is truncated or corrupt.
#[inline(always)]
pub(crate) fn decode<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    mut headers: Headers<'a>,
    output: &mut RowOutput<'_>,
    vectors: impl Vectors,
) -> Result<(), Error> {
    if let Some(next) = headers.next_scan(bytes, limits)? {
        let number = next.number;
        decode_scan(&headers, &next, output, vectors).map_err(|error| error.in_scan(number))?;
        headers.end_scan(bytes, limits)?;
    }
    // Every coefficient is in the first scan, so a second one is malformed.
    match headers.next_scan(bytes, limits)? {
        None => Ok(()),
        Some(_) => Err(Error::Malformed(
            "its scans repeat or skip bits of coefficients".to_owned(),
        )),
    }
}

#[inline(always)]
fn decode_scan(
    headers: &Headers<'_>,
    next: &NextScan<'_>,
    output: &mut RowOutput<'_>,
    vectors: impl Vectors,
) -> Result<(), ScanError> {
    let mut members = members(headers, next, output)?;
    let (columns, rows) = headers.frame.mcus();
    let mut data = EntropyData::new(next.data, Vec::new());
    let mut restart = Restart::new(headers.restart);
    let mut bits_state = None;
    for row in 0..rows {
        let mut bits = match bits_state {
            None => data.bits(),
            Some(state) => data.resume(state),
        };
        for column in 0..columns {
            if restart.is_due() {
                restart.check(bits.has_rest(), data.end())?;
                data.start_interval();
                bits = data.bits();
                members.iter_mut().for_each(|member| member.last_dc = 0);
            }
            if bits.needs_more() {
                let state = bits.state();
                bits = data.advance(state);
            }
            decode_mcu(&mut members, &mut bits, output, column, vectors)?;
            if bits.is_past_end() {
                return Err(ScanError::EarlyEnd);
            }
            restart.left = restart.left.wrapping_sub(1);
        }
        bits_state = Some(bits.state());
        output.end_mcu_row(row + 1 == rows);
    }
    let bits = match bits_state {
        None => data.bits(),
        Some(state) => data.resume(state),
    };
    let has_rest = bits.has_rest();
    restart.end(has_rest, &mut data)
}

fn members<'h>(
    headers: &'h Headers<'_>,
    next: &NextScan<'_>,
    output: &RowOutput<'_>,
) -> Result<Vec<Member<'h>>, ScanError> {
    let member = |part: &crate::frame::ScanComponent| {
        let plan: &ComponentPlan = &output.planes[part.index].plan;
        let component = &headers.frame.components[part.index];
        let dc = headers.tables.dc[part.dc].as_deref();
        let ac = headers.tables.ac[part.ac].as_deref();
        let quantization = headers.quantization[component.quantization];
        let last_place = if plan.is_used { plan.last_place } else { 0 };
        Some(Member {
            index: part.index,
            // A single component has blocks in raster order; its MCUs are those of the frame, too.
            blocks: part.blocks,
            reader: BlockReader::new(dc?, ac?, last_place),
            factors: arrange(&quantization?, plan.side),
            positions: positions(plan.side),
            last_dc: 0,
            last_place,
            side: plan.side,
            stride: plan.stride(),
            is_used: plan.is_used,
        })
    };
    let members: Option<Vec<_>> = next.scan.components.iter().map(member).collect();
    members.ok_or(ScanError::MissingTable)
}

#[inline(always)]
fn decode_mcu(
    members: &mut [Member<'_>],
    bits: &mut BitReader<'_>,
    output: &mut RowOutput<'_>,
    column: usize,
    vectors: impl Vectors,
) -> Result<(), ScanError> {
    for member in members {
        let (across, down) = member.blocks;
        for y in 0..down {
            for x in 0..across {
                let difference = member.reader.differences.read(bits)?;
                member.last_dc = member.last_dc.wrapping_add(difference);
                let dc = member.last_dc as i16;
                let side = member.side;
                let stride = member.stride;
                let at = y * side * stride + (column * across + x) * side;
                // A constant place is compiled to less.
                if member.last_place == 0 {
                    member.reader.skip(bits, 1)?;
                    if member.is_used
                        && let Some(sample) = output.samples(member.index).0.get_mut(at)
                    {
                        *sample = flat_sample(dc.wrapping_mul(member.factors.0[0]).into());
                    }
                    continue;
                }
                let mut block = Block([0; 64]);
                block.0[0] = dc;
                let positions = member.positions;
                let store = |place: usize, value| {
                    block.0[usize::from(positions[place & 63] & 63)] = value;
                };
                let last = match member.last_place {
                    63 => member.reader.read(bits, 63, store)?,
                    last => member.reader.read(bits, last, store)?,
                };
                if let Some(samples) = output.samples(member.index).0.get_mut(at..) {
                    write_block(
                        vectors,
                        &block,
                        &member.factors,
                        last == 0,
                        side,
                        samples,
                        stride,
                    );
                }
            }
        }
    }
    Ok(())
}

/// Quantization factors in the order of a [`Block`].
pub(crate) fn arrange(factors: &[u16; 64], side: usize) -> Block {
    let mut block = Block([0; 64]);
    for (factor, position) in factors.iter().zip(positions(side)) {
        // Products have 16 bits, for which the sign of a factor makes no difference.
        block.0[usize::from(*position)] = *factor as i16;
    }
    block
}

/// Writes the samples of a block. `is_flat` states that all of its coefficients but the first one
/// are zero.
#[inline(always)]
pub(crate) fn write_block<V: Vectors>(
    vectors: V,
    block: &Block,
    factors: &Block,
    is_flat: bool,
    side: usize,
    samples: &mut [u8],
    stride: usize,
) {
    if is_flat || side == 1 {
        let value = flat_sample(block.0[0].wrapping_mul(factors.0[0]).into());
        for line in samples.chunks_mut(stride).take(side) {
            line[..side].fill(value);
        }
        return;
    }
    match side {
        8 => transform_to_8(vectors, block, factors, samples, stride),
        4 => transform_to_4(vectors, block, factors, samples, stride),
        _ => transform_to_2(block, factors, samples, stride),
    }
}

/// The restart intervals of a scan.
pub(crate) struct Restart {
    /// The number of MCUs of an interval; 0 for no restarts.
    interval: usize,
    /// The number of MCUs up to the next restart.
    pub(crate) left: usize,
    /// The number of the next restart marker.
    marker: u8,
}

impl Restart {
    pub(crate) fn new(interval: usize) -> Self {
        Self {
            interval,
            left: if interval == 0 { usize::MAX } else { interval },
            marker: 0,
        }
    }

    /// Whether a restart marker precedes the next MCU.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Checks the end of an interval that another one follows.
    pub(crate) fn check(&mut self, has_rest: bool, end: IntervalEnd) -> Result<(), ScanError> {
        if has_rest {
            return Err(ScanError::LeftoverData);
        }
        match end {
            IntervalEnd::Restart(marker) if marker == self.marker => {
                self.marker = (marker + 1) % 8;
                self.left = self.interval;
                Ok(())
            }
            IntervalEnd::Restart(_) => Err(ScanError::RestartMarkers),
            IntervalEnd::Ahead => Err(ScanError::LeftoverData),
            IntervalEnd::Scan => Err(ScanError::EarlyEnd),
        }
    }

    /// Checks the end of the last interval. A restart marker may follow it.
    pub(crate) fn end(
        &mut self,
        has_rest: bool,
        data: &mut EntropyData<'_>,
    ) -> Result<(), ScanError> {
        let end = data.end();
        if has_rest || end == IntervalEnd::Ahead {
            return Err(ScanError::LeftoverData);
        }
        if let IntervalEnd::Restart(marker) = end {
            if marker != self.marker {
                return Err(ScanError::RestartMarkers);
            }
            data.start_interval();
            if data.bits().has_rest() || data.end() != IntervalEnd::Scan {
                return Err(ScanError::LeftoverData);
            }
        }
        Ok(())
    }
}
