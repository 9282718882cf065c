//! Unit tests of the module `pixels`.

#![allow(clippy::unwrap_used)]

mod libraries;

use arrow::array::{BinaryArray, LargeBinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};

use super::*;
use crate::batch::provenance::{Provenance, Split};
use crate::columns::IMAGE;
use crate::image::{Channels, DecodeMode, OutputFormat, PixelFormat, encode};
use crate::model::ImageInput;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::find;
use crate::tensor::{TensorShape, fixed_values, variable_row};
use crate::transform::TransformConfig;
use crate::transform::pixels::config::PixelsConfig;
use crate::transform::registry::KINDS;

fn context() -> PlanContext {
    PlanContext::new(Default::default(), PipelineLimits::default())
}

fn input(image: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new(IMAGE, image, true),
    ]))
}

fn plan(options: Value) -> Result<Box<dyn TransformPlan>, Vec<(String, String)>> {
    let kind = find(KINDS, "pixels", "transform").unwrap();
    let planned = (kind.plan)(options, &input(DataType::Binary), &context());
    planned.map(|planned| planned.stage).map_err(|faults| {
        faults
            .into_iter()
            .map(|fault| (fault.key, fault.message))
            .collect()
    })
}

fn faults(options: Value) -> Vec<(String, String)> {
    plan(options).err().unwrap()
}

/// Encodes a gray image whose pixels are all `value`.
fn png(width: usize, height: usize, value: u8) -> Vec<u8> {
    let data = vec![value; width * height];
    encode(
        &crate::image::Pixels {
            width,
            height,
            channels: Channels::Gray,
            data,
        },
        OutputFormat::Png,
    )
    .unwrap()
}

fn batch(images: ArrayRef) -> Batch {
    let sources: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..images.len()).map(|row| row.to_string()),
    ));
    let provenance = Provenance::rows(Split::new("test"), 0..images.len() as u64);
    let records =
        RecordBatch::try_new(input(images.data_type().clone()), vec![sources, images]).unwrap();
    Batch::new(records, provenance)
}

fn applied(plan: &dyn TransformPlan, batch: Batch) -> (Batch, Vec<(u32, RejectCode)>) {
    let mut rejects = RejectCollector::default();
    let batch = plan.build().unwrap().apply(batch, &mut rejects).unwrap();
    assert_eq!(batch.records.schema(), plan.schema());
    (
        batch,
        rejects
            .into_vec()
            .into_iter()
            .map(|reject| (reject.ordinal, reject.code))
            .collect(),
    )
}

#[test]
fn valid_images_become_tensors_and_others_are_rejected() {
    let plan = plan(json!({ "size": [2, 3], "channels": "gray", "range": [0.0, 255.0] })).unwrap();
    let (first, last) = (png(30, 20, 7), png(3, 2, 9));
    let images = [
        Some(first.as_slice()),
        None,
        Some(b"not an image"),
        Some(&first[..50]),
        Some(&last),
    ];
    let (batch, rejects) = applied(
        plan.as_ref(),
        batch(Arc::new(BinaryArray::from(images.to_vec()))),
    );

    let expected = [
        (1, RejectCode::Missing),
        (2, RejectCode::Unsupported),
        (3, RejectCode::Truncated),
    ];
    assert_eq!(rejects, expected);
    assert_eq!(batch.row_ordinals, [0, 4]);
    let field = batch.records.schema_ref().field(1).clone();
    assert_eq!(field.name(), "pixels");
    assert_eq!(
        TensorShape::of(&field),
        Some(TensorShape::Fixed(vec![1, 2, 3]))
    );
    assert_eq!(
        PixelFormat::from_field(&field).unwrap().channels,
        Channels::Gray
    );
    assert_eq!(
        fixed_values(batch.records.column(1)).unwrap(),
        [[7.0; 6], [9.0; 6]].concat()
    );
}

#[test]
fn images_of_original_size_keep_their_sizes() {
    let options = json!({
        "size": "original",
        "layout": "nhwc",
        "range": [0.0, 255.0],
        "keep": true,
        "to": "x",
    });
    let plan = plan(options).unwrap();
    assert_eq!(plan.bytes_per_pixel(), 12);
    let (wide, tall) = (png(3, 1, 7), png(1, 2, 9));
    let images = BinaryArray::from(vec![wide.as_slice(), &wide[..9], tall.as_slice()]);
    let (batch, rejects) = applied(plan.as_ref(), batch(Arc::new(images)));

    assert_eq!(rejects, [(1, RejectCode::Truncated)]);
    let names: Vec<&String> = batch
        .records
        .schema_ref()
        .fields()
        .iter()
        .map(|field| field.name())
        .collect();
    assert_eq!(names, ["source", "image", "x"]);
    let tensors = batch.records.column(2);
    assert_eq!(
        variable_row(tensors, 0).unwrap(),
        ([7.0; 9].as_slice(), vec![1, 3, 3])
    );
    assert_eq!(
        variable_row(tensors, 1).unwrap(),
        ([9.0; 6].as_slice(), vec![2, 1, 3])
    );
}

