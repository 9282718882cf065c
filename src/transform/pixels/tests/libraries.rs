//! Comparisons with the tensors that the libraries returned, which `tests/preprocess/make_steps.py`
//! made.

use serde::Deserialize;

use super::*;
use crate::image::Pixels;

#[derive(Deserialize)]
struct Fixture {
    images: Vec<RawImage>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct RawImage {
    height: usize,
    width: usize,
    rgb: Vec<u8>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    image: usize,
    /// The options of `pixels`.
    #[serde(default)]
    options: Value,
    /// The file of a model, which describes the options.
    file: Option<String>,
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[test]
fn tensors_equal_those_of_the_libraries_within_one_step() {
    let text = include_str!("../../../../tests/preprocess/steps.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocessor_config.json");
    let mut wrong = Vec::new();
    for case in fixture.cases {
        let RawImage { height, width, rgb } = &fixture.images[case.image];
        let image = Pixels {
            width: *width,
            height: *height,
            channels: Channels::Rgb,
            data: rgb.clone(),
        };
        let image = encode(&image, OutputFormat::Png).unwrap();
        let options = match &case.file {
            Some(file) => {
                std::fs::write(&path, file).unwrap();
                json!({ "preprocessor": path })
            }
            None => case.options,
        };
        let name = format!("{}, image {}", case.name, case.image);
        let plan = plan(options).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        let images = Arc::new(BinaryArray::from(vec![image.as_slice()]));
        let (batch, rejects) = applied(plan.as_ref(), batch(images));
        assert!(rejects.is_empty(), "{name}");
        let schema = batch.records.schema();
        let field = schema.field(1);
        let shape = TensorShape::of(field).unwrap();
        assert_eq!(shape, TensorShape::Fixed(case.shape), "{name}");
        let values = fixed_values(batch.records.column(1)).unwrap();
        let format = PixelFormat::from_field(field).unwrap();
        // One step of 255, by the smallest standard deviation.
        let step = (0..format.channels.count())
            .map(|channel| format.affine(channel).0)
            .fold(0.0, f32::max);
        let distances = values.iter().zip(&case.values);
        let greatest = distances.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // The values of the fixture are rounded to three decimals.
        if greatest > step + 0.001 {
            wrong.push(format!("{name}: {} steps", greatest / step));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
