//! Checks a `[data]` table against the input of a model and reports all faults before a record is
//! read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::DataError;
use super::config::DataSpec;
use super::list_lengths::{list_lengths, unsized_lists};
use super::record_id::RecordIdResolver;
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::image::{Channels, DecodeMode, ValueRange};
use crate::model::input::{InputKind, InputSpec, ScalingKind};
use crate::plan_context::PlanContext;
use crate::registry::{self, canonical, did_you_mean};
use crate::source::{self, BatchSize, IMAGE, ROW, SOURCE, Source};
use crate::storage::{is_url, tidy};
use crate::transform::raw_features::{self, is_exact_in_float32};
use crate::transform::{IsolatedTransform, TransformConfig, TransformPlan, element_names};

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

/// The form in which records are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RecordKind {
    Images {
        channels: Channels,
        size: Option<[usize; 2]>,
        decode: DecodeMode,
        max_pixels: u64,
        value_range: Option<ValueRange>,
    },
    Features {
        columns: Vec<String>,
    },
}

/// A source with the steps that its batches go through.
pub(super) struct PlannedSource {
    pub(super) source: Box<dyn Source>,
    /// The normalized table of the source, with the row-changing options only.
    normalized: Value,
    pub(super) steps: SourceSteps,
}

/// The steps that the batches of a source go through.
pub(super) struct SourceSteps {
    pub(super) keep: Vec<IsolatedTransform>,
    /// Features: appends the vector as the last column.
    pub(super) features: Option<IsolatedTransform>,
    pub(super) normal: Option<IsolatedTransform>,
    pub(super) label: Option<usize>,
    /// Images: the column of encoded images.
    pub(super) image: Option<usize>,
    pub(super) record_ids: RecordIdResolver,
}

