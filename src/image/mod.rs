//! Images: decoding, orientation, resizing, normalization to tensors, and the inverse.

pub mod decode;
pub mod encode;
pub mod error;
pub mod pixel_format;
pub mod probe;
mod jpeg;
mod gif;
mod image_rs;
mod center_crop;
pub mod normalize;
mod exif_orientation;
mod png;
mod png_text;
mod tiff;
mod similarity;
pub mod random_watermark;
pub mod resize;
mod row_resizer;
mod channel_layout;
pub mod ssim;
pub mod value_range;
pub mod watermark;
pub mod target_size;
pub mod tensor_column;

pub use decode::{DecodeMode, DecodeOptions, Pixels, decode, decode_resized, decode_with};
pub use encode::{OutputFormat, encode};
pub use error::ImageError;
pub use pixel_format::{Channels, PixelFormat, TensorLayout};
pub use probe::{DECODE_BYTES_PER_PIXEL, ImageFormat, ImageInfo, probe};
pub use resize::{CropBox, ResizeMode, Resizer};
pub use target_size::TargetSize;
pub use value_range::ValueRange;
