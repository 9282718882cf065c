//! `latentflow schema`: the JSON Schema of pipeline files, made from the tables of kinds.

use clap::Args;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Exit, print};
use crate::context::Limits;
use crate::kind::Kind;
use crate::model::{ModelSpec, RuntimeSpec};
use crate::source::BatchSize;
use crate::spec::Settings;
use crate::{sink, source, transform};

#[derive(Debug, Args)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        print(&format!("{}\n", serde_json::to_string_pretty(&document())?))?;
        Ok(Exit::Done)
    }
}

/// The whole schema. A stage is one of the kinds: sources without `inputs`, the others with some.
fn document() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut generator = settings.into_generator();
    let batch = generator.subschema_for::<BatchSize>().to_value();
    let mut stages = Vec::new();
    stages.extend(source::KINDS.iter().map(|kind| stage(kind, &mut generator, [("batch", batch.clone())], &[])));
    let inputs = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "The stages whose records it takes; several must have the same columns." });
    let with_inputs = || [("inputs", inputs.clone())];
    stages.extend(transform::KINDS.iter().map(|kind| stage(kind, &mut generator, with_inputs(), &["inputs"])));
    stages.extend(sink::KINDS.iter().map(|kind| stage(kind, &mut generator, with_inputs(), &["inputs"])));
    let mut root = generator.subschema_for::<Settings>().to_value();
    let limits = closed(generator.subschema_for::<Limits>().to_value());
    let runtime = closed(generator.subschema_for::<RuntimeSpec>().to_value());
    let model = closed(generator.subschema_for::<ModelSpec>().to_value());
    let named = |of: Value| json!({ "type": "object", "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" }, "additionalProperties": of });
    root["properties"]["limits"] = limits;
    root["properties"]["runtime"] = runtime;
    root["properties"]["models"] = named(model);
    root["properties"]["stages"] = named(json!({ "oneOf": stages }));
    let mut root = closed(root);
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("latentflow pipeline");
    root["required"] = json!(["stages"]);
    root
}

/// A kind's options, with what every stage of its role has beside them.
fn stage<P, const N: usize>(
    kind: &Kind<P>,
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
    let all = ["kind"].iter().chain(required).map(|&name| Value::from(name)).chain(own);
    schema["required"] = all.collect();
    schema
}

/// The schema of a table that takes no other keys than those it names.
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
