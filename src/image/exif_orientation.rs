//! Reads the EXIF orientation and applies it to pixels.

use image::metadata::Orientation;

use crate::image::decode::Pixels;

/// Applies the orientation to the image.
pub(super) fn orient(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let Pixels {
        width,
        height,
        channels,
        data,
    } = pixels;
    let (last_column, last_row) = (width.saturating_sub(1), height.saturating_sub(1));
    // The stored column and row of the pixel that moves to (x, y).
    let stored: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        Orientation::NoTransforms => |x, y, _, _| (x, y),
        Orientation::FlipHorizontal => |x, y, right, _| (right - x, y),
        Orientation::Rotate180 => |x, y, right, down| (right - x, down - y),
        Orientation::FlipVertical => |x, y, _, down| (x, down - y),
        Orientation::Rotate90FlipH => |x, y, _, _| (y, x),
        Orientation::Rotate90 => |x, y, _, down| (y, down - x),
        Orientation::Rotate270FlipH => |x, y, right, down| (right - y, down - x),
        Orientation::Rotate270 => |x, y, right, _| (right - y, x),
    };
    let sideways = orientation.to_exif() >= 5;
    let (new_width, new_height) = if sideways {
        (height, width)
    } else {
        (width, height)
    };
    let count = channels.count();
    let mut turned = Vec::with_capacity(data.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (from_x, from_y) = stored(x, y, last_column, last_row);
            turned.extend_from_slice(&data[(from_y * width + from_x) * count..][..count]);
        }
    }
    Pixels {
        width: new_width,
        height: new_height,
        channels,
        data: turned,
    }
}

/// Reads the orientation from an EXIF block, with or without the prefix that JPEG requires and some
/// WebP writers add.
pub(super) fn orientation(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms)
}
