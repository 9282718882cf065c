//! Images: decode, orient, resize, normalise into tensors, and back.

pub mod format;
pub mod ssim;
pub mod watermark;