#[test]
fn value_range_scales_deep_samples_and_must_ascend() {
    let mut deep = std::io::Cursor::new(Vec::new());
    let samples = image::ImageBuffer::from_pixel(2, 1, image::Luma([2048_u16]));
    image::DynamicImage::ImageLuma16(samples)
        .write_to(&mut deep, image::ImageFormat::Tiff)
        .unwrap();
    let images = || batch(Arc::new(BinaryArray::from(vec![deep.get_ref().as_slice()])));
    let options = json!({ "size": [1, 1], "channels": "gray", "range": [0.0, 255.0] });
    let (_, rejects) = applied(plan(options.clone()).unwrap().as_ref(), images());
    assert_eq!(rejects, [(0, RejectCode::Unsupported)]);
    let mut ranged = options;
    ranged["value_range"] = json!([0, 4095]);
    let ranged_plan = plan(ranged.clone()).unwrap();
    let steps = ranged_plan.image_preparation().unwrap().steps(None);
    assert_eq!(steps.0[0].operation, "decode to gray, values 0..4095");
    let (levels, _) = applied(ranged_plan.as_ref(), images());
    assert_eq!(fixed_values(levels.records.column(1)).unwrap(), [128.0]);
    ranged["value_range"] = json!([4095, 0]);
    assert_eq!(
        faults(ranged),
        [(
            "value_range".to_owned(),
            "[4095, 0] is not a range of sample values; expected the values of black and of \
                 white in ascending order, such as [0, 4095]"
                .to_owned()
        )]
    );
}

#[test]
fn batch_without_valid_images_becomes_empty() {
    for size in [json!([2, 2]), json!("original")] {
        let plan = plan(json!({ "size": size })).unwrap();
        for images in [vec![], vec![Some(b"x".as_slice()), None]] {
            let (batch, rejects) = applied(
                plan.as_ref(),
                batch(Arc::new(BinaryArray::from(images.clone()))),
            );
            assert_eq!((batch.records.num_rows(), rejects.len()), (0, images.len()));
        }
    }
}

#[test]
fn large_binary_columns_are_decoded() {
    let mut config = PixelsConfig {
        size: Some(TargetSize::Fixed(1, 1)),
        ..PixelsConfig::default()
    };
    let plan = config
        .plan(&input(DataType::LargeBinary), &context())
        .unwrap();
    let (batch, _) = applied(
        plan.as_ref(),
        batch(Arc::new(LargeBinaryArray::from(vec![
            png(1, 1, 255).as_slice(),
        ]))),
    );
    assert_eq!(fixed_values(batch.records.column(1)).unwrap(), [1.0; 3]);
}

#[test]
fn image_above_the_pixel_limit_is_rejected() {
    let mut context = context();
    context.limits.pixels = 5;
    let mut config = PixelsConfig {
        size: Some(TargetSize::Fixed(1, 1)),
        ..PixelsConfig::default()
    };
    let plan = config.plan(&input(DataType::Binary), &context).unwrap();
    let images = BinaryArray::from(vec![png(3, 2, 0).as_slice(), png(5, 1, 0).as_slice()]);
    let (batch, rejects) = applied(plan.as_ref(), batch(Arc::new(images)));
    assert_eq!(
        (batch.row_ordinals, rejects),
        (vec![1], vec![(0, RejectCode::TooLarge)])
    );
}

#[test]
fn faults_of_column_model_and_name_are_reported_together() {
    let found = faults(json!({ "column": "picture", "to": "source", "model": "photo" }));
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["column", "model", "to"]);
    assert_eq!(
        found[0].1,
        "no column `picture`; the input has: source, image"
    );
    assert_eq!(
        found[2].1,
        "the input already has a column `source`; choose another name"
    );
}

