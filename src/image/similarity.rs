//! PSNR and SSIM of two image tensors, independent of the scale and layout of the pixels.

use crate::eval_metrics::psnr;
use crate::image::pixel_format::PixelFormat;
use crate::image::ssim::ssim;

impl PixelFormat {
    /// Peak signal-to-noise ratio of two tensors of `shape`, in decibels. The peak of a channel is
    /// 255 8-bit steps in the scale of the tensor. Infinite if the tensors are equal; `None` if the
    /// shape does not match the format.
    pub fn psnr(&self, shape: &[usize], x: &[f32], y: &[f32]) -> Option<f64> {
        let (height, width) = self.size(shape)?;
        let pixels = height * width;
        let channels = (0..self.channels.count()).map(|channel| {
            let peak = 255.0 * f64::from(self.affine(channel).0);
            let indices = (0..pixels).map(|pixel| self.index(channel, pixel, pixels));
            indices
                .map(|at| ((f64::from(x[at]) - f64::from(y[at])) / peak).powi(2))
                .sum::<f64>()
        });
        Some(psnr(channels.sum::<f64>() / x.len() as f64, 1.0))
    }

    /// Mean structural similarity of the channels of two tensors of `shape`, at most 1; `None` if
    /// the shape does not match the format, or is smaller than the window.
    pub fn ssim(&self, shape: &[usize], x: &[f32], y: &[f32]) -> Option<f64> {
        let (height, width) = self.size(shape)?;
        let pixels = height * width;
        let channels = self.channels.count();
        let channel = |channel| {
            let (step, black) = self.affine(channel);
            let level = |values: &[f32], pixel| {
                (f64::from(values[self.index(channel, pixel, pixels)]) - f64::from(black))
                    / f64::from(step)
            };
            ssim(
                height,
                width,
                |pixel| level(x, pixel),
                |pixel| level(y, pixel),
            )
        };
        let sum = (0..channels).map(channel).sum::<Option<f64>>()?;
        Some(sum / channels as f64)
    }
}
