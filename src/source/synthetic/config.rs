//! The options of the source `synthetic`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::provenance::Split;
use crate::error::config_error::ConfigError;
use crate::plan_context::PlanContext;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::share::SourceShare;
use crate::source::origin::with_origin;
use crate::source::synthetic::SyntheticSource;
use crate::source::synthetic::factor_model::FactorModel;
use crate::source::synthetic::generator::{
    FeatureLayout, SyntheticGenerator, SyntheticImageFormat, stream,
};
use crate::source::{Source, SourceConfig};

/// Generates data from a seed. A record depends only on the seed and its number, so a larger number
/// of records extends the same data.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct SyntheticSourceConfig {
    /// The kind of data to generate.
    #[schemars(extend("x-changes-rows" = true, "x-former-name" = "of"))]
    pub content: SyntheticContent,
    /// The number of records.
    #[schemars(extend("x-changes-rows" = true))]
    pub records: u64,
    /// The seed of the random numbers; different seeds give different data. Default: 0.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub seed: u64,
    /// For images: height and width in pixels. Default: [64, 64].
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub size: Option<[u32; 2]>,
    /// For images: their encoding. Default: png.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub format: Option<SyntheticImageFormat>,
    /// For features: the number of values in a record. Default: 32.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub width: Option<usize>,
    /// For features: the number of independent factors behind the values. Default: a quarter of
    /// `width`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub rank: Option<usize>,
    /// For features: the fraction of records that are outliers, 0 to 1. If it is above 0, the
    /// column `outlier` marks them. Default: 0.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub outliers: Option<f64>,
    /// For features: the columns that hold the values. Default: vector.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub layout: Option<FeatureLayout>,
}

/// The kinds of data that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyntheticContent {
    /// Dead-leaves images: opaque discs with the statistics of natural images (Lee, Mumford, Huang
    /// 2001).
    Images,
    /// Correlated normal values: a linear mix of a few hidden factors with a little noise.
    Features,
}

/// Maximum number of entries of the mixing matrix of features: 64 MiB.
const MAX_MIXING: usize = 1 << 24;

impl SourceConfig for SyntheticSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let mut faults = self.unused();
        let generator = match self.content {
            SyntheticContent::Images => self.images(context, &mut faults),
            SyntheticContent::Features => self.features(&mut faults),
        };
        let (Some(generator), true) = (generator, faults.is_empty()) else {
            return Err(faults);
        };
        let split = Split::new(format!(
            "{name}/synthetic:{}:{}:{}",
            self.content.name(),
            self.seed,
            generator.identity()
        ));
        let schema = with_origin(&generator.schema());
        let step = generator.records_per_batch(batch);
        let (name, seed, records) = (name.to_owned(), self.seed, self.records);
        let share = SourceShare::new(context.shard);
        Ok(Box::new(SyntheticSource {
            share,
            name,
            generator,
            seed,
            records,
            split,
            schema,
            step,
        }))
    }
}

impl SyntheticSourceConfig {
    /// Returns an error for each option that applies to the other content only.
    fn unused(&self) -> Vec<ConfigError> {
        let options = [
            ("size", self.size.is_some(), SyntheticContent::Images),
            ("format", self.format.is_some(), SyntheticContent::Images),
            ("width", self.width.is_some(), SyntheticContent::Features),
            ("rank", self.rank.is_some(), SyntheticContent::Features),
            (
                "outliers",
                self.outliers.is_some(),
                SyntheticContent::Features,
            ),
            ("layout", self.layout.is_some(), SyntheticContent::Features),
        ];
        let idle = options
            .into_iter()
            .filter(|(_, given, content)| *given && *content != self.content);
        idle.map(|(key, _, content)| {
            ConfigError::new(
                key,
                format!(
                    "applies to {} only, but `content` is `{}`; remove the option",
                    content.name(),
                    self.content.name()
                ),
            )
        })
        .collect()
    }

    pub(super) fn images(
        &mut self,
        context: &PlanContext,
        faults: &mut Vec<ConfigError>,
    ) -> Option<SyntheticGenerator> {
        let [height, width] = *self.size.get_or_insert([64, 64]);
        let pixels = u64::from(height) * u64::from(width);
        let limit = context.limits.pixels;
        if pixels == 0 || pixels > limit {
            let message = format!(
                "{height}x{width} has {pixels} pixels; expected 1 to {limit} (limits.pixels)"
            );
            faults.push(ConfigError::new("size", message));
            return None;
        }
        let format = *self.format.get_or_insert_default();
        if format == SyntheticImageFormat::Jpeg && height.max(width) > u32::from(u16::MAX) {
            faults.push(ConfigError::new(
                "size",
                format!(
                    "{height}x{width} is too large for a JPEG; the maximum side is 65535 pixels"
                ),
            ));
        }
        Some(SyntheticGenerator::Images {
            height,
            width,
            format,
        })
    }

    pub(super) fn features(&mut self, faults: &mut Vec<ConfigError>) -> Option<SyntheticGenerator> {
        let width = *self.width.get_or_insert(32);
        let rank = *self.rank.get_or_insert(width.div_ceil(4));
        let outliers = *self.outliers.get_or_insert(0.0);
        let layout = *self.layout.get_or_insert_default();
        if !(0.0..=1.0).contains(&outliers) {
            faults.push(ConfigError::new(
                "outliers",
                format!("must lie between 0 and 1; met {outliers}"),
            ));
        }
        let fault = if width == 0 || width > MAX_MIXING {
            ConfigError::new(
                "width",
                format!("must lie between 1 and {MAX_MIXING}; met {width}"),
            )
        } else if rank == 0 || rank > width {
            ConfigError::new(
                "rank",
                format!("must lie between 1 and `width`, {width}; met {rank}"),
            )
        } else if width.saturating_mul(rank) > MAX_MIXING {
            let message = format!(
                "{width} values with {rank} factors are too many; \
                 the maximum of their product is {MAX_MIXING}"
            );
            ConfigError::new("width", message)
        } else {
            // The parameters use the last stream of random numbers, which is not used by any
            // record.
            let factors =
                FactorModel::draw(&mut stream(self.seed, u64::MAX), width, rank, outliers);
            return Some(SyntheticGenerator::Features { factors, layout });
        };
        faults.push(fault);
        None
    }
}

impl SyntheticContent {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Features => "features",
        }
    }
}
