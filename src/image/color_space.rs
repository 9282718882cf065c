//! The color space of pixels: as stored, or converted to sRGB by their color profile.

use arrow::datatypes::Field;
use moxcms::{CmsError, ColorProfile, DataColorSpace, Layout, TransformOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::error::ImageError;
use crate::image::pixel_format::Channels;
use crate::image::pixels::Pixels;

/// The color space of pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColorSpace {
    /// That of the file: color profiles are not applied, as in Pillow.
    #[default]
    Stored,
    /// sRGB: the color profile of a file is applied. Files without a profile are sRGB.
    Srgb,
}

/// The key of a column's metadata that states that its pixels are sRGB.
const METADATA: &str = "latentflow.color_space";
const SRGB: &str = "srgb";

impl ColorSpace {
    /// Reads the color space from a column's metadata.
    pub(crate) fn of_field(field: &Field) -> Self {
        match field.metadata().get(METADATA).map(String::as_str) {
            Some(SRGB) => Self::Srgb,
            _ => Self::Stored,
        }
    }

    /// Adds the color space to the metadata of the field.
    #[must_use]
    pub(crate) fn annotate(self, field: Field) -> Field {
        match self {
            Self::Stored => field,
            Self::Srgb => {
                let mut metadata = field.metadata().clone();
                metadata.insert(METADATA.to_owned(), SRGB.to_owned());
                field.with_metadata(metadata)
            }
        }
    }
}

/// Converts pixels, gray or RGB, from the color space of an ICC profile to sRGB.
///
/// # Errors
/// [`ImageError::Malformed`] if the profile is invalid, and [`ImageError::Unsupported`] if it is not
/// one of gray or RGB pixels.
pub(crate) fn to_srgb(pixels: &mut Pixels, icc: &[u8]) -> Result<(), ImageError> {
    let invalid = |error: CmsError| {
        ImageError::Malformed(format!(
            "malformed color profile: {error}; remove color_space to ignore profiles"
        ))
    };
    let profile = ColorProfile::new_from_slice(icc).map_err(invalid)?;
    let (target, options) = (
        ColorProfile::new_srgb(),
        TransformOptions {
            // The results do not depend on the registers of the processor.
            prefer_fixed_point: true,
            ..TransformOptions::default()
        },
    );
    let source = match (profile.color_space, pixels.channels) {
        (DataColorSpace::Gray, _) => Layout::Gray,
        (DataColorSpace::Rgb, Channels::Rgb | Channels::Bgr) => Layout::Rgb,
        (space, _) => {
            return Err(ImageError::Unsupported(format!(
                "a color profile of the space {space:?} cannot be applied to {} pixels; remove \
                 color_space to ignore profiles",
                match pixels.channels {
                    Channels::Gray => "gray",
                    Channels::Rgb | Channels::Bgr => "RGB",
                }
            )));
        }
    };
    let transform = profile
        .create_transform_8bit(source, &target, Layout::Rgb, options)
        .map_err(invalid)?;
    let count = pixels.channels.count();
    let (from, step) = match source {
        // The channels of a gray image are equal.
        Layout::Gray if count > 1 => {
            let gray = pixels.data.iter().step_by(count);
            (gray.copied().collect(), 1)
        }
        Layout::Gray => (std::mem::take(&mut pixels.data), 1),
        _ => (std::mem::take(&mut pixels.data), 3),
    };
    let mut converted = vec![0; from.len() / step * 3];
    transform
        .transform(&from, &mut converted)
        .map_err(invalid)?;
    pixels.data = match count {
        // The primaries of sRGB give equal channels for gray.
        1 => converted.into_iter().step_by(3).collect(),
        _ => converted,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pixels(channels: Channels, data: &[u8]) -> Pixels {
        Pixels {
            width: data.len() / channels.count(),
            height: 1,
            channels,
            data: data.to_vec(),
        }
    }

    #[test]
    fn wide_colors_become_those_of_srgb() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        let mut colors = pixels(Channels::Rgb, &[200, 100, 50, 128, 128, 128, 0, 255, 0]);
        to_srgb(&mut colors, &p3).unwrap();
        // Computed in floating point with the matrix between the primaries of both spaces.
        let expected = [215, 93, 31, 128, 128, 128, 0, 255, 0];
        for (found, value) in colors.data.iter().zip(expected) {
            assert!(found.abs_diff(value) <= 1, "{:?}", colors.data);
        }
        let srgb = ColorProfile::new_srgb().encode().unwrap();
        let data: Vec<u8> = (0..=254).collect();
        let mut same = pixels(Channels::Rgb, &data);
        to_srgb(&mut same, &srgb).unwrap();
        assert!(
            same.data
                .iter()
                .zip(&data)
                .all(|(a, b)| a.abs_diff(*b) <= 1)
        );
    }

    #[test]
    fn gray_profile_applies_to_gray_images_of_any_channels() {
        let linear = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
        for channels in [Channels::Gray, Channels::Rgb] {
            let mut image = pixels(channels, &[55; 3]);
            to_srgb(&mut image, &linear).unwrap();
            // 255 * (1.055 * (55 / 255)^(1 / 2.4) - 0.055)
            assert_eq!(image.data.len(), 3);
            assert!(
                image.data.iter().all(|value| value.abs_diff(128) <= 1),
                "{:?}",
                image.data
            );
        }
    }

    #[test]
    fn invalid_profiles_and_other_spaces_are_errors() {
        let mut image = pixels(Channels::Gray, &[1]);
        let error = to_srgb(&mut image, b"no profile").unwrap_err();
        assert!(matches!(error, ImageError::Malformed(_)), "{error}");
        let rgb = ColorProfile::new_srgb().encode().unwrap();
        let mismatch = to_srgb(&mut image, &rgb).unwrap_err().to_string();
        assert!(
            mismatch.contains("cannot be applied to gray pixels"),
            "{mismatch}"
        );
        assert_eq!(image.data, [1], "the pixels stay as they are");
    }
}
