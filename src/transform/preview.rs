//! What a model makes of an image, for people to look at.

use crate::image::{PixelFormat, Pixels};

/// Of larger images the middle is shown, up to this side: noise would not survive being scaled
/// down.
const SIDE: usize = 224;

/// An image as a model was given it, and as it came back.
#[derive(Debug)]
pub struct ImagePreview {
    /// Which record of its batch it is.
    pub ordinal: u32,
    /// What the image was before, and what the model made of it, up to 224 x 224 pixels.
    pub images: [Pixels; 2],
}

impl ImagePreview {
    /// From the values of a tensor before and after; `None` where they are no image of this format.
    pub fn new(
        ordinal: u32,
        format: &PixelFormat,
        shape: &[usize],
        values: [&[f32]; 2],
    ) -> Option<Self> {
        let (height, width) = format.size(shape)?;
        let len = height * width * format.channels.count();
        if len == 0 || values.iter().any(|values| values.len() != len) {
            return None;
        }
        let image = |values: &[f32]| {
            let data = format.denormalize(values);
            Pixels {
                width,
                height,
                channels: format.channels,
                data,
            }
            .center_crop(SIDE)
        };
        Some(Self {
            ordinal,
            images: values.map(image),
        })
    }
}
