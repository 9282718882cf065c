//! Anomaly scores: the errors of a record relative to those on the validation data of the model, in
//! total and per feature.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};

use super::score::ScoreConfig;
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::model::attribution::FeatureAttributor;
use crate::model::card::{ErrorStats, UNUSUAL_ZSCORE};
use crate::model::feature_errors::squared_errors;
use crate::model::{Loss, Model, ModelPath, same_layout};
use crate::plan_context::PlanContext;
use crate::tensor::{TensorShape, fixed_column, vector_field};

/// The requested columns, and the error statistics of the card.
#[derive(Clone, Default)]
pub(super) struct AnomalyScorer {
    error: Option<ErrorScale>,
    features: usize,
    feature_errors: bool,
    feature_zscores: bool,
    top_features: usize,
    scales: Arc<FeatureScales>,
    ranking: Option<FeatureRanking>,
}

/// The model whose features are ranked, and the statistics by which a record is unusual.
#[derive(Clone)]
struct FeatureRanking {
    model: Arc<Model>,
    shape: Vec<usize>,
    stats: Arc<ErrorStats>,
}

/// The statistics of the error of a record.
#[derive(Debug, Clone, Default)]
struct ErrorScale {
    loss: Loss,
    mean: f64,
    std: f64,
}

/// The statistics of the errors of the features.
#[derive(Debug, Default)]
struct FeatureScales {
    names: Vec<String>,
    mean: Vec<f64>,
    divisor: Vec<f64>,
}

impl AnomalyScorer {
    /// Plans the columns that `config` requests, for tensors of `shape`.
    ///
    /// # Errors
    /// Faults of options that require a missing model, and of a card without the required
    /// statistics.
    pub(super) fn plan(
        config: &ScoreConfig,
        shape: &TensorShape,
        context: &PlanContext,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut faults = Vec::new();
        let top = config.top_features.map_or(0, std::num::NonZeroUsize::get);
        let options = [
            ("zscore", config.zscore),
            ("feature_zscores", config.feature_zscores),
            ("top_features", config.top_features.is_some()),
        ];
        let requested: Vec<&str> = options
            .into_iter()
            .filter_map(|(key, is_set)| is_set.then_some(key))
            .collect();
        let mut planned = Self {
            features: shape.len().unwrap_or_default(),
            feature_errors: config.feature_errors,
            feature_zscores: config.feature_zscores,
            top_features: top,
            ..Self::default()
        };
        if config.feature_errors && planned.features == 0 {
            faults.push(ConfigError::new(
                "feature_errors",
                "the records have different shapes, and thus no features",
            ));
        }
        match (&config.model, requested.as_slice()) {
            (None, requested) => {
                let message = "requires `model`, whose card states the usual errors";
                faults.extend(requested.iter().map(|&key| ConfigError::new(key, message)));
            }
            (Some(_), []) => {
                let message = "has no effect without zscore, feature_zscores or top_features; \
                               set one of them, or leave it out";
                faults.push(ConfigError::new("model", message));
            }
            (Some(name), requested) => match context.model(name) {
                Ok(model) => {
                    planned.load_card_stats(&model, requested, &mut faults);
                    if faults.is_empty() && top > 0 {
                        let ranking = FeatureRanking::plan(model, shape);
                        planned.ranking = faults.record(ranking);
                    }
                }
                // `found` is empty if the faults of the model are reported already.
                Err(found) => return Err(faults.into_iter().chain(found).collect()),
            },
        }
        if faults.is_empty() {
            Ok(planned)
        } else {
            Err(faults)
        }
    }

    /// Loads the statistics for the `requested` options from the card.
    fn load_card_stats(
        &mut self,
        model: &Model,
        requested: &[&str],
        faults: &mut Vec<ConfigError>,
    ) {
        let Some(stats) = model
            .card()
            .and_then(|card| card.reconstruction_error.as_ref())
        else {
            let message = format!(
                "the model `{}` has no card with the section [reconstruction_error]",
                model.name()
            );
            return faults.push(ConfigError::new("model", message));
        };
        for &key in requested {
            let loaded = match key {
                "zscore" => self.load_error_stats(model, stats),
                _ => self.load_feature_stats(model, stats),
            };
            faults.extend(loaded.err().map(|message| ConfigError::new(key, message)));
        }
        let count = self.scales.names.len();
        if count > 0 && self.top_features > count {
            let message = format!(
                "the model `{}` takes {count} features, fewer than {}",
                model.name(),
                self.top_features
            );
            faults.push(ConfigError::new("top_features", message));
        }
    }

