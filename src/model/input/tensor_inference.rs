//! The layout, channels and size of images that the shape of a tensor implies.

use crate::image::pixel_format::{Channels, TensorLayout};
use crate::model::tensor_spec::{Dim, TensorSpec};

/// Infers layout and channels from the dimensions, if they have 1 or 3 channels.
pub(super) fn infer_image(spec: &TensorSpec) -> Option<(TensorLayout, Channels)> {
    let channels = |dim: &Dim| match dim {
        Dim::Fixed(1) => Some(Channels::Gray),
        Dim::Fixed(3) => Some(Channels::Rgb),
        _ => None,
    };
    let [_, second, _, last] = spec.dims.as_slice() else {
        return None;
    };
    let planes = channels(second).map(|channels| (TensorLayout::Nchw, channels));
    planes.or_else(|| channels(last).map(|channels| (TensorLayout::Nhwc, channels)))
}

/// The height and width that the dimensions fix.
pub(super) fn fixed_size(layout: TensorLayout, spec: &TensorSpec) -> Option<(usize, usize)> {
    match (layout, spec.dims.as_slice()) {
        (TensorLayout::Nchw, &[_, _, Dim::Fixed(height), Dim::Fixed(width)])
        | (TensorLayout::Nhwc, &[_, Dim::Fixed(height), Dim::Fixed(width), _]) => {
            Some((height, width))
        }
        _ => None,
    }
}
