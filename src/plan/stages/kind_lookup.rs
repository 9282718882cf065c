//! The kinds of stages by name, and the schemas of their inputs.

use arrow::datatypes::{self, SchemaRef};
use schemars::{Schema, SchemaGenerator};

use crate::config::settings::StageTable;
use crate::error::config_error::ConfigError;
use crate::plan::kinds::Kinds;
use crate::plan::stages::UpstreamStages;
use crate::registry::{self, ComponentKind};
use crate::sink::registry::PlanSink;
use crate::source::registry::PlanSource;
use crate::transform::registry::PlanTransform;

/// A stage kind of any role.
pub(crate) enum AnyKind<'k> {
    Source(&'k ComponentKind<PlanSource>),
    Transform(&'k ComponentKind<PlanTransform>),
    Sink(&'k ComponentKind<PlanSink>),
}

impl AnyKind<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Source(kind) => kind.name,
            Self::Transform(kind) => kind.name,
            Self::Sink(kind) => kind.name,
        }
    }

    /// Returns the generator of the JSON Schema of the options.
    pub(crate) fn schema(&self) -> fn(&mut SchemaGenerator) -> Schema {
        match self {
            Self::Source(kind) => kind.schema,
            Self::Transform(kind) => kind.schema,
            Self::Sink(kind) => kind.schema,
        }
    }
}

/// Finds the kind of a stage: a source if the stage has no inputs, otherwise a transform or a sink.
/// `None` if the table names no kind, which is already reported as a fault.
pub(crate) fn find<'k>(
    table: &StageTable,
    kinds: &'k Kinds,
) -> Result<Option<AnyKind<'k>>, ConfigError> {
    let name = table.kind.as_str();
    let source = kinds.sources.iter().find(|kind| kind.name == name);
    let transform = kinds.transforms.iter().find(|kind| kind.name == name);
    let sink = kinds.sinks.iter().find(|kind| kind.name == name);
    match (source, transform, sink) {
        _ if name.is_empty() => Ok(None),
        (Some(source), ..) if table.inputs.is_empty() => Ok(Some(AnyKind::Source(source))),
        (_, Some(transform), _) if !table.inputs.is_empty() => {
            Ok(Some(AnyKind::Transform(transform)))
        }
        (_, _, Some(sink)) if !table.inputs.is_empty() => Ok(Some(AnyKind::Sink(sink))),
        (Some(_), None, None) => Err(ConfigError::new(
            "inputs",
            format!("`{name}` is a source and takes no inputs; remove `inputs`"),
        )),
        (None, None, None) => Err(unknown(name, kinds)),
        _ => Err(ConfigError::new(
            "",
            format!(
                "`inputs` is missing; `{name}` requires the name of a stage that it reads from"
            ),
        )),
    }
}

fn unknown(name: &str, kinds: &Kinds) -> ConfigError {
    let known: Vec<&str> = kinds
        .sources
        .iter()
        .map(|kind| kind.name)
        .chain(kinds.transforms.iter().map(|kind| kind.name))
        .chain(kinds.sinks.iter().map(|kind| kind.name))
        .collect();
    let near = registry::did_you_mean(name, &known);
    let (sources, transforms, sinks) = (
        names(&kinds.sources),
        names(&kinds.transforms),
        names(&kinds.sinks),
    );
    let text = format!(
        "unknown kind `{name}`{near}; sources: {sources}; transforms: {transforms}; sinks: {sinks}"
    );
    ConfigError::new("kind", text)
}

pub(crate) fn names<P>(kinds: &[ComponentKind<P>]) -> String {
    kinds
        .iter()
        .map(|kind| kind.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the input columns; `None` if the columns of an input are unknown because it is invalid.
pub(crate) fn input_schema(
    table: &StageTable,
    inputs: &[&UpstreamStages],
    faults: &mut Vec<ConfigError>,
) -> Option<SchemaRef> {
    for (name, _) in table
        .inputs
        .iter()
        .zip(inputs)
        .filter(|(_, input)| input.is_sink)
    {
        faults.push(ConfigError::new(
            "inputs",
            format!("`{name}` is a sink and has no output; name a source or a transform"),
        ));
    }
    let mut known = table
        .inputs
        .iter()
        .zip(inputs)
        .filter_map(|(name, input)| Some((name, input.schema.clone()?)));
    let (first_name, first) = known.next()?;
    let mut equal = true;
    for (name, schema) in known {
        if let Some(difference) = difference(first_name, &first, name, &schema) {
            equal = false;
            faults.push(ConfigError::new("inputs", difference));
        }
    }
    (equal
        && table.inputs.len() == inputs.len()
        && inputs.iter().all(|input| input.schema.is_some()))
    .then_some(first)
}

/// Describes the first difference between two schemas that have to be equal.
fn difference(
    a_name: &str,
    a: &datatypes::Schema,
    b_name: &str,
    b: &datatypes::Schema,
) -> Option<String> {
    let hint = "the inputs of a stage must have the same columns; a `select` stage can select and \
                rename them";
    let columns = |schema: &datatypes::Schema| {
        schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !a
        .fields()
        .iter()
        .map(|f| f.name())
        .eq(b.fields().iter().map(|f| f.name()))
    {
        return Some(format!(
            "`{a_name}` has the columns {}, but `{b_name}` has {}; {hint}",
            columns(a),
            columns(b)
        ));
    }
    let differs = a.fields().iter().zip(b.fields()).find(|(a, b)| a != b)?;
    let (left, right) = (differs.0.data_type(), differs.1.data_type());
    let difference = if left == right {
        "with different metadata or nullability".to_owned()
    } else {
        format!("as {left} and as {right}")
    };
    Some(format!(
        "`{a_name}` and `{b_name}` have the column `{}` {difference}; {hint}",
        differs.0.name()
    ))
}