/// Options of sources that are paths.
const PATHS: [&str; 2] = ["path", "labels"];

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
                Some(RecordKind::Features { columns }) => {
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
            matches!(&target, RecordKind::Features { columns } if columns.len() == width);
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
            RecordKind::Images {
                channels,
                size,
                decode,
                ..
            } => {
                let mut target = json!({ "channels": channels, "size": size });
                // Earlier versions decoded in full and did not state it.
                if *decode != DecodeMode::Full {
                    target["decode"] = json!(decode);
                }
                target
            }
            RecordKind::Features { columns } => json!({ "columns": columns }),
        };
        let digest = |text: String| format!("{:x}", Sha256::digest(text));
        let all = json!({
            "version": VERSION + 1,
            "spec": registry::stored_data(json!(normalized)),
            "target": target,
            "inputs": inputs,
        });
        let former = json!({
            "version": VERSION,
            "spec": registry::stored_data(json!(written)),
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

/// The names of the values of these columns: those of the columns, and of the elements of lists.
/// `lengths` holds the lengths of lists whose type does not fix them, by the index of the column.
fn names_of_values(columns: &[String], schema: &Schema, lengths: &[(usize, i32)]) -> Vec<String> {
    let names = |column: &String| {
        let found = schema.column_with_name(column);
        let len = found.and_then(|(index, field)| match field.data_type() {
            DataType::FixedSizeList(_, len) => Some(*len),
            _ => {
                let sized = lengths.iter().find(|(list, _)| *list == index);
                sized.map(|(_, len)| *len)
            }
        });
        match len.and_then(|len| usize::try_from(len).ok()) {
            Some(count) => element_names(column, count).collect(),
            None => vec![column.clone()],
        }
    };
    columns.iter().flat_map(names).collect()
}

/// Whether the features of a source have values that float32 does not hold exactly. Without scaling,
/// a model takes float32, and the values are rounded once in any case.
fn needs_float64(input: &InputSpec, target: Option<&RecordKind>, schema: &Schema) -> bool {
    let Some(RecordKind::Features { columns }) = target else {
        return false;
    };
    // The values of a list column are named `column[0]` and so on in a card.
    let list_of = |name: &str| name.rsplit_once('[').map(|(list, _)| list.to_owned());
    let mut fields = columns.iter().filter_map(|name| {
        let found = schema.column_with_name(name);
        found.or_else(|| schema.column_with_name(&list_of(name)?))
    });
    input.scaling != Some(ScalingKind::None)
        && fields.any(|(_, field)| !is_exact_in_float32(field.data_type()))
}

/// Returns the lengths of the lists of a source whose type does not fix them, from its first
/// records.
fn sized_lists(
    spec: &DataSpec,
    at: usize,
    context: &PlanContext,
    schema: &Schema,
    columns: &[String],
) -> Result<Vec<(usize, i32)>, StageError> {
    let lists = unsized_lists(schema, columns);
    if lists.is_empty() {
        return Ok(vec![]);
    }
    match plan_source(&spec.sources[at], spec.root.as_deref(), context) {
        Ok((source, _)) => list_lengths(source, &lists),
        // The faults of the source are reported already.
        Err(_) => Ok(vec![]),
    }
}

fn check_shares(spec: &DataSpec) -> Vec<ConfigError> {
    let shares = [("validation", spec.validation), ("test", spec.test)];
    let wrong = shares
        .into_iter()
        .filter(|(_, share)| !(0.0..=1.0).contains(share));
    let mut faults: Vec<ConfigError> = wrong
        .map(|(key, share)| {
            ConfigError::new(
                key,
                format!("{share} is not a share; expected a number from 0 to 1"),
            )
        })
        .collect();
    if faults.is_empty() && spec.validation + spec.test > 1.0 {
        let message = format!(
            "the shares of validation ({}) and test ({}) add up to more than 1",
            spec.validation, spec.test
        );
        faults.push(ConfigError::new("test", message));
    }
    faults
}

/// Plans a source. Returns it with its normalized table, in which relative paths stay relative to
/// the root.
fn plan_source(
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
            let known: Vec<&str> = source::KINDS.iter().map(|kind| kind.name).collect();
            let message = format!(
                "`kind` is missing; expected the kind of the source, one of: {}",
                known.join(", ")
            );
            return Err(vec![ConfigError::new("", message)]);
        }
    };
    let kind = registry::find(source::KINDS, &kind, "source").map_err(|fault| vec![fault])?;
    let (batch, faults) = registry::parse_options_lenient::<BatchSize>(
        options.remove("batch").unwrap_or(Value::Null),
    );
    let mut faults: Vec<ConfigError> = faults
        .into_iter()
        .map(|fault| fault.within("batch"))
        .collect();
    if let Some(root) = root {
        prepend_root(root, &mut options);
    }
    match (kind.plan)(
        "data",
        Value::Object(options),
        batch.unwrap_or_default(),
        context,
    ) {
        Ok(planned) if faults.is_empty() => {
            let declared = registry::option_attributes(kind.schema);
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
            let paths = PATHS
                .into_iter()
                .filter_map(|key| Some((key, table.get(key)?.as_str()?)));
            normalized.extend(paths.map(|(key, path)| (key.to_owned(), Value::from(tidy(path)))));
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

/// Prepends the root to relative paths.
fn prepend_root(root: &Path, options: &mut Map<String, Value>) {
    for key in PATHS {
        if let Some(Value::String(path)) = options.get_mut(key)
            && !is_url(path)
            && !path.is_empty()
        {
            *path = root.join(&*path).to_string_lossy().into_owned();
        }
    }
}

impl RecordKind {
    /// Returns the kind that the input declares, or else the kind of the first source; `None` if
    /// neither of them is known.
    fn new(
        spec: &DataSpec,
        input: &InputSpec,
        schema: Option<&Schema>,
    ) -> Result<Option<Self>, Vec<ConfigError>> {
        let declared = input
            .declared_kind()
            .map_err(|fault| vec![fault.within("input")])?;
        let kind = declared.or_else(|| schema.map(inferred_kind));
        match (kind, schema) {
            (Some(InputKind::Image), _) => Self::images(spec, input).map(Some),
            (Some(InputKind::Features), Some(schema)) => {
                Self::features(spec, input, schema).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn images(spec: &DataSpec, input: &InputSpec) -> Result<Self, Vec<ConfigError>> {
        let max_pixels = spec.limits.pixels;
        let mut faults = Vec::new();
        match input.size {
            Some([height, width]) if height == 0 || width == 0 => {
                faults.push(ConfigError::new(
                    "input.size",
                    "height and width must be above 0",
                ));
            }
            Some([height, width]) if (height as u64).saturating_mul(width as u64) > max_pixels => {
                let message = format!(
                    "{height} x {width} pixels exceed the limit of {max_pixels} pixels per image"
                );
                faults.push(ConfigError::new("input.size", message));
            }
            _ => {}
        }
        if !spec.without.is_empty() {
            faults.push(ConfigError::new(
                "without",
                "applies to columns of features, but the input is images; remove the option",
            ));
        }
        let value_range = spec.value_range.map(ValueRange::new).transpose();
        if let Err(message) = &value_range {
            faults.push(ConfigError::new("value_range", message.clone()));
        }
        let target = Self::Images {
            channels: input.channels.unwrap_or_default(),
            size: input.size,
            decode: input.decode.unwrap_or_default(),
            max_pixels,
            value_range: value_range.ok().flatten(),
        };
        if faults.is_empty() {
            Ok(target)
        } else {
            Err(faults)
        }
    }

    fn features(
        spec: &DataSpec,
        input: &InputSpec,
        schema: &Schema,
    ) -> Result<Self, Vec<ConfigError>> {
        if spec.value_range.is_some() {
            let message = "applies to images, but the input is features; remove the option";
            return Err(vec![ConfigError::new("value_range", message)]);
        }
        if let Some(columns) = &input.columns {
            let message = "cannot be combined with `input.columns`; remove one of the two options";
            let fault = (!spec.without.is_empty()).then(|| ConfigError::new("without", message));
            return fault.map_or_else(
                || {
                    Ok(Self::Features {
                        columns: columns.clone(),
                    })
                },
                |fault| Err(vec![fault]),
            );
        }
        let missing = spec
            .without
            .iter()
            .filter_map(|name| find(schema, "without", name).err());
        let mut faults: Vec<ConfigError> = missing.collect();
        let others = [
            spec.label.as_deref(),
            spec.normal.as_ref().map(|normal| normal.column.as_str()),
        ];
        let others: Vec<&str> = others.into_iter().flatten().chain([SOURCE, ROW]).collect();
        let is_feature = |name: &str| {
            !others.contains(&name) && spec.without.iter().all(|without| without != name)
        };
        let fields = schema
            .fields()
            .iter()
            .filter(|field| is_number(field.data_type()) && is_feature(field.name()));
        let columns: Vec<String> = fields.map(|field| field.name().clone()).collect();
        if columns.is_empty() {
            let message = format!(
                "no numeric column is left to use as a feature; the source has: {}",
                names(schema).join(", ")
            );
            faults.push(ConfigError::new("sources", message));
        }
        if faults.is_empty() {
            Ok(Self::Features { columns })
        } else {
            Err(faults)
        }
    }
}

/// Infers the kind of the records from the columns of a source.
fn inferred_kind(schema: &Schema) -> InputKind {
    let image = schema
        .column_with_name(IMAGE)
        .filter(|(_, field)| is_bytes(field.data_type()));
    if image.is_some() {
        InputKind::Image
    } else {
        InputKind::Features
    }
}

fn is_bytes(column: &DataType) -> bool {
    matches!(column, DataType::Binary | DataType::LargeBinary)
}

/// Whether a column gives a fixed number of values.
fn is_number(column: &DataType) -> bool {
    match column {
        DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric() || item.data_type() == &DataType::Boolean
        }
        plain => plain.is_numeric() || plain == &DataType::Boolean,
    }
}

fn names(schema: &Schema) -> Vec<&str> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect()
}

fn find(schema: &Schema, key: &str, name: &str) -> Result<usize, ConfigError> {
    schema.index_of(name).map_err(|_| {
        let known = names(schema);
        let hint = did_you_mean(name, &known);
        ConfigError::new(
            key,
            format!(
                "no column `{name}`{hint}; the source has: {}",
                known.join(", ")
            ),
        )
    })
}

/// Plans the steps of one source.
struct SourcePlanner<'a> {
    spec: &'a DataSpec,
    context: &'a PlanContext,
    /// The position of the source in `sources`.
    at: usize,
    schema: SchemaRef,
    /// The lengths of lists whose type does not fix them, by the index of the column.
    list_lengths: Vec<(usize, i32)>,
    float64: bool,
    faults: &'a mut Vec<ConfigError>,
}

impl SourcePlanner<'_> {
    /// Returns the steps if they have no faults, and the number of values of a feature record.
    fn plan(
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
            Some(RecordKind::Features { columns }) => {
                (features, width) = self.features(columns, named)
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
        named: bool,
    ) -> (Option<IsolatedTransform>, Option<usize>) {
        let element = if self.float64 {
            DataType::Float64
        } else {
            DataType::Float32
        };
        let planned =
            raw_features::plan(columns, VECTOR, element, &self.schema, &self.list_lengths);
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
