//! JPEG decoding by libjpeg-turbo, at the scale at which latentflow decodes.

use latentflow::image::{Channels, CropBox, Pixels};
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

/// Decodes a JPEG without an orientation, and returns the area of the pixels that it covers. `target`
/// has the height and width to which it is resized.
pub fn decode(
    decoder: &mut Decompressor,
    bytes: &[u8],
    channels: Channels,
    target: Option<usize>,
) -> (Pixels, CropBox) {
    let header = decoder.read_header(bytes).unwrap();
    let is_large_enough =
        |by: &usize| target.is_some_and(|side| header.width.min(header.height) >= 2 * by * side);
    let by = [8, 4, 2].into_iter().find(is_large_enough).unwrap_or(1);
    let factor = ScalingFactor::new(1, by);
    decoder.set_scaling_factor(factor).unwrap();
    let (width, height) = (factor.scale(header.width), factor.scale(header.height));
    let format = match channels {
        Channels::Rgb => PixelFormat::RGB,
        Channels::Bgr => PixelFormat::BGR,
        Channels::Gray => PixelFormat::GRAY,
    };
    let mut data = vec![0; width * height * channels.count()];
    let image = Image {
        pixels: data.as_mut_slice(),
        width,
        pitch: width * channels.count(),
        height,
        format,
    };
    decoder.decompress(bytes, image).unwrap();
    let pixels = Pixels {
        width,
        height,
        channels,
        data,
    };
    let area = CropBox {
        left: 0.0,
        top: 0.0,
        width: header.width as f64 / by as f64,
        height: header.height as f64 / by as f64,
    };
    (pixels, area)
}
