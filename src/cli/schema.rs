//! `latentflow schema`: prints the JSON Schema of pipeline files or of training files.

use clap::{Args, ValueEnum};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::print_json;
use crate::cli::exit::ExitCode;
use crate::config::settings::PipelineSettings;

#[cfg(feature = "train")]
use crate::corruption::spec::CorruptionSpec;
#[cfg(feature = "train")]
use crate::data::DataSpec;
#[cfg(feature = "train")]
use crate::model::input::spec::InputSpec;
use crate::model::{ModelSpec, RuntimeSpec};
use crate::plan_context::PipelineLimits;
use crate::registry::ComponentKind;
use crate::source::batch_size::BatchSize;
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
        transform::registry::KINDS
            .iter()
            .map(|kind| stage(kind, generator, with_inputs(), &["inputs"])),
    );
    stages.extend(
        sink::registry::KINDS
            .iter()
            .map(|kind| stage(kind, generator, with_inputs(), &["inputs"])),
    );
    let stages = by_kind(&stages, "/properties/stages/additionalProperties");
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
    root["properties"]["stages"] = named(stages);
    document(root, "latentflow pipeline", &["stages"])
}

/// Generates the schema of training files from the configuration types of their tables.
#[cfg(feature = "train")]
fn training(generator: &mut SchemaGenerator) -> Value {
    use crate::train::config::network::ModelHeader;
    use crate::train::config::network::NetworkSpec;
    use crate::train::config::network::Sparsity;
    use crate::train::config::training::TrainingSpec;
    let mut root = generator.subschema_for::<ModelHeader>().to_value();
    let corruption = closed(generator.subschema_for::<CorruptionSpec>().to_value());
    let list = json!({ "type": "array", "items": corruption });
    let corruptions = vec![
        (json!({ "type": "object" }), corruption),
        (json!({ "type": "array" }), list),
    ];
    let mut data = closed(generator.subschema_for::<DataSpec>().to_value());
    let location = "/properties/data/properties/sources/items";
    data["properties"]["sources"]["items"] = by_kind(&sources(generator), location);
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
            json!({
                "type": ["object", "array"],
                "allOf": select(corruptions, "/properties/corruption"),
            }),
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
    report_unknown_keys(&mut root);
    root
}

/// Replaces `"additionalProperties": false` in a schema and in all parts of it. Taplo reports its
/// violation at every key of the table, but that of a schema for the value of a key only there, with
/// the text of the schema.
fn report_unknown_keys(schema: &mut Value) {
    match schema {
        Value::Object(rules) => {
            if rules.get("additionalProperties") == Some(&json!(false)) {
                let properties = rules.get("properties").and_then(Value::as_object);
                let known: Vec<&str> = properties
                    .into_iter()
                    .flat_map(|properties| properties.keys().map(String::as_str))
                    .collect();
                let text = format!("unknown key; known: {}", known.join(", "));
                rules["additionalProperties"] = json!({ "not": { "description": text } });
            }
            rules.values_mut().for_each(report_unknown_keys);
        }
        Value::Array(items) => items.iter_mut().for_each(report_unknown_keys),
        _ => {}
    }
}

fn sources(generator: &mut SchemaGenerator) -> Vec<Value> {
    let mut batch = generator.subschema_for::<BatchSize>().to_value();
    // The same declaration as on the options of the kinds.
    batch["x-changes-rows"] = json!(false);
    source::registry::KINDS
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

/// Returns the schema of a table with the keys of one of `kinds`, which the value of `kind` selects.
/// `location` is the JSON pointer to the returned schema.
fn by_kind(kinds: &[Value], location: &str) -> Value {
    let name = |schema: &Value| schema["properties"]["kind"]["const"].clone();
    let has_inputs = |schema: &Value| schema["properties"].get("inputs").is_some();
    let variant = |schema: &Value| {
        let mut condition = json!({
            "required": ["kind"],
            "properties": { "kind": { "const": name(schema) } },
        });
        // A source and a sink can have the same kind; only the sink has inputs.
        let is_shared = kinds
            .iter()
            .any(|other| name(other) == name(schema) && has_inputs(other) != has_inputs(schema));
        match (is_shared, has_inputs(schema)) {
            (true, true) => condition["required"] = json!(["kind", "inputs"]),
            (true, false) => condition["not"] = json!({ "required": ["inputs"] }),
            (false, _) => {}
        }
        (condition, schema.clone())
    };
    let mut names: Vec<Value> = Vec::new();
    for schema in kinds {
        if !names.contains(&name(schema)) {
            names.push(name(schema));
        }
    }
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": { "kind": { "enum": names } },
        "allOf": select(kinds.iter().map(variant).collect(), location),
    })
}

/// Returns the rules by which a value has to match the schema of each condition that it meets.
/// `location` is the JSON pointer to the schema that gets the rules as its `allOf`.
///
/// Validators report a wrong key at its own position. An `anyOf` of the schemas would also describe
/// the value, but validators report its failure for the entire value.
fn select(variants: Vec<(Value, Value)>, location: &str) -> Value {
    let rule = |(at, condition): (usize, Value)| {
        let schema = format!("#{location}/allOf/0/anyOf/{}", at + 1);
        json!({ "if": condition, "then": { "$ref": schema } })
    };
    let (conditions, schemas): (Vec<Value>, Vec<Value>) = variants.into_iter().unzip();
    // Editors complete the keys of `anyOf`, but not those of `then`. The empty schema accepts every
    // value, so that only the rules validate.
    let completions: Vec<Value> = [json!({})].into_iter().chain(schemas).collect();
    let rules = conditions.into_iter().enumerate().map(rule);
    [json!({ "anyOf": completions })]
        .into_iter()
        .chain(rules)
        .collect()
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
