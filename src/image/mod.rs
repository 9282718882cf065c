//! Images: decode, orient, resize, normalise into tensors, and back.

pub mod decode;
pub mod draft;
pub mod encode;
pub mod error;
pub mod format;
pub mod header;
mod jpeg;
mod library;
mod middle;
pub mod normalise;
mod orient;
mod png;
mod quality;
pub mod random_mark;
pub mod resize;
mod samples;
pub mod ssim;
pub mod watermark;
pub mod size;
pub mod tensor_column;

pub use decode::{Pixels, decode};
pub use encode::{OutputFormat, encode};
pub use error::ImageError;
pub use format::{Channels, Layout, PixelFormat};
pub use header::{DECODING, Format, Header, read_header};
pub use resize::{Area, Fit, Resizer};
pub use size::Size;
