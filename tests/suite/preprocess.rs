//! Tests of the preprocessing of images through the binary: codes of models of other libraries, cards
//! with steps, and previews.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::AsArray as _;
use arrow::datatypes::Float32Type;
use latentflow::image::{Channels, OutputFormat, Pixels, decode, encode};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::common::outputs::data_files;
use crate::common::runs::{errors, latentflow, run};

/// The codes that `tests/preprocess/make_codes.py` computed with PyTorch.
#[derive(Deserialize)]
struct Fixture {
    /// Height and width.
    images: Vec<[usize; 2]>,
    codes: std::collections::BTreeMap<String, Vec<Vec<f32>>>,
}

fn folder_of_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preprocess/codes")
}

/// The image that the fixture was computed from.
fn image(height: usize, width: usize) -> Vec<u8> {
    let pixel = |y: usize, x: usize, c: usize| {
        ((7 * x + 5 * y * (c + 1) + (x * y / 3) * (2 - c)) % 256) as u8
    };
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let data = rows
        .flat_map(|(y, x)| [0, 1, 2].map(|c| pixel(y, x, c)))
        .collect();
    let pixels = Pixels {
        width,
        height,
        channels: Channels::Rgb,
        data,
    };
    encode(&pixels, OutputFormat::Png).unwrap()
}

/// The lists of a column of all Parquet files of a folder, by the column `source`.
fn lists(folder: &Path, column: &str) -> Vec<(String, Vec<f32>)> {
    let mut rows = Vec::new();
    for path in data_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap().map(Result::unwrap) {
            let sources = arrow::compute::cast(&batch["source"], &arrow::datatypes::DataType::Utf8);
            let sources = sources.unwrap();
            let lists = batch[column].as_fixed_size_list();
            for row in 0..batch.num_rows() {
                let values = lists.value(row);
                let values = values.as_primitive::<Float32Type>().values().to_vec();
                rows.push((sources.as_string::<i32>().value(row).to_owned(), values));
            }
        }
    }
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

#[test]
fn codes_of_models_with_their_own_files_equal_pytorch() {
    let text = std::fs::read(folder_of_models().join("codes.json")).unwrap();
    let fixture: Fixture = serde_json::from_slice(&text).unwrap();
    for (name, settings) in [
        ("vit", "preprocessor_config.json"),
        ("resnet", "config.json"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (index, &[height, width]) in fixture.images.iter().enumerate() {
            let path = folder.path().join(format!("{index}.png"));
            std::fs::write(path, image(height, width)).unwrap();
        }
        let files = folder_of_models().join(name);
        let pipeline = format!(
            "[models.m]\nencoder = {:?}\npreprocessor = {:?}\n\
             [stages.in]\nkind = 'images'\npath = '*.png'\n\
             [stages.px]\nkind = 'pixels'\ninputs = ['in']\nmodel = 'm'\n\
             [stages.e]\nkind = 'encode'\ninputs = ['px']\nmodel = 'm'\n\
             [stages.out]\nkind = 'parquet'\ninputs = ['e']\npath = 'out'\n",
            files.join("encoder.onnx"),
            files.join(settings),
        );
        let (output, _) = run(folder.path(), &pipeline, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let codes = lists(&folder.path().join("out"), "latent");
        assert_eq!(codes.len(), fixture.images.len());
        for ((source, code), expected) in codes.iter().zip(&fixture.codes[name]) {
            assert_eq!(code.len(), expected.len());
            let distances = code.iter().zip(expected).map(|(a, b)| (a - b).abs());
            let greatest = distances.fold(0.0, f32::max);
            assert!(greatest < 1e-3, "{name}, {source}: {greatest}");
        }
    }
}

#[cfg(feature = "train")]
const STEPS: &str = "steps = [{ op = 'resize', size = 12, side = 'shorter', filter = 'bicubic' }, \
                     { op = 'center_crop', size = [8, 8] }]";

/// A folder with two images and a model that was trained on them with steps.
#[cfg(feature = "train")]
fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, (height, width)) in [(20, 33), (41, 16), (25, 25), (13, 60)]
        .into_iter()
        .enumerate()
    {
        let path = folder.path().join(format!("{index}.png"));
        std::fs::write(path, image(height, width)).unwrap();
    }
    let file = format!(
        "name = 'stepped'\nkind = 'deep'\ncode_size = 3\n[network]\nnodes = [8]\n\
         [input]\nrange = [-1.0, 1.0]\n{STEPS}\n\
         [training]\nepochs = 1\nbatch_size = 2\n\
         [data]\nvalidation = 0.5\nsources = [{{ kind = 'images', path = '*.png' }}]\n"
    );
    std::fs::write(folder.path().join("t.toml"), file).unwrap();
    let mut training = latentflow(folder.path(), &["train", "t.toml", "--out", "model"]);
    let output = training.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    folder
}

