//! GIF decoding by the `gif` library: the first frame on its canvas.

use std::io::Cursor;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::metadata::Orientation;

use crate::image::channel_layout::{DecodedImage, DecodedSamples, memory_limit};
use crate::image::error::{ImageError, UNFINISHED};
use crate::image::info::{ImageFormat, ImageInfo};

/// Decodes the first frame. As in Pillow, the canvas around it has the transparent color of the
/// frame, or else the first color of its palette.
pub(crate) fn decode(bytes: &[u8], header: &ImageInfo) -> Result<DecodedImage, ImageError> {
    let failed = |error: DecodingError| map_error(bytes, &error);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(limit) = NonZeroU64::new(memory_limit(bytes, header)) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(failed)?;
    let global_palette = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.read_next_frame().map_err(failed)?;
    let frame = frame
        .ok_or_else(|| ImageError::truncated(ImageFormat::Gif, bytes, "before its first frame"))?;
    let (width, height) = (header.width as usize, header.height as usize);
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    if left + columns > width || top + rows > height {
        let reason = format_args!(
            "its first frame of {columns} x {rows} pixels at ({left}, {top}) exceeds the canvas of \
             {width} x {height} pixels"
        );
        return Err(ImageError::malformed(ImageFormat::Gif, reason));
    }
    if frame.buffer.len() != columns * rows {
        return Err(ImageError::truncated(ImageFormat::Gif, bytes, UNFINISHED));
    }
    let palette = frame.palette.as_ref().or(global_palette.as_ref());
    let palette = palette.map(Vec::as_slice).unwrap_or_default();
    let color = |index: u8| {
        let color = palette
            .get(3 * usize::from(index)..)
            .and_then(<[u8]>::first_chunk);
        // Pillow completes a palette with black.
        color.copied().unwrap_or([0; 3])
    };
    let mut data = color(frame.transparent.unwrap_or(0)).repeat(width * height);
    if columns > 0 {
        for (row, indices) in frame.buffer.chunks_exact(columns).enumerate() {
            let start = ((top + row) * width + left) * 3;
            let line = data[start..start + 3 * columns].chunks_exact_mut(3);
            for (pixel, &index) in line.zip(indices) {
                pixel.copy_from_slice(&color(index));
            }
        }
    }
    Ok(DecodedImage {
        samples: DecodedSamples::Rgb(data),
        size: (header.width, header.height),
        orientation: Orientation::NoTransforms,
    })
}

fn map_error(bytes: &[u8], error: &DecodingError) -> ImageError {
    match error {
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => {
            ImageError::memory_exceeded(ImageFormat::Gif)
        }
        // Some errors at the end of the bytes have no variant of their own, but this text.
        error if error.to_string() == "Unexpected End of File" => {
            ImageError::truncated(ImageFormat::Gif, bytes, UNFINISHED)
        }
        DecodingError::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(ImageFormat::Gif, bytes, UNFINISHED)
        }
        error => ImageError::malformed(ImageFormat::Gif, error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::borrow::Cow;

    use gif::{Encoder, Frame};

    use crate::batch::reject::RejectCode;
    use crate::image::{Channels, decode};

    const GLOBAL: [u8; 12] = [1, 2, 3, 10, 20, 30, 40, 50, 60, 70, 80, 90];
    const LOCAL: [u8; 12] = [9, 8, 7, 11, 12, 13, 14, 15, 16, 17, 18, 19];

    /// A GIF of 3 x 2 pixels with a frame of 1 x 1, whose index is 1, in the middle above.
    fn gif(left: u16, palette: Option<&[u8]>, transparent: Option<u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 3, 2, &GLOBAL).unwrap();
        let frame = Frame {
            left,
            width: 1,
            height: 1,
            palette: palette.map(<[u8]>::to_vec),
            transparent,
            buffer: Cow::Borrowed(&[1]),
            ..Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
        drop(encoder);
        bytes
    }

    #[test]
    fn canvas_around_the_frame_is_transparent_or_first_color() {
        for (palette, transparent, background) in [
            (None, None, [1, 2, 3]),
            (None, Some(2), [40, 50, 60]),
            (Some(LOCAL.as_slice()), None, [9, 8, 7]),
            (Some(LOCAL.as_slice()), Some(3), [17, 18, 19]),
        ] {
            let pixels = decode(&gif(1, palette, transparent), Channels::Rgb, 6).unwrap();
            let mut expected = background.repeat(6);
            expected[3..6].copy_from_slice(&palette.unwrap_or(&GLOBAL)[3..6]);
            assert_eq!(pixels.data, expected, "{transparent:?}");
        }
    }

    #[test]
    fn transparent_pixels_have_the_color_of_their_index() {
        let pixels = decode(&gif(0, None, Some(1)), Channels::Rgb, 6).unwrap();
        assert_eq!(pixels.data, [10, 20, 30].repeat(6));
    }

    #[test]
    fn frame_beyond_the_canvas_is_malformed() {
        let error = decode(&gif(3, None, None), Channels::Rgb, 6).unwrap_err();
        assert_eq!(error.code(), RejectCode::Malformed);
        assert_eq!(
            error.to_string(),
            "malformed GIF: its first frame of 1 x 1 pixels at (3, 0) exceeds the canvas of 3 x 2 \
             pixels"
        );
    }

    #[test]
    fn gif_cut_before_the_end_of_its_frame_is_truncated() {
        let bytes = gif(0, None, None);
        // The frame ends 4 bytes before the end: its last code, an empty block, and the trailer.
        for cut in 14..bytes.len() - 4 {
            let error = decode(&bytes[..cut], Channels::Rgb, 6).unwrap_err();
            assert_eq!(error.code(), RejectCode::Truncated, "{cut}: {error}");
        }
    }
}
