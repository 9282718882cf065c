//! The stages before the records of a dataset: a source, and a comparison or pixels.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use serde_json::{Map, Value};

use crate::columns::IMAGE;
use crate::data::config::DataSpec;
use crate::data::plan::VECTOR;
use crate::data::plan::record_kind::{RecordKind, find, is_bytes, names};
use crate::data::record_id::RecordIdResolver;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::input::rules::FeatureRule;
use crate::plan_context::PlanContext;
use crate::source::Source;
use crate::source::batch_size::BatchSize;
use crate::storage::{is_url, tidy};
use crate::transform::{IsolatedTransform, TransformConfig, TransformPlan, raw_features};
use crate::{registry, source};

/// A source with the steps that its batches go through.
pub(in crate::data) struct PlannedSource {
    pub(in crate::data) source: Box<dyn Source>,
    /// The normalized table of the source, with the row-changing options only.
    pub(crate) normalized: Value,
    pub(in crate::data) steps: SourceSteps,
}

/// The steps that the batches of a source go through.
pub(in crate::data) struct SourceSteps {
    pub(in crate::data) keep: Vec<IsolatedTransform>,
    /// Features: appends the vector as the last column.
    pub(in crate::data) features: Option<IsolatedTransform>,
    pub(in crate::data) normal: Option<IsolatedTransform>,
    pub(in crate::data) label: Option<usize>,
    /// Images: the column of encoded images.
    pub(in crate::data) image: Option<usize>,
    pub(in crate::data) record_ids: RecordIdResolver,
}

/// Plans a source. Returns it with its normalized table, in which relative paths stay relative to
/// the root.
pub(crate) fn plan_source(
    written: &Value,
    root: Option<&Path>,
    context: &PlanContext,
) -> Result<(Box<dyn Source>, Value), Vec<ConfigError>> {
    let Value::Object(table) = written else {
        return Err(vec![ConfigError::new(
            "",
            "expected a table, such as { kind = \"images\", path = \"photos\" }",
        )]);
    };
    let mut options = table.clone();
    let kind = match options.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(other) => {
            return Err(vec![ConfigError::new(
                "kind",
                format!("expected a string, found {other}"),
            )]);
        }
        None => {
            let known: Vec<&str> = source::registry::KINDS
                .iter()
                .map(|kind| kind.name)
                .collect();
            let message = format!(
                "`kind` is missing; expected the kind of the source, one of: {}",
                known.join(", ")
            );
            return Err(vec![ConfigError::new("", message)]);
        }
    };
    let kind =
        registry::find(source::registry::KINDS, &kind, "source").map_err(|fault| vec![fault])?;
    let (batch, faults) = registry::parse_options_lenient::<BatchSize>(
        options.remove("batch").unwrap_or(Value::Null),
    );
    let mut faults: Vec<ConfigError> = faults
        .into_iter()
        .map(|fault| fault.within("batch"))
        .collect();
    let declared = registry::option_attributes(kind.schema);
    let paths = || declared.iter().filter(|(_, option)| option.is_path);
    if let Some(root) = root {
        paths().for_each(|(key, _)| prepend_root(root, options.get_mut(key)));
    }
    match (kind.plan)(
        "data",
        Value::Object(options),
        batch.unwrap_or_default(),
        context,
    ) {
        Ok(planned) if faults.is_empty() => {
            let changes_rows = |key: &str| {
                declared
                    .get(key)
                    .is_none_or(|option| option.changes_rows != Some(false))
            };
            let mut normalized: Map<String, Value> = planned
                .options
                .into_iter()
                .filter(|(key, _)| changes_rows(key))
                .collect();
            let paths = paths().filter_map(|(key, _)| Some((key, table.get(key)?.as_str()?)));
            normalized.extend(paths.map(|(key, path)| (key.clone(), Value::from(tidy(path)))));
            normalized.insert("kind".to_owned(), Value::from(kind.name));
            Ok((planned.stage, Value::Object(normalized)))
        }
        Ok(_) => Err(faults),
        Err(found) => {
            faults.extend(found);
            Err(faults)
        }
    }
}

/// Prepends the root to a relative path.
fn prepend_root(root: &Path, option: Option<&mut Value>) {
    if let Some(Value::String(path)) = option
        && !is_url(path)
        && !path.is_empty()
    {
        *path = root.join(&*path).to_string_lossy().into_owned();
    }
}

