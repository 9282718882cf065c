//! Checks a `[data]` table against the input of a model and reports all faults before a record is
//! read.

pub(crate) mod record_kind;
pub(crate) mod schema;
pub(crate) mod source_steps;
pub(crate) mod stored_names;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::DataError;
use super::config::DataSpec;
use crate::data::plan::record_kind::RecordKind;
use crate::data::plan::schema::{check_shares, names_of_values, needs_float64, sized_lists};
use crate::data::plan::source_steps::{PlannedSource, SourcePlanner, plan_source};
use crate::data::plan::stored_names::stored_data;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::prepared::Sizing;
use crate::image::{DecodeMode, DecodeOptions, TargetSize};
use crate::model::input::rules::FeatureRule;
use crate::model::input::rules::index::RuleIndex;
use crate::model::input::spec::{InputKind, InputSpec};
use crate::plan_context::PlanContext;
use crate::registry::canonical;

/// A checked `[data]` table.
pub(super) struct DatasetPlan {
    pub(super) target: RecordKind,
    pub(super) sources: Vec<PlannedSource>,
    /// Features: the values of a record. Images: 0.
    pub(super) width: usize,
    /// Features: whether each column gives one value.
    pub(super) columns_are_values: bool,
    /// Features: the name of each value.
    pub(super) value_names: Vec<String>,
    /// Whether features are stored as float64, because float32 does not hold them exactly.
    pub(super) float64: bool,
}

/// The name of the column of feature vectors. Columns of an input do not have this name.
const VECTOR: &str = "\u{1}vector";

/// The version of the former keys, which are digests of the tables as written. The current keys are
/// digests of the normalized tables.
const VERSION: u32 = 1;

impl DatasetPlan {
    /// Plans the sources and the steps for their records.
    ///
    /// # Errors
    /// Returns all faults. Their keys are relative to the table, except those that begin with
    /// `input.`. Returns an error if the first records of a source cannot be read, where the length
    /// of lists depends on them.
    pub(super) fn new(spec: &DataSpec, input: &InputSpec) -> Result<Self, DataError> {
        let mut faults = check_shares(spec);
        let context = PlanContext::new(BTreeMap::new(), spec.limits);
        if spec.sources.is_empty() {
            let message = "no source is listed; add one, such as \
                           [{ kind = \"images\", path = \"photos\" }]";
            faults.push(ConfigError::new("sources", message));
        }
        let mut sources = Vec::new();
        for (at, written) in spec.sources.iter().enumerate() {
            match plan_source(written, spec.root.as_deref(), &context) {
                Ok((source, _)) if source.is_unbounded() => {
                    let message = "is unbounded; use a source that has an end, such as files \
                                   without `watch = true`";
                    faults.push(ConfigError::new(format!("sources[{at}]"), message));
                }
                Ok((source, normalized)) => sources.push((at, source, normalized)),
                Err(found) => faults.extend(
                    found
                        .into_iter()
                        .map(|fault| fault.within(&format!("sources[{at}]"))),
                ),
            }
        }
        let schema = sources.first().map(|(_, source, _)| source.schema());
        let target = faults
            .record_all(RecordKind::new(spec, input, schema.as_deref()))
            .flatten();
        let schemas = || sources.iter().map(|(_, source, _)| source.schema());
        let float64 = schemas().any(|columns| needs_float64(input, target.as_ref(), &columns));
        let mut planned = Vec::new();
        let mut vectors = Vec::new();
        let mut value_names = Vec::new();
        for (at, source, normalized) in sources {
            let list_lengths = match &target {
                Some(RecordKind::Features { columns, .. }) => {
                    let own = source.schema();
                    let lengths = sized_lists(spec, at, &context, &own, columns)?;
                    if value_names.is_empty() {
                        value_names = names_of_values(columns, &own, &lengths);
                    }
                    lengths
                }
                _ => vec![],
            };
            let mut steps = SourcePlanner {
                spec,
                context: &context,
                at,
                schema: source.schema(),
                list_lengths,
                float64,
                faults: &mut faults,
            };
            let (steps, vector) = steps.plan(target.as_ref(), input.columns.is_some());
            vectors.extend(vector);
            planned.extend(steps.map(|steps| PlannedSource {
                source,
                normalized,
                steps,
            }));
        }
        let width = vectors.first().copied().unwrap_or(0);
        if let Some(other) = vectors.iter().find(|&&other| other != width) {
            let message = format!(
                "the columns of a source hold {other} values per record, but those of the first \
                 source hold {width}"
            );
            faults.push(ConfigError::new("sources", message));
        }
        let Some(target) = target else {
            return Err(DataError::Faults(faults));
        };
        let columns_are_values =
            matches!(&target, RecordKind::Features { columns, .. } if columns.len() == width);
        if faults.is_empty() {
            Ok(Self {
                target,
                sources: planned,
                width,
                columns_are_values,
                value_names,
                float64,
            })
        } else {
            Err(DataError::Faults(faults))
        }
    }

