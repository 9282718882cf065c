//! Moments that decay to 0.

/// The minimum magnitude of a moment other than 0.
pub(super) const MIN_MOMENT: f32 = 1e-30;

/// Replaces values below a magnitude with 0. Without gradients, as those of a unit that no record
/// activates, a moment would decay to subnormal numbers, with which operations take up to a hundred
/// times as long.
#[inline(always)]
pub(super) fn without_tiny(value: f32, minimum: f32) -> f32 {
    if value.abs() < minimum { 0.0 } else { value }
}
