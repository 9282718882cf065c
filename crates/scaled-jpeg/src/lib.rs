//! A strict JPEG decoder in safe Rust that decodes at full, 1/2, 1/4 or 1/8 size.
//!
//! A thumbnail needs few of the coefficients of an image. At a reduced [`Scale`], only those are read
//! one by one; the others are skipped, several at a time. Baseline, extended and progressive images
//! with Huffman coding and 8 bits per sample are decoded, in any sampling and with one to four
//! components. Arithmetic coding, lossless and hierarchical images and 12 bits per sample are refused.
//!
//! An image that is truncated or corrupt is an error, also where its coefficients are not needed. Sizes,
//! scans and segments are bounded by [`Limits`].
//!
//! At full size, samples equal those of libjpeg with its accurate integer transform and its
//! interpolation of chroma. At a reduced size, they are those of the band-limited image; chroma that
//! is stored at half the size is decoded at twice the scale and is not interpolated.

mod bit_reader;
mod block_reader;
mod color_conversion;
mod coefficient_table;
mod component_plan;
mod error;
mod frame;
mod headers;
mod huffman;
mod idct;
mod markers;
mod row_output;
mod progressive;
mod run_table;
mod scan_blocks;
mod sequential;
mod upsample;
mod simd;

use component_plan::ComponentPlan;
pub use error::Error;
use headers::Headers;
use row_output::RowOutput;
use simd::Vectors;
use simd::portable::Portable;

/// The size of the decoded image in relation to the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// The stored size.
    Full,
    /// Half of the width and of the height, rounded up.
    Half,
    /// A quarter of the width and of the height, rounded up.
    Quarter,
    /// An eighth of the width and of the height, rounded up.
    Eighth,
}

impl Scale {
    /// The scales, from the largest image to the smallest.
    pub const ALL: [Self; 4] = [Self::Full, Self::Half, Self::Quarter, Self::Eighth];

    /// The divisor of the width and of the height: 1, 2, 4 or 8.
    #[must_use]
    pub fn divisor(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }
}

/// The values of a decoded pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// The first component: luma of [`ColorModel::Gray`], [`ColorModel::YCbCr`] and
    /// [`ColorModel::Ycck`].
    Gray,
    /// Red, green and blue.
    Rgb,
    /// All components without a conversion of colors, for containers that state their meaning.
    Components,
}

impl Channels {
    /// The number of values of a pixel of an image with this number of components.
    fn count(self, components: usize) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
            Self::Components => components,
        }
    }
}

/// Reads the stored width and height in pixels. Segments after the frame header are read only if
/// the number of lines follows the first scan.
///
/// # Errors
/// If the header is truncated, malformed, or of a kind that is not supported.
pub fn read_size(bytes: &[u8], limits: Limits) -> Result<(u32, u32), Error> {
    let frame = Headers::read_frame(bytes, &limits)?;
    // Both are below 65,536.
    Ok((frame.width as u32, frame.height as u32))
}

/// The meaning of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorModel {
    /// One component.
    Gray,
    /// Luma and two color differences, as in JFIF.
    YCbCr,
    /// Red, green and blue.
    Rgb,
    /// Four inks; values are shares of light, as Adobe's programs store them.
    Cmyk,
    /// Luma and color differences of three inks, and black.
    Ycck,
}

/// Bounds on the cost of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of pixels of the stored image.
    pub pixels: u64,
    /// Maximum number of scans. Encoders of progressive images write about 10, and each costs a pass
    /// over all coefficients.
    pub scans: usize,
    /// Maximum number of marker segments. The largest profiles and depth maps take a few hundred.
    pub segments: usize,
}

impl Default for Limits {
    /// 100 megapixels, 64 scans, 2048 segments.
    fn default() -> Self {
        Self {
            pixels: 100_000_000,
            scans: 64,
            segments: 2048,
        }
    }
}

/// A JPEG whose header was read.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    limits: Limits,
    headers: Headers<'a>,
}

impl<'a> Decoder<'a> {
    /// Reads the header of the first image of a file, up to its first scan.
    ///
    /// # Errors
    /// If the header is truncated, malformed, of a kind that is not supported, or exceeds the limits.
    pub fn new(bytes: &'a [u8], limits: Limits) -> Result<Self, Error> {
        let headers = Headers::read(bytes, &limits)?;
        Ok(Self {
            bytes,
            limits,
            headers,
        })
    }