#[test]
fn faults_of_size_format_and_column_contain_a_hint() {
    let only = |options| faults(options).remove(0);
    let size = "is missing; set `size = [height, width]` or `size = \"original\"`, or name a \
                    `model`";
    assert_eq!(only(json!({})), ("size".to_owned(), size.to_owned()));
    let huge = "100000 x 100000 pixels exceed the limit of 100000000 pixels per image";
    assert_eq!(
        only(json!({ "size": [100_000, 100_000] })),
        ("size".to_owned(), huge.to_owned())
    );
    let unfitted = "images of original size are not fitted; remove `fit`";
    assert_eq!(
        only(json!({ "size": "original", "fit": "pad" })),
        ("fit".to_owned(), unfitted.to_owned())
    );
    let full = "images of original size are decoded in full; remove `decode`";
    assert_eq!(
        only(json!({ "size": "original", "decode": "scaled" })),
        ("decode".to_owned(), full.to_owned())
    );
    assert_eq!(
        only(json!({ "size": [1, 1], "mean": [0.5] })).1,
        "`mean` has 1 values for 3 channels"
    );
    let text = "column `source` holds Utf8, not the bytes of encoded images";
    assert_eq!(only(json!({ "size": [1, 1], "column": "source" })).1, text);
}

#[test]
fn options_can_repeat_but_not_contradict_the_model() {
    let model_input = |size| ImageInput {
        format: PixelFormat::default(),
        size,
        decode: DecodeMode::default(),
        steps: None,
    };
    let keys = |options: Value, size| {
        let config: PixelsConfig = serde_json::from_value(options).unwrap();
        let outcome = config.as_trained("photo", model_input(size), None);
        outcome
            .map(|(_, sizing)| sizing.size())
            .map_err(|faults| faults.into_iter().map(|f| f.key).collect::<Vec<_>>())
    };
    let fixed = Some((64, 48));
    assert_eq!(keys(json!({}), fixed), Ok(TargetSize::Fixed(64, 48)));
    assert_eq!(
        keys(json!({ "size": [64, 48], "channels": "rgb" }), fixed),
        Ok(TargetSize::Fixed(64, 48))
    );
    let contradictions = json!({ "size": "original", "channels": "gray", "range": [-1.0, 1.0] });
    assert_eq!(
        keys(contradictions, fixed).unwrap_err(),
        ["channels", "range", "size"]
    );
    assert_eq!(keys(json!({}), None), Ok(TargetSize::Original));
    assert_eq!(
        keys(json!({ "size": [32, 32] }), None),
        Ok(TargetSize::Fixed(32, 32))
    );
}

#[test]
fn steps_exclude_the_options_that_they_replace() {
    let steps = json!([{ "op": "resize", "size": 8 }]);
    let keys = |options: Value| -> Vec<String> {
        faults(options).into_iter().map(|(key, _)| key).collect()
    };
    for (options, key) in [
        (json!({ "steps": steps, "size": [8, 8] }), "size"),
        (json!({ "steps": steps, "fit": "crop" }), "fit"),
        (json!({ "preset": "clip", "decode": "scaled" }), "decode"),
        (
            json!({ "steps": [{ "op": "resize", "size": 20_000 }] }),
            "steps",
        ),
        (
            json!({ "steps": [{ "op": "resize", "size": 8, "side": "shorter" }] }),
            "steps",
        ),
        (
            json!({ "steps": [{ "op": "center_crop", "size": 9 }, { "op": "pad", "size": 9, "value": 300 }] }),
            "steps[1]",
        ),
        (
            json!({ "preset": "clip", "preprocessor": "file.json" }),
            "preprocessor",
        ),
        (json!({ "preset": "keras-tf" }), "size"),
        // A folder is not a file, and a pipe is not waited for.
        (json!({ "preprocessor": "/" }), "preprocessor"),
    ] {
        assert_eq!(keys(options.clone()), [key], "{options}");
    }
}

#[test]
fn written_options_replace_those_of_a_preset() {
    let field = |options: Value| plan(options).unwrap().schema().field(1).clone();
    let clip = field(json!({ "preset": "clip" }));
    assert_eq!(
        TensorShape::of(&clip),
        Some(TensorShape::Fixed(vec![3, 224, 224]))
    );
    let changed =
        field(json!({ "preset": "clip", "size": [8, 9], "layout": "nhwc", "mean": [0, 0, 0] }));
    assert_eq!(
        TensorShape::of(&changed),
        Some(TensorShape::Fixed(vec![8, 9, 3]))
    );
    let (before, after) = (
        PixelFormat::from_field(&clip),
        PixelFormat::from_field(&changed),
    );
    let (before, after) = (before.unwrap(), after.unwrap());
    assert_eq!((after.mean, after.std), (vec![0.0; 3], before.std));
}