    fn load_error_stats(&mut self, model: &Model, stats: &ErrorStats) -> Result<(), String> {
        if stats.std == 0.0 {
            let name = model.name();
            return Err(format!(
                "all errors on the validation data of `{name}` are equal, so that the z-score is \
                 undefined"
            ));
        }
        self.error = Some(ErrorScale {
            loss: model.loss(),
            mean: stats.mean,
            std: stats.std,
        });
        Ok(())
    }

    fn load_feature_stats(&mut self, model: &Model, stats: &ErrorStats) -> Result<(), String> {
        let name = model.name();
        let (Some(features), Some(input)) = (&stats.features, model.feature_input()) else {
            return Err(format!(
                "the card of `{name}` does not contain reconstruction_error.features, the errors \
                 of single features; `latentflow train` writes them"
            ));
        };
        let count = features.mean.len();
        if self.features != count {
            return Err(format!(
                "the original has {} values, but the model `{name}` takes {count} features",
                self.features
            ));
        }
        let scales = FeatureScales {
            names: input.columns.clone(),
            mean: features.mean.clone(),
            divisor: features.divisors(),
        };
        self.scales = Arc::new(scales);
        Ok(())
    }

    /// Opens the sessions that rank the features of unusual records, if they are requested.
    ///
    /// # Errors
    /// If a file of the model cannot be opened.
    pub(super) fn attributor(&self) -> Result<Option<FeatureAttributor>, StageError> {
        let ranking = self.ranking.as_ref();
        ranking
            .map(|ranking| FeatureAttributor::new(&ranking.model, &ranking.shape))
            .transpose()
    }

    /// The maximum memory of the attributor and its sessions, in bytes.
    pub(super) fn attributor_bytes(&self) -> u64 {
        self.ranking.as_ref().map_or(0, |ranking| {
            let (per_worker, _) = ranking.model.session_bytes();
            per_worker + FeatureAttributor::scratch_bytes(&ranking.model, self.features)
        })
    }

    /// Whether any column of anomaly scores is requested.
    pub(super) fn is_requested(config: &ScoreConfig) -> bool {
        config.zscore
            || config.feature_errors
            || config.feature_zscores
            || config.top_features.is_some()
    }

    /// The fields of the new columns.
    pub(super) fn fields(&self, prefix: &str) -> Vec<Field> {
        let name = |name: &str| format!("{prefix}{name}");
        let mut fields = Vec::new();
        if self.error.is_some() {
            fields.push(Field::new(name("zscore"), DataType::Float32, false));
        }
        if self.feature_errors {
            fields.push(vector_field(&name("feature_errors"), self.features));
        }
        if self.feature_zscores {
            fields.push(vector_field(&name("feature_zscores"), self.features));
        }
        if self.top_features > 0 {
            fields.push(Field::new(
                name("top_features"),
                DataType::List(top_item()),
                false,
            ));
        }
        fields
    }

    /// Appends the scores of a record to `to`. The record and its reconstruction must have finite
    /// values and the planned shape.
    pub(super) fn add(
        &self,
        target: &[f32],
        output: &[f32],
        attributor: Option<&mut FeatureAttributor>,
        to: &mut AnomalyColumns,
    ) {
        if let Some(ErrorScale { loss, mean, std }) = &self.error {
            to.zscores
                .push(((loss.error(target, output) - mean) / std) as f32);
        }
        if self.feature_errors {
            to.feature_errors
                .extend(squared_errors(target, output).map(|error| error as f32));
        }
        let scales = self.scales.mean.iter().zip(&self.scales.divisor);
        let zscores = squared_errors(target, output)
            .zip(scales)
            .map(|(error, (mean, by))| (error - mean) / by);
        if self.feature_zscores {
            to.feature_zscores
                .extend(zscores.clone().map(|zscore| zscore as f32));
        }
        let Some(ranking) = &self.ranking else { return };
        let zscores: Vec<f64> = zscores.collect();
        let order = ranking.order(target, output, &zscores, self.top_features, attributor);
        let top = order
            .into_iter()
            .map(|feature| (feature, zscores[feature] as f32));
        to.top.extend(top);
    }

