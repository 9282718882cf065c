//! Peak signal-to-noise ratio.

/// Returns `10 log10(range² / mse)` in decibels, for values whose minimum and maximum differ by
/// `range` (255 for 8-bit pixels). The result is infinite if `mse` is 0.
pub fn psnr(mse: f64, range: f64) -> f64 {
    10.0 * (range * range / mse).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_of_sigma_25_in_8_bits_is_20_decibels() {
        // 20 log10(255 / 25)
        assert!((psnr(625.0, 255.0) - 20.172).abs() < 5e-4);
        assert_eq!(psnr(0.01, 1.0), 20.0);
        assert_eq!(psnr(0.0, 1.0), f64::INFINITY);
    }
}
