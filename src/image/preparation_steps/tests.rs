//! Unit tests of the module `preparation_steps`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::image::preprocess::Preprocessor;
use crate::image::preprocess::preset::PixelPreset;

fn preparation(preset: PixelPreset) -> ImagePreparation {
    let options = preset.options();
    let steps = Preprocessor::new(&options.steps).map(Sizing::Steps);
    ImagePreparation {
        format: options.format,
        sizing: steps.unwrap_or(Sizing::Original),
        max_pixels: 1 << 20,
        value_range: None,
        color_space: ColorSpace::Stored,
    }
}

#[test]
fn table_lists_steps_with_sizes_and_ranges() {
    let imagenet = preparation(PixelPreset::Imagenet);
    assert_eq!(
        imagenet.steps(None).to_string(),
        "  decode to rgb                                    any size       0 to 255
  resize shorter side to 256 (bilinear of pillow)  any size       0 to 255
  center crop 224 x 224                            224 x 224      0 to 255
  scale to [0, 1]                                  224 x 224      0 to 1
  subtract mean [0.485, 0.456, 0.406]              224 x 224      -0.485 to 0.594
  divide by std [0.229, 0.224, 0.225]              224 x 224      -2.1179 to 2.64
  float32 tensor                                   3 x 224 x 224  -2.1179 to 2.64
"
    );
    let sizes: Vec<String> = imagenet
        .steps(Some((500, 375)))
        .0
        .into_iter()
        .map(|step| step.shape)
        .collect();
    assert_eq!(
        sizes,
        [
            "500 x 375",
            "341 x 256",
            "224 x 224",
            "224 x 224",
            "224 x 224",
            "224 x 224",
            "3 x 224 x 224"
        ]
    );
}

#[test]
fn reversed_channels_and_original_sizes_are_listed() {
    let caffe = preparation(PixelPreset::KerasCaffe);
    assert_eq!(
        caffe.steps(None).to_string(),
        "  decode to rgb                             any size            0 to 255
  reverse channels to bgr                   any size            0 to 255
  subtract mean [103.939, 116.779, 123.68]  any size            -123.68 to 151.061
  float32 tensor                            height x width x 3  -123.68 to 151.061
"
    );
}
