//! Center crops of images, for display.

use crate::image::pixels::Pixels;

impl Pixels {
    /// The center of the image, at most `side` pixels wide and high.
    #[must_use]
    pub(crate) fn center_crop(&self, side: usize) -> Self {
        let (width, height) = (self.width.min(side), self.height.min(side));
        let (left, top) = ((self.width - width) / 2, (self.height - height) / 2);
        let channels = self.channels.count();
        let row = |y: usize| {
            let start = ((top + y) * self.width + left) * channels;
            &self.data[start..start + width * channels]
        };
        let data = (0..height).flat_map(row).copied().collect();
        Self {
            width,
            height,
            channels: self.channels,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    #[test]
    fn center_of_a_large_image_is_cropped() {
        let image = Pixels {
            width: 5,
            height: 3,
            channels: Channels::Gray,
            data: (0..15).collect(),
        };
        let cropped = image.center_crop(2);
        assert_eq!(
            (cropped.width, cropped.height, cropped.data),
            (2, 2, vec![1, 2, 6, 7])
        );
        assert_eq!(image.center_crop(9), image);
    }
}
