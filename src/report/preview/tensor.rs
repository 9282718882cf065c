//! The tensor that a stage makes of an image, its values and its picture.

use std::fmt;

use crate::image::preparation_steps::{PreparationSteps, rounded};
use crate::image::prepared::{ImagePreparation, ImageSamples};
use crate::image::{Channels, ImageError, PixelFormat, Pixels};
use crate::report::preview::MAX_SIDE;
use crate::report::preview::picture::reduced;

/// The result of a stage.
pub(super) struct StagePreview {
    pub(super) name: String,
    pub(super) steps: PreparationSteps,
    /// The tensor, or the reason of the reject.
    pub(super) tensor: Result<TensorPreview, ImageError>,
}

/// A tensor.
pub(super) struct TensorPreview {
    /// In the order of the channels of the tensor.
    pub(super) channels: Vec<ChannelValues>,
    /// The values as bytes, reduced for display.
    pub(super) picture: Pixels,
}

/// The values of a channel.
pub(super) struct ChannelValues {
    name: &'static str,
    min: f32,
    max: f32,
    mean: f64,
}

impl StagePreview {
    /// Prepares the image as the stage does. `size` is that of the decoded image, if it is known.
    pub(super) fn new(
        name: &str,
        stage: &ImagePreparation,
        bytes: &[u8],
        size: Option<(usize, usize)>,
    ) -> Self {
        let prepared = prepare(stage, bytes);
        Self {
            name: name.to_owned(),
            steps: stage.steps(size),
            tensor: prepared.map(|(channels, picture)| TensorPreview {
                channels,
                picture: reduced(picture, MAX_SIDE),
            }),
        }
    }
}

fn prepare(
    stage: &ImagePreparation,
    bytes: &[u8],
) -> Result<(Vec<ChannelValues>, Pixels), ImageError> {
    let format = &stage.format;
    let mut reader = stage.reader();
    let image = reader.read(bytes)?;
    let mut values = vec![0.0; image.samples.len()];
    image.samples.normalize(format, &mut values);
    let picture = Pixels {
        width: image.width,
        height: image.height,
        channels: format.channels.decoded(),
        data: format.denormalize(&values),
    };
    let pixels = image.height * image.width;
    let channels = channel_names(format.channels).iter().enumerate();
    let channels = channels
        .map(|(channel, name)| ChannelValues::new(name, channel, format, &values, pixels))
        .collect();
    Ok((channels, picture))
}

impl ChannelValues {
    fn new(
        name: &'static str,
        channel: usize,
        format: &PixelFormat,
        values: &[f32],
        pixels: usize,
    ) -> Self {
        let (mut min, mut max, mut sum) = (f32::INFINITY, f32::NEG_INFINITY, 0.0);
        for pixel in 0..pixels {
            let value = values[format.index(channel, pixel, pixels)];
            (min, max) = (min.min(value), max.max(value));
            sum += f64::from(value);
        }
        Self {
            name,
            min,
            max,
            mean: sum / pixels.max(1) as f64,
        }
    }

    /// The cells of a table: the name, the minimum, the mean and the maximum.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            rounded(self.min).to_string(),
            rounded(self.mean as f32).to_string(),
            rounded(self.max).to_string(),
        ]
    }
}

impl fmt::Display for ChannelValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, mean, max] = [self.min, self.mean as f32, self.max].map(rounded);
        write!(f, "{:<5}  min {min}  mean {mean}  max {max}", self.name)
    }
}

/// The channels of a tensor in their order.
fn channel_names(channels: Channels) -> &'static [&'static str] {
    match channels {
        Channels::Rgb => &["red", "green", "blue"],
        Channels::Bgr => &["blue", "green", "red"],
        Channels::Gray => &["gray"],
    }
}

/// The decoded image in color, at its own size; `None` if it cannot be decoded.
pub(super) fn original(stage: &ImagePreparation, bytes: &[u8]) -> Option<Pixels> {
    let mut reader = stage.reader_of_originals();
    let image = reader.read(bytes).ok()?.into_owned();
    match image.samples {
        ImageSamples::Bytes(data) => Some(Pixels {
            width: image.width,
            height: image.height,
            channels: Channels::Rgb,
            data: data.into_owned(),
        }),
        ImageSamples::Floats(_) => None,
    }
}
