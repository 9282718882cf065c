//! The samples of the current rows of MCUs, and the rows of the image that they complete.

use crate::component_plan::ComponentPlan;
use crate::{Channels, ColorModel, color_conversion};

/// The samples of a component.
pub(crate) struct Plane {
    pub(crate) plan: ComponentPlan,
    /// The rows of the last complete row of MCUs.
    before: Vec<u8>,
    /// The rows of the current row of MCUs.
    current: Vec<u8>,
    /// The last row before both.
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
            let samples = vec![0; stride * plan.mcu_rows() * is_used];
            Plane {
                before: samples.clone(),
                current: samples,
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
        (&mut plane.current, stride)
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
            let stride = plane.plan.stride();
            if let Some(last) = plane.before.len().checked_sub(stride) {
                plane.above.copy_from_slice(&plane.before[last..]);
            }
            std::mem::swap(&mut plane.before, &mut plane.current);
        }
    }

    #[inline(always)]
    fn emit(&mut self, y: usize) {
        let mcu_rows = self.mcu_rows;
        for plane in &mut self.planes {
            if plane.plan.is_used && !plane.plan.ratio.is_identity() {
                let rows = plane.plan.ratio.rows(y, plane.plan.size.1);
                let mut line = std::mem::take(&mut plane.line);
                let row = |index| plane.row(mcu_rows, index);
                let (near, far) = (row(rows.near), row(rows.far));
                plane
                    .plan
                    .ratio
                    .upsample(near, far, rows.is_above, &mut line);
                plane.line = line;
            }
        }
        let mut rows: [&[u8]; 4] = [&[]; 4];
        for (row_of, plane) in rows.iter_mut().zip(&self.planes) {
            *row_of = match plane.plan.is_used {
                true if plane.plan.ratio.is_identity() => &plane.row(mcu_rows, y)[..self.width],
                true => &plane.line,
                false => &[],
            };
        }
        let rows = &rows[..self.planes.len()];
        color_conversion::convert(rows, self.model, self.channels, &mut self.pixels);
        (self.each)(&self.pixels);
    }
}

impl Plane {
    /// A row of the component, of the width of the image. It is in the last two of `mcu_rows` rows of
    /// MCUs, or just above.
    #[inline(always)]
    fn row(&self, mcu_rows: usize, index: usize) -> &[u8] {
        let (rows, stride) = (self.plan.mcu_rows(), self.plan.stride());
        let first_of_current = (mcu_rows - 1) * rows;
        let (samples, at) = match index.checked_sub(first_of_current) {
            Some(at) => (&self.current, at),
            None => match (index + rows).checked_sub(first_of_current) {
                Some(at) => (&self.before, at),
                None => (&self.above, 0),
            },
        };
        let row = samples
            .get(at * stride..(at + 1) * stride)
            .unwrap_or_default();
        &row[..self.plan.size.0.min(row.len())]
    }
}