    /// Builds the columns from the appended scores, in the order of [`AnomalyScorer::fields`].
    ///
    /// # Errors
    /// An error of Arrow, which the plan excludes.
    pub(super) fn columns(&self, added: AnomalyColumns) -> Result<Vec<ArrayRef>, StageError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.error.is_some() {
            columns.push(Arc::new(Float32Array::from(added.zscores)));
        }
        if self.feature_errors {
            columns.push(fixed_column(self.features, added.feature_errors)?);
        }
        if self.feature_zscores {
            columns.push(fixed_column(self.features, added.feature_zscores)?);
        }
        if self.top_features > 0 {
            let names = added
                .top
                .iter()
                .map(|&(feature, _)| self.scales.names.get(feature).map_or("", String::as_str));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            let zscores: Float32Array = added.top.iter().map(|&(_, zscore)| zscore).collect();
            let tops = StructArray::try_new(top_fields(), vec![names, Arc::new(zscores)], None)?;
            let rows = added
                .top
                .len()
                .checked_div(self.top_features)
                .unwrap_or_default();
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(self.top_features, rows));
            columns.push(Arc::new(ListArray::try_new(
                top_item(),
                offsets,
                Arc::new(tops),
                None,
            )?));
        }
        Ok(columns)
    }

    /// The statistics of the card on which the columns depend; `None` if they do not depend on the
    /// card.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let Self { error, scales, .. } = self;
        let statistics = format!("{error:?} {scales:?}");
        // Without means, as in cards of earlier versions, the text is that of earlier versions.
        let ranked_by = self.ranking.as_ref().and_then(|ranking| {
            let stats = &ranking.stats;
            let means = stats.features.as_ref()?.value_mean.as_ref()?;
            Some(format!(" {} {} {means:?}", stats.mean, stats.std))
        });
        (error.is_some() || !scales.names.is_empty())
            .then(|| statistics + &ranked_by.unwrap_or_default())
    }

    /// Descriptions of the new columns.
    pub(super) fn summary(&self) -> Vec<String> {
        let ErrorScale { loss, mean, std } = self.error.clone().unwrap_or_default();
        let descriptions = [
            (
                self.error.is_some(),
                format!("zscore of {} ({mean:.6} ± {std:.6})", loss.as_str()),
            ),
            (
                self.feature_errors,
                format!("errors of {} features", self.features),
            ),
            (
                self.feature_zscores,
                format!("z-scores of {} features", self.features),
            ),
            (
                self.top_features > 0,
                format!(
                    "the {} most unusual features; those of records with a zscore above \
                     {UNUSUAL_ZSCORE} by one more run of the model per feature",
                    self.top_features
                ),
            ),
        ];
        descriptions
            .into_iter()
            .filter_map(|(is_added, description)| is_added.then_some(description))
            .collect()
    }
}

impl FeatureRanking {
    fn plan(model: Arc<Model>, shape: &TensorShape) -> Result<Self, ConfigError> {
        let fault = |reason: String| {
            let message = format!("requires a model that can be run again: {reason}");
            ConfigError::new("top_features", message)
        };
        let TensorShape::Fixed(shape) = shape else {
            return Err(fault("the records have different shapes".to_owned()));
        };
        let output = model
            .output_shape(ModelPath::Reconstruct, shape)
            .map_err(&fault)?;
        if !same_layout(&output, shape) {
            return Err(fault(format!(
                "it returns the shape {output:?} for records of shape {shape:?}"
            )));
        }
        let stats = model
            .card()
            .and_then(|card| card.reconstruction_error.clone());
        let stats = stats.ok_or_else(|| fault("it has no card".to_owned()))?;
        Ok(Self {
            model,
            shape: shape.clone(),
            stats: Arc::new(stats),
        })
    }

