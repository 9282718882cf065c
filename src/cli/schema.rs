//! `latentflow schema`: prints the JSON Schema of pipeline files or of training files.

use clap::{Args, ValueEnum};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{ExitCode, print_json};
use crate::config::PipelineSettings;
#[cfg(feature = "train")]
use crate::corruption::CorruptionSpec;
#[cfg(feature = "train")]
use crate::data::DataSpec;
#[cfg(feature = "train")]
use crate::model::input::InputSpec;
use crate::model::{ModelSpec, RuntimeSpec};
use crate::plan_context::PipelineLimits;
use crate::registry::ComponentKind;
use crate::source::BatchSize;
use crate::{sink, source, transform};

#[derive(Debug, Args)]
pub(super) struct SchemaCommand {
    /// Kind of file that the schema describes.
    #[arg(value_enum, default_value_t = SchemaTarget::Pipeline)]
    of: SchemaTarget,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaTarget {
    /// Pipeline files, for `run`.
    Pipeline,
    /// Training files, for `train`.
    #[cfg(feature = "train")]
    Training,
}

impl SchemaCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = SchemaSettings::draft07();
        settings.inline_subschemas = true;
        let mut generator = settings.into_generator();
        let document = match self.of {
            SchemaTarget::Pipeline => pipeline(&mut generator),
            #[cfg(feature = "train")]
            SchemaTarget::Training => training(&mut generator),
        };
        print_json(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        Ok(ExitCode::Done)
    }
}

/// Generates the schema of pipeline files. Sources have no `inputs`; transforms and sinks require
/// them.
fn pipeline(generator: &mut SchemaGenerator) -> Value {
    let mut stages = sources(generator);
    let inputs = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "Stages whose records this stage takes; they must have the same columns." });
    let with_inputs = || [("inputs", inputs.clone())];
    stages.extend(
        transform::KINDS
            .iter()
            .map(|kind| stage(kind, generator, with_inputs(), &["inputs"])),
    );
    stages.extend(
        sink::KINDS
            .iter()
            .map(|kind| stage(kind, generator, with_inputs(), &["inputs"])),
    );
    let mut root = generator.subschema_for::<PipelineSettings>().to_value();
    let limits = closed(generator.subschema_for::<PipelineLimits>().to_value());
    let runtime = closed(generator.subschema_for::<RuntimeSpec>().to_value());
    let model = closed(generator.subschema_for::<ModelSpec>().to_value());
    let named = |table: Value| {
        json!({ "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" },
            "additionalProperties": table })
    };
    root["properties"]["limits"] = limits;
    root["properties"]["runtime"] = runtime;
    root["properties"]["models"] = named(model);
    root["properties"]["stages"] = named(json!({ "oneOf": stages }));
    document(root, "latentflow pipeline", &["stages"])
}

/// Generates the schema of training files from the configuration types of their tables.
#[cfg(feature = "train")]
fn training(generator: &mut SchemaGenerator) -> Value {
    use crate::train::config::{ModelHeader, NetworkSpec, Sparsity, TrainingSpec};
    let mut root = generator.subschema_for::<ModelHeader>().to_value();
    let corruption = closed(generator.subschema_for::<CorruptionSpec>().to_value());
    let mut data = closed(generator.subschema_for::<DataSpec>().to_value());
    data["properties"]["sources"]["items"] = json!({ "oneOf": sources(generator) });
    let tables = [
        (
            "input",
            closed(generator.subschema_for::<InputSpec>().to_value()),
        ),
        (
            "network",
            closed(generator.subschema_for::<NetworkSpec>().to_value()),
        ),
        (
            "sparsity",
            closed(generator.subschema_for::<Sparsity>().to_value()),
        ),
        (
            "corruption",
            json!({ "anyOf": [corruption, { "type": "array", "items": corruption }] }),
        ),
        (
            "training",
            closed(generator.subschema_for::<TrainingSpec>().to_value()),
        ),
        ("data", data),
    ];
    for (name, table) in tables {
        root["properties"][name] = table;
    }
    document(root, "latentflow training", &["input", "data"])
}

fn document(root: Value, title: &str, required: &[&str]) -> Value {
    let mut root = closed(root);
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!(title);
    root["required"] = json!(required);
    root
}

fn sources(generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut batch = generator.subschema_for::<BatchSize>().to_value();
    // The same declaration as on the options of the kinds.
    batch["x-changes-rows"] = json!(false);
    source::KINDS
        .iter()
        .map(|kind| stage(kind, generator, [("batch", batch.clone())], &[]))
        .collect()
}

/// Generates the schema of a kind: its own options and the options that its role adds.
fn stage<P, const N: usize>(
    kind: &ComponentKind<P>,
    generator: &mut SchemaGenerator,
    common: [(&str, Value); N],
    required: &[&str],
) -> Value {
    let mut schema = closed((kind.schema)(generator).to_value());
    schema["title"] = json!(kind.name);
    schema["description"] = json!(kind.summary);
    schema["properties"]["kind"] = json!({ "const": kind.name });
    for (name, value) in common {
        schema["properties"][name] = value;
    }
    let own = schema["required"].as_array().cloned().unwrap_or_default();
    let all = ["kind"]
        .iter()
        .chain(required)
        .map(|&name| Value::from(name))
        .chain(own);
    schema["required"] = all.collect();
    schema
}

/// Returns the schema of a table that accepts no other keys than its properties.
fn closed(mut schema: Value) -> Value {
    if !schema.is_object() {
        schema = json!({});
    }
    schema["type"] = json!("object");
    if schema.get("properties").is_none() {
        schema["properties"] = Value::Object(Map::new());
    }
    schema["additionalProperties"] = json!(false);
    schema
}