    /// Returns a digest over everything that determines the prepared files, and the digest that
    /// earlier versions computed from the tables as written. Returns `None` if a change of the
    /// inputs cannot be detected.
    ///
    /// # Errors
    /// A fault at the path of a source whose input does not exist, or an error if the inputs cannot
    /// be listed.
    pub(super) fn keys(&self, spec: &DataSpec) -> Result<Option<[String; 2]>, DataError> {
        let mut inputs = Vec::new();
        for (index, PlannedSource { source, .. }) in self.sources.iter().enumerate() {
            let listed = source.inputs().map_err(|error| {
                let key = format!("sources[{index}].path");
                let fault = ConfigError::from_error(key, &error);
                match fault.is_of_environment {
                    true => DataError::Stage(error),
                    false => DataError::Faults(vec![fault]),
                }
            });
            match listed? {
                Some(files) => inputs.push(files),
                None => return Ok(None),
            }
        }
        let written = DataSpec {
            root: None,
            description: String::new(),
            license: String::new(),
            ..spec.clone()
        };
        let sources = self
            .sources
            .iter()
            .map(|planned| planned.normalized.clone())
            .collect();
        let normalized = DataSpec {
            sources,
            ..written.clone()
        };
        let target = match &self.target {
            RecordKind::Images { options, sizing } => image_key(options, sizing),
            RecordKind::Features { columns, rules } => {
                let mut target = json!({ "columns": columns });
                if !rules.is_empty() {
                    let index = RuleIndex::new(rules);
                    let of = |column: &String| {
                        let rule = index.column_rule(column);
                        json!([
                            index.raw(column),
                            rule.is_some_and(FeatureRule::counts_categories)
                        ])
                    };
                    target["rules"] = columns.iter().map(of).collect();
                }
                target
            }
        };
        let digest = |text: String| format!("{:x}", Sha256::digest(text));
        let all = json!({
            "version": VERSION + 1,
            "spec": stored_data(json!(normalized)),
            "target": target,
            "inputs": inputs,
        });
        let former = json!({
            "version": VERSION,
            "spec": stored_data(json!(written)),
            "target": target,
            "inputs": inputs,
        });
        Ok(Some([digest(canonical(&all)), digest(former.to_string())]))
    }

    /// Returns whether the records are images or features.
    pub(super) fn kind(&self) -> InputKind {
        match self.target {
            RecordKind::Images { .. } => InputKind::Image,
            RecordKind::Features { .. } => InputKind::Features,
        }
    }
}

/// The part of the key that states how images are read.
fn image_key(options: &DecodeOptions, sizing: &Sizing) -> Value {
    let size = match sizing.size() {
        TargetSize::Original => Value::Null,
        TargetSize::Fixed(height, width) => json!([height, width]),
    };
    let mut key = json!({ "channels": options.channels, "size": size });
    match sizing {
        // Earlier versions decoded in full and did not state it.
        Sizing::Resize {
            decode: DecodeMode::Scaled,
            ..
        } => key["decode"] = json!(DecodeMode::Scaled),
        Sizing::Steps(steps) => key["steps"] = json!(steps.steps()),
        Sizing::Original | Sizing::Resize { .. } => {}
    }
    key
}