#[test]
#[cfg(feature = "train")]
fn card_keeps_the_steps_for_runs_and_evaluations() {
    let folder = trained();
    let pipeline = |pixels: &str, out: &str| {
        format!(
            "[models.m]\npath = 'model'\n[stages.in]\nkind = 'images'\npath = '*.png'\n\
             [stages.px]\nkind = 'pixels'\ninputs = ['in']\n{pixels}\n\
             [stages.out]\nkind = 'parquet'\ninputs = ['px']\npath = '{out}'\n"
        )
    };
    let written = format!("range = [-1.0, 1.0]\n{STEPS}");
    for (options, out) in [("model = 'm'", "by_card"), (written.as_str(), "by_options")] {
        let (output, _) = run(folder.path(), &pipeline(options, out), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
    let rows = lists(&folder.path().join("by_card"), "pixels");
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].1.len(), 3 * 8 * 8);
    assert_eq!(rows, lists(&folder.path().join("by_options"), "pixels"));
    // The digest of the data that the evaluation prepares is that of the training.
    let mut evaluation = latentflow(folder.path(), &["evaluate", "model", "--json", "e.json"]);
    let output = evaluation.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = std::fs::read_to_string(folder.path().join("e.json")).unwrap();
    assert!(
        !text.contains("differ from those of the training"),
        "{text}"
    );
}

#[test]
#[cfg(feature = "train")]
fn steps_that_contradict_a_card_or_its_size_are_refused() {
    let folder = trained();
    let faults = |pixels: &str| {
        let pipeline = format!(
            "[models.m]\npath = 'model'\n[stages.in]\nkind = 'images'\npath = '*.png'\n\
             [stages.px]\nkind = 'pixels'\ninputs = ['in']\nmodel = 'm'\n{pixels}\n\
             [stages.out]\nkind = 'parquet'\ninputs = ['px']\npath = 'out'\n"
        );
        let (output, _) = run(folder.path(), &pipeline, &[]);
        assert_eq!(output.status.code(), Some(2));
        errors(&output)
    };
    let other = faults("steps = [{ op = 'resize', size = 8 }]");
    let expected =
        "stages.px.steps: the model `m` was trained with another `steps`; remove it here";
    assert!(other.contains(expected), "{other}");
    let fitted = faults("fit = 'crop'");
    let unused = "stages.px.fit: has no effect with steps";
    assert!(fitted.contains(unused), "{fitted}");
    let card = folder.path().join("model/model.toml");
    let text = std::fs::read_to_string(&card).unwrap();
    std::fs::write(
        &card,
        text.replace("size = [8, 8]\nchannels", "size = [9, 8]\nchannels"),
    )
    .unwrap();
    let contradicted = faults("");
    assert!(
        contradicted.contains("`input.size`: is 9 x 8, but the steps make images of 8 x 8 pixels"),
        "{contradicted}\n{text}"
    );
}

