//! The continuous filters, as functions of the distance in samples.

use std::f64::consts::PI;

use crate::image::resample::options::ResampleFilter;

/// The parameter of cubic interpolation in OpenCV, and in PyTorch without antialiasing.
pub(super) const STEEP: f64 = -0.75;
/// The parameter of cubic interpolation of Keys (1981), in Pillow, TensorFlow and PyTorch with
/// antialiasing.
pub(super) const KEYS: f64 = -0.5;

/// The distance beyond which the filter is 0.
pub(super) fn radius(filter: ResampleFilter) -> f64 {
    match filter {
        ResampleFilter::Nearest | ResampleFilter::Box => 0.5,
        ResampleFilter::Bilinear | ResampleFilter::Hamming => 1.0,
        ResampleFilter::Bicubic => 2.0,
        ResampleFilter::Lanczos => 3.0,
    }
}

/// The weight of a sample at distance `x`.
pub(super) fn weight(filter: ResampleFilter, x: f64) -> f64 {
    match filter {
        ResampleFilter::Nearest | ResampleFilter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        ResampleFilter::Bilinear => (1.0 - x.abs()).max(0.0),
        ResampleFilter::Hamming if x == 0.0 => 1.0,
        ResampleFilter::Hamming if x.abs() >= 1.0 => 0.0,
        ResampleFilter::Hamming => sinc(x) * (0.54 + 0.46 * (PI * x).cos()),
        ResampleFilter::Bicubic => cubic(x, KEYS),
        ResampleFilter::Lanczos => lanczos(x, 3.0),
    }
}

/// Cubic convolution with the parameter `a`.
///
/// Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// The sinc function, windowed by its central lobe, which is stretched to `lobes`.
pub(super) fn lanczos(x: f64, lobes: f64) -> f64 {
    if x.abs() >= lobes {
        0.0
    } else {
        sinc(x) * sinc(x / lobes)
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}
