//! The size at which each component is decoded.

use crate::frame::{Component, Frame};
use crate::idct::{last_place, used};
use crate::upsample::Ratio;
use crate::{Channels, Scale};

/// How a component is decoded.
#[derive(Debug, Clone)]
pub(crate) struct ComponentPlan {
    /// Whether the output depends on the component. If not, its coefficients are checked only.
    pub(crate) is_used: bool,
    /// The number of samples of a block, across and down: 1, 2, 4 or 8.
    pub(crate) side: usize,
    /// The last place in zigzag order whose coefficient is used.
    pub(crate) last_place: usize,
    /// The number of columns and rows of samples of the image.
    pub(crate) size: (usize, usize),
    /// The number of blocks of an MCU, across and down.
    pub(crate) sampling: (usize, usize),
    /// The number of columns and rows of blocks, with those that complete the last MCUs.
    pub(crate) blocks: (usize, usize),
    /// The relation of the samples to the image.
    pub(crate) ratio: Ratio,
}

impl ComponentPlan {
    /// The plans of all components.
    pub(crate) fn all(frame: &Frame, scale: Scale, channels: Channels) -> Vec<Self> {
        let components = frame.components.iter().enumerate();
        components
            .map(|(index, component)| {
                let is_used = index == 0 || channels != Channels::Gray;
                Self::new(frame, component, 8 / scale.divisor() as usize, is_used)
            })
            .collect()
    }

    /// `least` is the number of samples of a block of the components with the finest sampling.
    fn new(frame: &Frame, component: &Component, least: usize, is_used: bool) -> Self {
        let (across, down) = component.sampling;
        let (max_across, max_down) = frame.max_sampling;
        // A coarser component is decoded at a larger scale instead of upsampled.
        let mut side = least;
        let fits = |side: usize| {
            (max_across * least).is_multiple_of(across * side)
                && (max_down * least).is_multiple_of(down * side)
        };
        while side < 8 && fits(side * 2) {
            side *= 2;
        }
        let size = (
            (frame.width * across * side).div_ceil(max_across * 8),
            (frame.height * down * side).div_ceil(max_down * 8),
        );
        let ratio_across = reduced(max_across * least, across * side);
        let ratio_down = reduced(max_down * least, down * side);
        // libjpeg repeats the columns of the narrowest images.
        let is_smooth = ratio_across != (2, 1) || size.0 > 2;
        Self {
            is_used,
            side,
            last_place: last_place(side),
            size,
            sampling: component.sampling,
            blocks: frame.padded_blocks(component),
            ratio: Ratio {
                across: ratio_across,
                down: ratio_down,
                is_smooth,
            },
        }
    }

    /// The number of samples of a row of blocks.
    pub(crate) fn stride(&self) -> usize {
        self.blocks.0 * self.side
    }

    /// The number of rows of samples of a row of MCUs.
    pub(crate) fn mcu_rows(&self) -> usize {
        self.sampling.1 * self.side
    }

    /// The bytes of the samples that are in memory.
    pub(crate) fn row_bytes(&self) -> u64 {
        (2 * self.mcu_rows() as u64 + 2) * self.stride() as u64
    }

    /// The bytes of the coefficients of a progressive image, and of the places that are not zero.
    pub(crate) fn coefficient_bytes(&self) -> u64 {
        let blocks = self.blocks.0 as u64 * self.blocks.1 as u64;
        let kept = if self.is_used {
            used(self.side) as u64
        } else {
            0
        };
        blocks * (2 * kept + 8)
    }
}

/// A ratio in lowest terms.
fn reduced(one: usize, other: usize) -> (usize, usize) {
    let (mut a, mut b) = (one, other);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (one / a, other / a)
}