const PREVIEWED: &str = "[stages.in]\nkind = 'images'\npath = 'missing/*.png'\n\
     [stages.small]\nkind = 'pixels'\ninputs = ['in']\nsize = [4, 6]\nrange = [-1.0, 1.0]\n\
     [stages.clip]\nkind = 'pixels'\ninputs = ['in']\npreset = 'clip'\n\
     [stages.out]\nkind = 'parquet'\ninputs = ['small']\npath = 'out'\n\
     [stages.more]\nkind = 'parquet'\ninputs = ['clip']\npath = 'more'\n";

#[test]
fn preview_shows_steps_values_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.toml"), PREVIEWED).unwrap();
    std::fs::write(folder.path().join("a.png"), image(20, 33)).unwrap();
    let call = |arguments: &[&str]| {
        let arguments = [&["preview", "p.toml"], arguments].concat();
        let output = latentflow(folder.path(), &arguments).output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.code(), text, errors(&output))
    };
    let (code, text, _) = call(&["a.png", "--stage", "small", "-o", "a.html"]);
    assert_eq!(code, Some(0));
    let expected = "a.png: PNG of 20 x 33 pixels (height x width)\n\nsmall\n\
        \x20 decode to rgb                         20 x 33    0 to 255\n\
        \x20 resize (stretch, bilinear of pillow)  4 x 6      0 to 255\n\
        \x20 scale to [-1, 1]                      4 x 6      -1 to 1\n\
        \x20 float32 tensor                        3 x 4 x 6  -1 to 1\n";
    assert!(text.starts_with(expected), "{text}");
    let page = std::fs::read_to_string(folder.path().join("a.html")).unwrap();
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 2);
    // The picture has a row for each stage; small images are enlarged.
    let (done, both, _) = call(&["a.png", "--output", "a.png.png"]);
    assert_eq!(done, Some(0));
    assert!(
        both.contains("\nclip\n") && both.contains("resize shorter side to 224"),
        "{both}"
    );
    let picture = std::fs::read(folder.path().join("a.png.png")).unwrap();
    let picture = decode(&picture, Channels::Rgb, 1 << 22).unwrap();
    let (original, small, clip) = ((140, 231), (168, 252), (224, 224));
    assert_eq!(
        (picture.height, picture.width),
        (
            8 + small.0 + 8 + clip.0 + 8,
            8 + original.1 + 8 + small.1 + 8
        )
    );

    std::fs::write(folder.path().join("cut.png"), &image(20, 33)[..50]).unwrap();
    let (rejected, reason, _) = call(&["cut.png"]);
    assert_eq!(rejected, Some(3));
    assert_eq!(
        reason
            .matches("rejected (truncated): PNG ends after 50 bytes")
            .count(),
        2,
        "{reason}"
    );

    let (unknown, _, message) = call(&["a.png", "--stage", "smal"]);
    assert_eq!(unknown, Some(1));
    assert!(
        message.contains("--stage smal: not a `pixels` stage (did you mean `small`?)"),
        "{message}"
    );
}

#[test]
fn check_prints_the_steps_of_each_pixels_stage() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("missing")).unwrap();
    std::fs::write(folder.path().join("missing/a.png"), image(20, 33)).unwrap();
    std::fs::write(folder.path().join("p.toml"), PREVIEWED).unwrap();
    let output = latentflow(folder.path(), &["check", "p.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "transform clip (pixels) <- in\n\
        \x20 decode to rgb                                                     any size       0 to 255\n\
        \x20 resize shorter side to 224 (bicubic of pillow)                    any size       0 to 255\n\
        \x20 center crop 224 x 224                                             224 x 224      0 to 255\n\
        \x20 scale to [0, 1]                                                   224 x 224      0 to 1\n\
        \x20 subtract mean [0.48145467, 0.4578275, 0.40821072]                 224 x 224      -0.4815 to 0.5918\n\
        \x20 divide by std [0.26862955, 0.2613026, 0.2757771]                  224 x 224      -1.7923 to 2.1459\n\
        \x20 float32 tensor                                                    3 x 224 x 224  -1.7923 to 2.1459\n";
    let squeezed = |block: &str| {
        block
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(squeezed(&text).contains(&squeezed(expected)), "{text}");
}
