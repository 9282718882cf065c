//! The generators of records.

use arrow::datatypes::{DataType, Field, Schema};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::IMAGE;
use crate::source::batch_limits::BatchLimits;
use crate::source::batch_size::BatchSize;
use crate::source::synthetic::factor_model::FactorModel;
use crate::tensor::vector_field;

/// Returns the random numbers of a record. They depend only on the seed and the record's number, so
/// that each record can be generated independently.
pub(super) fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// A generator of records with checked parameters.
pub(super) enum SyntheticGenerator {
    Images {
        height: u32,
        width: u32,
        format: SyntheticImageFormat,
    },
    Features {
        factors: FactorModel,
        layout: FeatureLayout,
    },
}

impl SyntheticGenerator {
    /// Returns a text with all parameters that change the values of a record, except the seed. It
    /// is part of the name of the split.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Images {
                height,
                width,
                format,
            } => format!("{height}x{width}:{}", format.extension()),
            Self::Features { factors, .. } => {
                format!("{}:{}:{}", factors.width, factors.rank, factors.outliers)
            }
        }
    }

    pub(super) fn schema(&self) -> Schema {
        match self {
            Self::Images { .. } => Schema::new(vec![Field::new(IMAGE, DataType::Binary, false)]),
            Self::Features { factors, layout } => {
                let mut fields = match layout {
                    FeatureLayout::Vector => vec![vector_field("features", factors.width)],
                    FeatureLayout::Columns => {
                        let names = (0..factors.width).map(|index| format!("f{index}"));
                        names
                            .map(|name| Field::new(name, DataType::Float32, false))
                            .collect()
                    }
                };
                if factors.outliers > 0.0 {
                    fields.push(Field::new("outlier", DataType::Boolean, false));
                }
                Schema::new(fields)
            }
        }
    }

    pub(super) fn records_per_batch(&self, batch: BatchSize) -> u64 {
        match self {
            Self::Images { height, width, .. } => {
                BatchLimits::images(batch).records_of(3 * u64::from(*height) * u64::from(*width))
            }
            Self::Features { factors, .. } => {
                BatchLimits::features(batch).records_of((factors.width * size_of::<f32>()) as u64)
            }
        }
    }
}

/// Encodings of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyntheticImageFormat {
    /// Lossless.
    #[default]
    Png,
    /// Lossy, of quality 90.
    Jpeg,
    /// Not compressed.
    Bmp,
}

/// Layouts of feature records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FeatureLayout {
    /// One vector column, `features`.
    #[default]
    Vector,
    /// One column for each value: `f0`, `f1` and so on.
    Columns,
}

impl SyntheticImageFormat {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Bmp => "bmp",
        }
    }
}