/// Plans the steps of one source.
pub(crate) struct SourcePlanner<'a> {
    pub(crate) spec: &'a DataSpec,
    pub(crate) context: &'a PlanContext,
    /// The position of the source in `sources`.
    pub(crate) at: usize,
    pub(crate) schema: SchemaRef,
    /// The lengths of lists whose type does not fix them, by the index of the column.
    pub(crate) list_lengths: Vec<(usize, i32)>,
    pub(crate) float64: bool,
    pub(crate) faults: &'a mut Vec<ConfigError>,
}

impl SourcePlanner<'_> {
    /// Returns the steps if they have no faults, and the number of values of a feature record.
    pub(crate) fn plan(
        &mut self,
        target: Option<&RecordKind>,
        named: bool,
    ) -> (Option<SourceSteps>, Option<usize>) {
        let before = self.faults.len();
        let spec = self.spec;
        let keep = spec
            .keep
            .iter()
            .enumerate()
            .filter_map(|(number, comparison)| {
                self.built(
                    comparison.clone().plan(&self.schema, self.context),
                    &format!("keep[{number}]"),
                )
            });
        let keep = keep.collect();
        let normal = spec.normal.as_ref().and_then(|comparison| {
            self.built(
                comparison.clone().plan(&self.schema, self.context),
                "normal",
            )
        });
        let label = spec.label.as_deref().and_then(|name| self.label(name));
        let (mut image, mut features, mut width) = (None, None, None);
        match target {
            Some(RecordKind::Images { .. }) => image = self.image(),
            Some(RecordKind::Features { columns, rules }) => {
                (features, width) = self.features(columns, rules, named)
            }
            None => {}
        }
        let record_ids = RecordIdResolver::new(&self.schema);
        let steps = SourceSteps {
            keep,
            features,
            normal,
            label,
            image,
            record_ids,
        };
        ((self.faults.len() == before).then_some(steps), width)
    }

    fn built(
        &mut self,
        planned: Result<Box<dyn TransformPlan>, Vec<ConfigError>>,
        key: &str,
    ) -> Option<IsolatedTransform> {
        let build = |plan: Box<dyn TransformPlan>| IsolatedTransform::build(Arc::from(plan));
        let built = planned.and_then(|plan| {
            build(plan).map_err(|error| vec![ConfigError::new("", error.to_string())])
        });
        let faults = &mut *self.faults;
        faults.record_all_within(key, built)
    }

    fn label(&mut self, name: &str) -> Option<usize> {
        let found = find(&self.schema, "label", name).and_then(|index| {
            let column = self.schema.field(index).data_type();
            let value = match column {
                DataType::Dictionary(_, value) => value,
                plain => plain,
            };
            let is_label = value.is_numeric() || value.is_string() || value == &DataType::Boolean;
            let message =
                || format!("column `{name}` holds {column}; expected numbers, strings or booleans");
            if is_label {
                Ok(index)
            } else {
                Err(ConfigError::new("label", message()))
            }
        });
        self.faults.record(found)
    }

    fn image(&mut self) -> Option<usize> {
        let index = self.schema.index_of(IMAGE).ok();
        let found = index.filter(|&index| is_bytes(self.schema.field(index).data_type()));
        if found.is_none() {
            let known = names(&self.schema).join(", ");
            let mut fields = self.schema.fields().iter();
            let hint = fields
                .find(|field| is_bytes(field.data_type()))
                .map_or_else(String::new, |field| {
                    let name = field.name();
                    format!(
                        "; a Parquet source reads images from another column with \
                             `image_column = \"{name}\"`"
                    )
                });
            let message = format!(
                "the input of the model is images, but the source has no binary column `{IMAGE}`; \
                 it has: {known}{hint}"
            );
            self.faults
                .push(ConfigError::new(format!("sources[{}]", self.at), message));
        }
        found
    }

    fn features(
        &mut self,
        columns: &[String],
        rules: &[FeatureRule],
        named: bool,
    ) -> (Option<IsolatedTransform>, Option<usize>) {
        let element = if self.float64 {
            DataType::Float64
        } else {
            DataType::Float32
        };
        let lengths = &self.list_lengths;
        let planned = raw_features::plan(columns, rules, VECTOR, element, &self.schema, lengths);
        let vector = planned.as_ref().ok().and_then(|plan| {
            match plan.schema().fields().last()?.data_type() {
                DataType::FixedSizeList(_, len) => usize::try_from(*len).ok(),
                _ => None,
            }
        });
        let planned = planned.map_err(|found| {
            found
                .into_iter()
                .map(|fault| ConfigError::new("", fault.message))
                .collect()
        });
        let key = if named {
            "input.columns".to_owned()
        } else {
            format!("sources[{}]", self.at)
        };
        (self.built(planned, &key), vector)
    }
}
