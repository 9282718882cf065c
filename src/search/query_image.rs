//! The latent of an image file, computed as the latents of a dataset were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::columns::{IMAGE, SOURCE};
use crate::config::settings::PipelineConfig;
use crate::config::{self, Diagnostics};
use crate::embed::{EmbeddedPipeline, ProcessedRecords};
use crate::error::StageError;
use crate::error::failure::StageFailure;
use crate::fs_durable::bounded_read::read_bounded;
use crate::model::{Model, ModelSpec, RuntimeSpec, ort_library};
use crate::plan::EmbeddedEnds;
use crate::registry::RenamedKeys;
use crate::search::latent_column::{invalid, latents};
use crate::search::latent_dataset::LatentDataset;
use crate::search::model_digests::ModelDigests;
use crate::search::neighbors::NeighborQuery;
use crate::sink::{OutputIdentity, StageIdentity};
use crate::tensor::fixed_values;
use crate::transform::registry::KINDS;

/// Maximum size of an image file.
const MAX_FILE: u64 = 1 << 30;
/// The names of the generated stages.
const GENERATED: [&str; 4] = ["in", "pixels", "encode", "out"];
/// Kinds of stages that change neither images nor latents.
const NEUTRAL: [&str; 3] = ["filter", "score", "select"];

/// The reason that an image has no latent.
#[derive(Debug, Error)]
pub(crate) enum QueryImageError {
    /// The pipeline has faults.
    #[error("{0}")]
    Pipeline(Diagnostics),
    /// A stage of the pipeline failed.
    #[error("{0}")]
    Stage(#[from] StageFailure),
    /// The dataset, the model or the image cannot be used.
    #[error(transparent)]
    Query(#[from] StageError),
}

/// The computation of the latent.
pub(crate) enum QueryEncoder {
    /// The stages of a pipeline before the sink that wrote the dataset.
    Pipeline(Box<PipelineConfig>),
    /// A model folder, with the options of the stages that wrote the dataset.
    Model(PathBuf),
}

impl QueryEncoder {
    /// The error of a query without a pipeline or a model.
    pub(crate) fn missing(dataset: &LatentDataset) -> StageError {
        let writer = dataset.writers.last().map(|writer| {
            let models: Vec<String> = writer
                .models
                .iter()
                .map(|(name, digest)| format!("`{name}` ({digest:.12})"))
                .collect();
            format!(
                "; the dataset was written by the pipeline `{}` with the model {}",
                writer.pipeline,
                models.join(" and ")
            )
        });
        invalid(format!(
            "--to requires --pipeline FILE or --model FOLDER, with which the image is encoded{}",
            writer.unwrap_or_default()
        ))
    }
}

impl LatentDataset {
    /// The query for an image file.
    ///
    /// # Errors
    /// If the pipeline or the model cannot be used, if its digests differ from those of the dataset,
    /// or if the image is rejected.
    pub(crate) fn image_query(
        &self,
        file: &Path,
        encoder: QueryEncoder,
    ) -> Result<NeighborQuery, QueryImageError> {
        let Some(writer) = self.writers.last() else {
            return Err(invalid(format!(
                "{}: was written by another program, so that the model of its latents is not known; \
                 search from one of its rows with --row",
                self.location
            ))
            .into());
        };
        let image = read_bounded(file, MAX_FILE).map_err(|source| StageError::Io {
            path: file.to_path_buf(),
            source,
        })?;
        let (spec, ends) = match encoder {
            QueryEncoder::Pipeline(spec) => {
                let ends = EmbeddedEnds {
                    sink: Some(writer.stage.clone()),
                    ..EmbeddedEnds::default()
                };
                (*spec, ends)
            }
            QueryEncoder::Model(folder) => {
                self.check_model(&folder)?;
                let text = self.pipeline_of_model(writer, &folder)?;
                let parsed = config::parse(Path::new("query.toml"), &text, std::iter::empty(), &[]);
                (
                    parsed.map_err(QueryImageError::Pipeline)?,
                    EmbeddedEnds::default(),
                )
            }
        };
        let pipeline =
            EmbeddedPipeline::open(spec, &ends, None).map_err(QueryImageError::Pipeline)?;
        let models = ModelDigests::new(pipeline.models());
        self.check_models(&models)?;
        let name = file.to_string_lossy();
        let columns: [(&str, ArrayRef); 2] = [
            (SOURCE, Arc::new(StringArray::from(vec![name.as_ref()]))),
            (IMAGE, Arc::new(BinaryArray::from_vec(vec![&image]))),
        ];
        let records = RecordBatch::try_from_iter(columns).map_err(StageError::from)?;
        let latent = self.only_latent(file, &pipeline.process(&records)?)?;
        Ok(NeighborQuery {
            latent,
            models: Some(models),
            position: None,
        })
    }

    /// The text of a pipeline that encodes images with the model in `folder`, as the writer did.
    fn pipeline_of_model(
        &self,
        writer: &OutputIdentity,
        folder: &Path,
    ) -> Result<String, StageError> {
        let of_kind = |kind: &str| -> Vec<&StageIdentity> {
            let stages = writer.stages.values();
            stages.filter(|stage| stage.kind == kind).collect()
        };
        let transforms = KINDS.iter().map(|kind| kind.name);
        let others: Vec<&str> = transforms
            .filter(|kind| !["pixels", "encode"].contains(kind) && !NEUTRAL.contains(kind))
            .filter(|kind| !of_kind(kind).is_empty())
            .collect();
        let stages = [of_kind("pixels"), of_kind("encode")];
        let (&[pixels], &[encode], 1, []) = (
            stages[0].as_slice(),
            stages[1].as_slice(),
            writer.models.len(),
            others.as_slice(),
        ) else {
            return Err(invalid(format!(
                "{}: its latents were not computed by one stage `pixels` and one stage `encode` alone; \
                 pass the pipeline with --pipeline in place of --model",
                self.location
            )));
        };
        let [input, resized, encoded, out] = GENERATED;
        let is_standard = |stage: &StageIdentity| {
            ["preset", "preprocessor"].iter().any(|key| {
                stage
                    .options
                    .get(*key)
                    .is_some_and(|value| !value.is_null())
            })
        };
        let pixels_model = (!is_standard(pixels)).then_some("model");
        let document = json!({
            "models": { "model": { "path": folder } },
            "stages": {
                input: { "kind": "embedded" },
                resized: stage(pixels, input, pixels_model),
                encoded: stage(encode, resized, Some("model")),
                out: { "kind": "discard", "inputs": [encoded] },
            },
        });
        toml::to_string(&document).map_err(|error| invalid(format!("--model: {error}")))
    }

    /// Checks that the dataset has latents of the model in a folder. A folder without a model is a
    /// fault of the generated pipeline.
    fn check_model(&self, folder: &Path) -> Result<(), StageError> {
        let spec = ModelSpec {
            path: Some(folder.to_path_buf()),
            ..ModelSpec::default()
        };
        let runtime = RuntimeSpec::default();
        let loaded = ort_library::init(&runtime).map_err(|fault| vec![fault]);
        let opened = loaded.and_then(|()| Model::open("model", &spec, &runtime, &Arc::default()));
        opened.map_or(Ok(()), |model| {
            let digest = (model.name().to_owned(), model.digest().to_owned());
            self.check_models(&ModelDigests::new(&BTreeMap::from([digest])))
        })
    }

    /// Checks that the dataset has latents of these models.
    fn check_models(&self, models: &ModelDigests) -> Result<(), StageError> {
        let writers = self.writers.iter();
        let mut found: Vec<ModelDigests> = writers
            .map(|writer| ModelDigests::new(&writer.models))
            .collect();
        if found.contains(models) {
            return Ok(());
        }
        found.sort_unstable();
        found.dedup();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Err(invalid(format!(
            "{}: its latents were computed by the model {}, not by {models}; distances between latents \
             of different models have no meaning: use the model of the dataset, or encode the dataset \
             with this model into another folder",
            self.location,
            found.join(" or "),
        )))
    }

    /// The latent of the only record.
    fn only_latent(&self, file: &Path, parts: &[ProcessedRecords]) -> Result<Vec<f32>, StageError> {
        let file = file.display();
        if let Some(reject) = parts.iter().flat_map(|part| &part.rejects).next() {
            let code = reject.code.as_str();
            return Err(invalid(format!(
                "{file}: rejected by the stage `{}` ({code}): {}",
                reject.stage, reject.reason
            )));
        }
        let Some(part) = parts.iter().find(|part| part.records.num_rows() > 0) else {
            return Err(invalid(format!(
                "{file}: a filter of the pipeline drops the image"
            )));
        };
        let Some(column) = part.records.column_by_name(&self.column) else {
            return Err(invalid(format!(
                "the pipeline has no column `{}`",
                self.column
            )));
        };
        let latents = match part.records.num_rows() {
            1 => latents(column, self.width)?,
            rows => {
                let message =
                    format!("{file}: the pipeline makes {rows} records of it; expected one");
                return Err(invalid(message));
            }
        };
        let latent = fixed_values(&latents).filter(|_| latents.is_valid(0));
        latent
            .map(<[f32]>::to_vec)
            .ok_or_else(|| invalid(format!("{file}: has no latent of {} values", self.width)))
    }
}

/// The table of a stage with recorded options, under the names that pipelines have.
fn stage(identity: &StageIdentity, input: &str, model: Option<&str>) -> Value {
    let kind = KINDS.iter().find(|kind| kind.name == identity.kind);
    let renamed = kind.map_or_else(RenamedKeys::default, |kind| {
        RenamedKeys::of_schema(kind.schema)
    });
    let mut table: Map<String, Value> = renamed.current(identity.options.clone());
    table.retain(|_, value| !value.is_null());
    table.insert("kind".to_owned(), json!(identity.kind));
    table.insert("inputs".to_owned(), json!([input]));
    table.extend(model.map(|model| ("model".to_owned(), json!(model))));
    Value::Object(table)
}
