//! The format and the size of an image.

/// A format of encoded images, detected from their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; for an animation, the default image.
    Png,
    /// WebP, lossy or lossless; for an animation, the first frame.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF; for an animation, the first frame.
    Gif,
    /// TIFF; the first page.
    Tiff,
    /// Portable bitmap, graymap, pixmap or anymap.
    Pnm,
}

impl ImageFormat {
    /// Detects the format from the first bytes, regardless of the file name.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Some(Self::WebP),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            // 43 is BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace() || *space == b'#' => {
                Some(Self::Pnm)
            }
            _ => None,
        }
    }

    /// The extensions of its files in lower case, the usual one first.
    pub(crate) fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jpeg => &["jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp"],
            Self::Png => &["png", "apng"],
            Self::WebP => &["webp"],
            Self::Bmp => &["bmp", "dib"],
            Self::Gif => &["gif"],
            Self::Tiff => &["tif", "tiff"],
            Self::Pnm => &["pnm", "pbm", "pgm", "ppm"],
        }
    }

    /// The usual name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        }
    }
}

/// The format and size of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    /// The format of the encoded image.
    pub format: ImageFormat,
    /// The number of columns as stored, before any EXIF orientation.
    pub width: u32,
    /// The number of rows as stored, before any EXIF orientation.
    pub height: u32,
    /// The peak memory of decoding, in bytes per pixel.
    pub bytes_per_pixel: u64,
}

/// The memory that the decoding of most images takes per pixel, in bytes: the coefficients and the
/// colors of a JPEG, or a copy of four 8-bit channels during their conversion to three. Limits and
/// memory estimates count pixels of this size.
pub(crate) const DECODE_BYTES_PER_PIXEL: u64 = 12;

impl ImageInfo {
    /// The number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The number of pixels of [`DECODE_BYTES_PER_PIXEL`] bytes that take as much memory as the
    /// decoding of the image: more than its pixels if samples are deeper than 8 bits, or if blocks
    /// exceed the image.
    pub(crate) fn charged_pixels(&self) -> u64 {
        // The number of rows and columns of a block of a JPEG at the coarsest subsampling.
        const BLOCK: u64 = 32;
        let padded = |side: u32| {
            if self.format == ImageFormat::Jpeg {
                u64::from(side).next_multiple_of(BLOCK)
            } else {
                side.into()
            }
        };
        let stored = padded(self.width) * padded(self.height);
        let decoded = self
            .pixels()
            .saturating_mul(self.bytes_per_pixel)
            .div_ceil(DECODE_BYTES_PER_PIXEL);
        // Blocks beyond the image are held as coefficients, of up to 9 of the 12 bytes per pixel.
        self.pixels().max(decoded).max(stored * 3 / 4)
    }

    /// Whether the image is within a limit of `max_pixels` pixels of [`DECODE_BYTES_PER_PIXEL`]
    /// bytes.
    pub fn fits(&self, max_pixels: u64) -> bool {
        self.pixels() <= max_pixels
            && self.pixels().saturating_mul(self.bytes_per_pixel)
                <= max_pixels.saturating_mul(DECODE_BYTES_PER_PIXEL)
    }
}
