//! The decoders that are compared.

use anyhow::{Result, anyhow};
use scaled_jpeg::{Channels, Decoder, Limits, Scale};
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Decodes JPEGs to RGB.
pub trait DecodeImage {
    /// The name in the table.
    fn name(&self) -> &'static str;

    /// Decodes an image into `out`, which keeps its memory from image to image.
    fn decode(&mut self, bytes: &[u8], scale: Scale, out: &mut Vec<u8>) -> Result<()>;
}

/// `scaled-jpeg`.
pub struct Ours;

impl DecodeImage for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn decode(&mut self, bytes: &[u8], scale: Scale, out: &mut Vec<u8>) -> Result<()> {
        let decoder = Decoder::new(bytes, Limits::default())?;
        let (width, height) = decoder.scaled_size(scale);
        out.resize(width as usize * height as usize * 3, 0);
        Ok(decoder.decode_into(scale, Channels::Rgb, out)?)
    }
}

/// libjpeg-turbo with its accurate transform and its interpolation of chroma, the default.
pub struct Turbo(Decompressor);

impl Turbo {
    /// A decoder that keeps its memory from image to image.
    pub fn new() -> Result<Self> {
        Ok(Self(Decompressor::new()?))
    }
}

impl DecodeImage for Turbo {
    fn name(&self) -> &'static str {
        "turbo"
    }

    fn decode(&mut self, bytes: &[u8], scale: Scale, out: &mut Vec<u8>) -> Result<()> {
        let factor = ScalingFactor::new(1, scale.divisor() as usize);
        self.0.set_scaling_factor(factor)?;
        let size = self.0.read_header(bytes)?.scaled(factor);
        out.resize(size.width * size.height * 3, 0);
        let image = Image {
            pixels: out.as_mut_slice(),
            width: size.width,
            pitch: size.width * 3,
            height: size.height,
            format: PixelFormat::RGB,
        };
        Ok(self.0.decompress(bytes, image)?)
    }
}

/// `zune-jpeg`, at full size.
pub struct Zune;

impl DecodeImage for Zune {
    fn name(&self) -> &'static str {
        "zune"
    }

    fn decode(&mut self, bytes: &[u8], _: Scale, out: &mut Vec<u8>) -> Result<()> {
        let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers()?;
        let size = decoder.output_buffer_size();
        out.resize(size.ok_or_else(|| anyhow!("the size is unknown"))?, 0);
        Ok(decoder.decode_into(out)?)
    }
}