    /// The first `count` features of a record, most unusual first.
    fn order(
        &self,
        target: &[f32],
        output: &[f32],
        zscores: &[f64],
        count: usize,
        attributor: Option<&mut FeatureAttributor>,
    ) -> Vec<usize> {
        let error = self.model.loss().error(target, output);
        match attributor.filter(|_| self.stats.is_unusual(error)) {
            Some(attributor) => {
                let ranked = attributor.rank(target, output, zscores, count);
                ranked.iter().map(|explained| explained.feature).collect()
            }
            None => {
                let mut order: Vec<usize> = (0..zscores.len()).collect();
                order.sort_by(|&a, &b| (zscores[b] as f32).total_cmp(&(zscores[a] as f32)));
                order.truncate(count);
                order
            }
        }
    }
}

/// The scores of the records of a batch so far.
#[derive(Default)]
pub(super) struct AnomalyColumns {
    zscores: Vec<f32>,
    feature_errors: Vec<f32>,
    feature_zscores: Vec<f32>,
    /// The requested number of features per record, by index, most unusual first.
    top: Vec<(usize, f32)>,
}

fn top_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(top_fields()), false))
}

fn top_fields() -> Fields {
    Fields::from(vec![
        Field::new("feature", DataType::Utf8, false),
        Field::new("zscore", DataType::Float32, false),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::Float32Type;
    use expect_test::{Expect, expect};

    use super::super::TransformConfig;
    use super::*;
    use crate::batch::{Batch, RejectCollector};
    use crate::model::testing;
    use crate::plan_context::PipelineLimits;
    use crate::registry::parse_options;
    use crate::transform::testing::of;

    /// Creates a model folder whose card contains `errors`. Its encoder maps 4 features to 2.
    fn context(errors: &str) -> (tempfile::TempDir, PlanContext) {
        let folder = tempfile::tempdir().unwrap();
        for file in ["encoder.onnx", "decoder.onnx"] {
            std::fs::copy(testing::file(file), folder.path().join(file)).unwrap();
        }
        let card = format!(
            "name = \"m\"\nkind = \"deep\"\n[input]\ntype = \"features\"\n\
             columns = [\"a\", \"b\", \"c\", \"d\"]\n{errors}"
        );
        std::fs::write(folder.path().join("model.toml"), card).unwrap();
        let model = testing::open(&format!("path = {:?}", Path::new(folder.path())));
        let model = model.unwrap_or_else(|faults| panic!("{faults:?}"));
        let models = std::collections::BTreeMap::from([("m".to_owned(), Some(Arc::new(model)))]);
        (folder, PlanContext::new(models, PipelineLimits::default()))
    }

    const ERRORS: &str = "[reconstruction_error]\ncount = 9\nmean = 1.0\nstd = 0.5\n\
        min = 0.0\nmax = 9.0\n\
        quantiles = { p01 = 0.0, p05 = 0.0, p25 = 0.0, p50 = 1.0, p75 = 2.0, \
        p95 = 3.0, p99 = 4.0 }\n";
    const FEATURES: &str =
        "features = { mean = [1.0, 0.0, 0.0, 0.0], std = [1.0, 2.0, 0.0, 0.25] }\n";

    fn vectors(x: &[f32], y: &[f32], len: usize) -> Batch {
        let column = |values: &[f32]| fixed_column(len, values.to_vec()).unwrap();
        of([
            (vector_field("x", len), column(x)),
            (vector_field("y", len), column(y)),
        ])
    }

    fn score_options(options: &str) -> serde_json::Value {
        serde_json::from_str(&format!(
            r#"{{"original": "x", "reconstruction": "y", {options}}}"#
        ))
        .unwrap()
    }

    fn run(errors: &str, options: &str, batch: Batch) -> RecordBatch {
        let (_folder, context) = context(errors);
        let mut config: ScoreConfig = parse_options(score_options(options)).unwrap();
        let plan = config
            .plan(&batch.records.schema(), &context)
            .unwrap_or_else(|faults| panic!("{faults:?}"));
        let out = plan
            .build()
            .unwrap()
            .apply(batch, &mut RejectCollector::default())
            .unwrap();
        assert_eq!(out.records.schema(), plan.schema());
        out.records
    }

    fn floats(records: &RecordBatch, name: &str) -> Vec<f32> {
        let column = records.column_by_name(name).unwrap();
        let values = column
            .as_fixed_size_list_opt()
            .map_or(column, |list| list.values());
        values.as_primitive::<Float32Type>().values().to_vec()
    }

    #[test]
    fn record_is_scored_by_the_statistics_of_the_card() {
        let batch = vectors(&[0.0; 8], &[2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.5], 4);
        let options = r#""metrics": [], "model": "m", "zscore": true, "feature_errors": true,
            "feature_zscores": true, "top_features": 2, "prefix": "n_""#;
        let out = run(&format!("{ERRORS}{FEATURES}"), options, batch);
        let names: Vec<String> = out
            .schema()
            .fields()
            .iter()
            .skip(2)
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(
            names,
            [
                "n_zscore",
                "n_feature_errors",
                "n_feature_zscores",
                "n_top_features"
            ]
        );
        // The mean squared errors are 1 and 5.25 / 4.
        assert_eq!(floats(&out, "n_zscore"), [0.0, 0.625]);
        assert_eq!(
            floats(&out, "n_feature_errors"),
            [4.0, 0.0, 0.0, 0.0, 0.0, 4.0, 1.0, 0.25]
        );
        // The third feature has a standard deviation of 0, which is replaced by that of the fourth.
        assert_eq!(
            floats(&out, "n_feature_zscores"),
            [3.0, 0.0, 0.0, 0.0, -1.0, 2.0, 4.0, 1.0]
        );
        let top = out.column(5).as_list::<i32>();
        assert_eq!((top.value_length(0), top.value_length(1)), (2, 2));
        let top = top.values().as_struct();
        let top_names: Vec<_> = top.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(top_names, ["a", "b", "c", "b"]);
        assert_eq!(
            top.column(1).as_primitive::<Float32Type>().values(),
            &[3.0, 0.0, 4.0, 2.0]
        );
    }

    #[test]
    fn features_of_unusual_records_are_ranked_by_the_model() {
        let features = FEATURES.replace("] }", "], value_mean = [0.0, 0.0, 0.0, 0.0] }");
        // In the first record only `b` is wrong, but `a` has the same error and a larger z-score.
        // The second record has a z-score of 3 and is not unusual.
        let batch = vectors(
            &[0.0, 6.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0],
            &[3.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            4,
        );
        let options = r#""metrics": [], "model": "m", "zscore": true, "top_features": 2"#;
        let out = run(&format!("{ERRORS}{features}"), options, batch.clone());
        assert_eq!(floats(&out, "zscore"), [7.0, 3.0]);
        let names = |records: &RecordBatch| -> Vec<String> {
            let top = records
                .column_by_name("top_features")
                .unwrap()
                .as_list::<i32>();
            let all = top.values().as_struct().column(0).as_string::<i32>().iter();
            all.map(|name| name.unwrap().to_owned()).collect()
        };
        assert_eq!(names(&out), ["b", "a", "b", "d"]);
        // A record is ranked alike in every batch.
        let alone = run(
            &format!("{ERRORS}{features}"),
            options,
            crate::transform::testing::part(&batch, 0, 1),
        );
        assert_eq!(names(&alone), names(&out)[..2]);
    }

    #[test]
    fn feature_errors_need_no_model_and_empty_batch_stays_empty() {
        let batch = vectors(&[1.0, 2.0], &[0.0, 0.0], 2);
        let out = run(ERRORS, r#""feature_errors": true"#, batch.clone());
        assert_eq!(
            (floats(&out, "mse"), floats(&out, "feature_errors")),
            (vec![2.5], vec![1.0, 4.0])
        );
        let empty = crate::transform::testing::part(&vectors(&[0.0; 4], &[0.0; 4], 4), 0, 0);
        let options = r#""model": "m", "zscore": true, "top_features": 4"#;
        assert_eq!(
            run(&format!("{ERRORS}{FEATURES}"), options, empty).num_rows(),
            0
        );
    }

    #[test]
    fn fingerprint_depends_on_used_statistics_of_the_card() {
        let fingerprint = |errors: &str, options: &str| {
            let (_folder, context) = context(errors);
            let mut config: ScoreConfig = parse_options(score_options(options)).unwrap();
            let batch = vectors(&[0.0; 4], &[0.0; 4], 4);
            config
                .plan(&batch.records.schema(), &context)
                .unwrap_or_else(|faults| panic!("{faults:?}"))
                .depends_on()
        };
        let zscore = r#""model": "m", "zscore": true"#;
        assert_ne!(
            fingerprint(ERRORS, zscore),
            fingerprint(&ERRORS.replace("std = 0.5", "std = 0.6"), zscore)
        );
        assert_eq!(
            fingerprint(ERRORS, zscore),
            fingerprint(&ERRORS.replace("p50 = 1.0", "p50 = 1.1"), zscore)
        );
        let top = r#""model": "m", "top_features": 1"#;
        let with_features = format!("{ERRORS}{FEATURES}");
        assert_ne!(
            fingerprint(&with_features, top),
            fingerprint(&with_features.replace("2.0, 0.0", "2.5, 0.0"), top)
        );
        assert_eq!(fingerprint(ERRORS, r#""feature_errors": true"#), None);
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |errors: &str, options: &str, len: usize, expected: Expect| {
            let (_folder, context) = context(errors);
            let batch = vectors(&vec![0.0; len], &vec![0.0; len], len);
            let plan = parse_options::<ScoreConfig>(score_options(options))
                .and_then(|mut config| config.plan(&batch.records.schema(), &context));
            let faults = plan.err().unwrap_or_default();
            let lines: Vec<String> = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.key, fault.message))
                .collect();
            expected.assert_eq(&lines.join("\n"));
        };
        let all = r#""model": "m", "zscore": true, "feature_zscores": true, "top_features": 5"#;
        check(
            ERRORS,
            r#""zscore": true, "top_features": 1"#,
            4,
            expect![[r#"
            zscore: requires `model`, whose card states the usual errors
            top_features: requires `model`, whose card states the usual errors"#]],
        );
        check(
            ERRORS,
            r#""model": "m", "feature_errors": true"#,
            4,
            expect![
                "model: has no effect without zscore, feature_zscores or top_features; set one of \
                 them, or leave it out"
            ],
        );
        check(
            ERRORS,
            r#""model": "n", "zscore": true"#,
            4,
            expect!["model: no model `n`; declared: m"],
        );
        check(
            "",
            all,
            4,
            expect![
                "model: the model `tested` has no card with the section [reconstruction_error]"
            ],
        );
        check(
            &ERRORS.replace("std = 0.5", "std = 0.0"),
            all,
            4,
            expect![
                "zscore: all errors on the validation data of `tested` are equal, so that the \
                 z-score is undefined\n\
                 feature_zscores: the card of `tested` does not contain \
                 reconstruction_error.features, the errors of single features; \
                 `latentflow train` writes them\n\
                 top_features: the card of `tested` does not contain \
                 reconstruction_error.features, the errors of single features; \
                 `latentflow train` writes them"
            ],
        );
        check(
            &format!("{ERRORS}{FEATURES}"),
            all,
            4,
            expect!["top_features: the model `tested` takes 4 features, fewer than 5"],
        );
        check(
            &format!("{ERRORS}{FEATURES}"),
            all,
            3,
            expect![[r#"
            feature_zscores: the original has 3 values, but the model `tested` takes 4 features
            top_features: the original has 3 values, but the model `tested` takes 4 features"#]],
        );
        check(
            ERRORS,
            r#""top_features": 0"#,
            4,
            expect!["top_features: invalid value: integer `0`, expected a nonzero usize"],
        );
    }
}
