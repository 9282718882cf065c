//! Previews of an image before and after a model, for display.

use crate::image::{PixelFormat, Pixels};

/// Maximum side of a preview, in pixels. Larger images are cropped to the center, because scaling
/// down removes noise.
const MAX_SIDE: usize = 224;

/// The input image and the output image of a model.
#[derive(Debug)]
pub struct ImagePreview {
    /// The row ordinal of the record.
    pub ordinal: u32,
    /// The image before and after the model, at most 224 x 224 pixels each.
    pub images: [Pixels; 2],
}

impl ImagePreview {
    /// Creates a preview from the values of a tensor before and after; `None` if they are not a
    /// non-empty image of `format`.
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
        let image = |tensor: &[f32]| {
            let data = format.denormalize(tensor);
            Pixels {
                width,
                height,
                channels: format.channels.decoded(),
                data,
            }
            .center_crop(MAX_SIDE)
        };
        Some(Self {
            ordinal,
            images: values.map(image),
        })
    }
}