    /// The stored width and height in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        let frame = &self.headers.frame;
        // Both are below 65,536.
        (frame.width as u32, frame.height as u32)
    }

    /// The meaning of the components.
    #[must_use]
    pub fn color_model(&self) -> ColorModel {
        self.headers.color_model()
    }

    /// The number of values of a decoded pixel: 1 for gray, 3 for RGB, and one of each component.
    #[must_use]
    pub fn values_per_pixel(&self, channels: Channels) -> usize {
        channels.count(self.headers.frame.components.len())
    }

    /// Whether the image is progressive, so that its coefficients are kept in memory.
    #[must_use]
    pub fn is_progressive(&self) -> bool {
        self.headers.frame.progressive
    }

    /// The application segments of the header: the second byte of the marker, such as 0xe1 for APP1,
    /// and the body.
    pub fn app_segments(&self) -> impl Iterator<Item = (u8, &'a [u8])> + '_ {
        self.headers.app_segments.iter().copied()
    }

    /// The width and height of the image at a scale.
    #[must_use]
    pub fn scaled_size(&self, scale: Scale) -> (u32, u32) {
        let (width, height) = self.size();
        let by = scale.divisor();
        (width.div_ceil(by), height.div_ceil(by))
    }

    /// The maximum number of bytes that decoding takes in addition to the file and the output.
    #[must_use]
    pub fn memory(&self, scale: Scale) -> u64 {
        let plans = self.plans(scale, Channels::Rgb);
        let rows: u64 = plans.iter().map(ComponentPlan::row_bytes).sum();
        let coefficients = match self.headers.frame.progressive || !self.headers.is_interleaved {
            true => plans.iter().map(ComponentPlan::coefficient_bytes).sum(),
            false => 0,
        };
        rows + coefficients + FIXED_BYTES
    }

    /// Decodes the image into `out`, row by row, with [`Self::values_per_pixel`] bytes per pixel.
    ///
    /// # Errors
    /// If the image is truncated or corrupt.
    ///
    /// # Panics
    /// If `out` has another length than the image.
    pub fn decode_into(
        self,
        scale: Scale,
        channels: Channels,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let (width, height) = self.scaled_size(scale);
        let row_bytes = width as usize * self.values_per_pixel(channels);
        assert_eq!(
            out.len(),
            row_bytes * height as usize,
            "the length of the output differs from that of the image"
        );
        let mut rows = out.chunks_exact_mut(row_bytes);
        self.decode_rows(scale, channels, |row| {
            if let Some(out) = rows.next() {
                out.copy_from_slice(row);
            }
        })
    }

    /// Decodes the image to a new buffer, as [`Self::decode_into`].
    ///
    /// # Errors
    /// If the image is truncated or corrupt.
    pub fn decode(self, scale: Scale, channels: Channels) -> Result<Vec<u8>, Error> {
        let (width, height) = self.scaled_size(scale);
        let values = self.values_per_pixel(channels);
        let mut out = vec![0; width as usize * height as usize * values];
        self.decode_into(scale, channels, &mut out)?;
        Ok(out)
    }

    /// Decodes the image and calls `each` with its rows from the top. The rows of an image that is
    /// not progressive are passed while it is decoded, so only some of them are in memory; an error
    /// may follow the first ones.
    ///
    /// # Errors
    /// If the image is truncated or corrupt.
    pub fn decode_rows(
        self,
        scale: Scale,
        channels: Channels,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let plans = self.plans(scale, channels);
        let model = self.color_model();
        let (width, height) = self.scaled_size(scale);
        let mut output = RowOutput::new(plans, model, channels, (width, height), &mut each);
        let decoding = Decoding {
            decoder: self,
            output: &mut output,
            vectors: Portable,
        };
        dispatch(decoding)
    }

    fn plans(&self, scale: Scale, channels: Channels) -> Vec<ComponentPlan> {
        ComponentPlan::all(&self.headers.frame, scale, channels)
    }
}

/// Decodes with the vectors of this processor.
fn dispatch(decoding: Decoding<'_, '_, '_, Portable>) -> Result<(), Error> {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        use simd::avx2::Avx2;

        if let Some(simd) = V4::try_new() {
            return simd.vectorize(decoding.with(Avx2(*simd)));
        }
        if let Some(simd) = V3::try_new() {
            return simd.vectorize(decoding.with(Avx2(simd)));
        }
    }
    pulp::Arch::new().dispatch(decoding)
}

/// The work on an image, which is compiled for the registers of each kind of processor.
struct Decoding<'w, 'a, 'f, V> {
    decoder: Decoder<'a>,
    output: &'w mut RowOutput<'f>,
    vectors: V,
}

impl<'w, 'a, 'f, V> Decoding<'w, 'a, 'f, V> {
    #[cfg(target_arch = "x86_64")]
    fn with<W>(self, vectors: W) -> Decoding<'w, 'a, 'f, W> {
        Decoding {
            decoder: self.decoder,
            output: self.output,
            vectors,
        }
    }
}

impl<V: Vectors> pulp::NullaryFnOnce for Decoding<'_, '_, '_, V> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn call(self) -> Result<(), Error> {
        let Decoder {
            bytes,
            limits,
            headers,
        } = self.decoder;
        if headers.frame.progressive || !headers.is_interleaved {
            progressive::decode(bytes, &limits, headers, self.output, self.vectors)
        } else {
            sequential::decode(bytes, &limits, headers, self.output, self.vectors)
        }
    }
}

/// Bytes that any image takes: Huffman tables, and the copied part of a scan.
const FIXED_BYTES: u64 = 256 << 10;
