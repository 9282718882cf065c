//! The samples of the current rows of MCUs, and the rows of the image that they complete.

use crate::component_plan::ComponentPlan;
use crate::{Channels, ColorModel, color_conversion};

/// The samples of a component.
pub(crate) struct Plane {
    pub(crate) plan: ComponentPlan,
    /// The rows of two rows of MCUs, of which the first is complete.
    samples: Vec<u8>,
    /// The last row before them.
    above: Vec<u8>,
    /// The row of the image, if it differs from that of the component.
    line: Vec<u8>,
}

/// Receives the samples of blocks, and passes on the rows of the image.
pub(crate) struct RowOutput<'f> {
    pub(crate) planes: Vec<Plane>,
    model: ColorModel,
    channels: Channels,
    width: usize,
    height: usize,
    /// The number of rows that were passed on.
    done: usize,
    /// The number of complete rows of MCUs.
    mcu_rows: usize,
    pixels: Vec<u8>,
    each: &'f mut dyn FnMut(&[u8]),
}

impl<'f> RowOutput<'f> {
    pub(crate) fn new(
        plans: Vec<ComponentPlan>,
        model: ColorModel,
        channels: Channels,
        (width, height): (u32, u32),
        each: &'f mut dyn FnMut(&[u8]),
    ) -> Self {
        let (width, height) = (width as usize, height as usize);
        let plane = |plan: ComponentPlan| {
            let stride = plan.stride();
            let is_used = usize::from(plan.is_used);
            Plane {
                samples: vec![0; 2 * stride * plan.mcu_rows() * is_used],
                above: vec![0; stride * is_used],
                line: vec![0; width * is_used],
                plan,
            }
        };
        let values = channels.count(plans.len());
        Self {
            planes: plans.into_iter().map(plane).collect(),
            model,
            channels,
            width,
            height,
            done: 0,
            mcu_rows: 0,
            pixels: vec![0; width * values],
            each,
        }
    }

    /// The samples of a component in the current row of MCUs, and the number of samples of a row.
    #[inline(always)]
    pub(crate) fn samples(&mut self, component: usize) -> (&mut [u8], usize) {
        let plane = &mut self.planes[component];
        let stride = plane.plan.stride();
        let half = plane.samples.len() / 2;
        (&mut plane.samples[half..], stride)
    }

    /// Ends a row of MCUs, and passes on the rows that do not depend on later ones.
    #[inline(always)]
    pub(crate) fn end_mcu_row(&mut self, is_last: bool) {
        self.mcu_rows += 1;
        // The rows of the row of MCUs before may depend on the first row of this one.
        let mcu_height = self
            .planes
            .iter()
            .map(|plane| plane.plan.mcu_rows() * plane.plan.ratio.down.0 / plane.plan.ratio.down.1);
        let mcu_height = mcu_height.max().unwrap_or(1);
        let end = match is_last {
            true => self.height,
            false => self
                .height
                .min((self.mcu_rows * mcu_height).saturating_sub(1)),
        };
        for y in self.done..end {
            self.emit(y);
        }
        self.done = self.done.max(end);
        for plane in &mut self.planes {
            let half = plane.samples.len() / 2;
            let stride = plane.plan.stride();
            let (before, current) = plane.samples.split_at_mut(half);
            if let Some(last) = before.len().checked_sub(stride) {
                plane.above.copy_from_slice(&before[last..]);
            }
            before.copy_from_slice(current);
        }
    }

    #[inline(always)]
    fn emit(&mut self, y: usize) {
        let mcu_rows = self.mcu_rows;
        for plane in &mut self.planes {
            if plane.plan.is_used && !plane.plan.ratio.is_identity() {
                let rows = plane.plan.ratio.rows(y, plane.plan.size.1);
                let Plane {
                    plan,
                    samples,
                    above,
                    line,
                } = plane;
                let row = |index| row(plan, samples, above, mcu_rows, index);
                plan.ratio
                    .upsample(row(rows.near), row(rows.far), rows.is_above, line);
            }
        }
        let mut rows: [&[u8]; 4] = [&[]; 4];
        for (row_of, plane) in rows.iter_mut().zip(&self.planes) {
            *row_of = match plane.plan.is_used {
                true if plane.plan.ratio.is_identity() => {
                    &row(&plane.plan, &plane.samples, &plane.above, mcu_rows, y)[..self.width]
                }
                true => &plane.line,
                false => &[],
            };
        }
        let rows = &rows[..self.planes.len()];
        color_conversion::convert(rows, self.model, self.channels, &mut self.pixels);
        (self.each)(&self.pixels);
    }
}

/// A row of a component, of the width of the image. It is in the last two rows of MCUs, or just above.
#[inline(always)]
fn row<'s>(
    plan: &ComponentPlan,
    samples: &'s [u8],
    above: &'s [u8],
    mcu_rows: usize,
    index: usize,
) -> &'s [u8] {
    let stride = plan.stride();
    // The rows of the last two rows of MCUs begin with this one; the first may precede the image.
    let first = (mcu_rows as isize - 2) * plan.mcu_rows() as isize;
    let at = index as isize - first;
    let row = match usize::try_from(at) {
        Ok(at) => samples
            .get(at * stride..(at + 1) * stride)
            .unwrap_or_default(),
        Err(_) => above,
    };
    &row[..plan.size.0.min(row.len())]
}
