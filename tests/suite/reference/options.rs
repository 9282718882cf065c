//! The tables and options of pipeline files and training files, from their JSON Schemas.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use latentflow::{sink, source, transform};
use serde_json::{Map, Value, json};

use super::{cell, check_page, table};

/// The JSON Schema that `latentflow schema` prints.
fn schema(of: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_latentflow"))
        .args(["schema", of])
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The description of a schema, or of its first alternative.
fn description(schema: &Value) -> &str {
    let own = schema["description"].as_str();
    own.or_else(|| alternatives(schema).first()?["description"].as_str())
        .unwrap_or_default()
}

/// The alternatives of a schema, without `null`.
fn alternatives(schema: &Value) -> Vec<&Value> {
    // A table or a list of such tables is the first part of `allOf`.
    let schema = schema.get("allOf").map_or(schema, |all| &all[0]);
    let listed = ["anyOf", "oneOf"]
        .into_iter()
        .find_map(|key| schema[key].as_array());
    let is_any_or_null = |one: &&Value| one["type"] == "null" || **one == json!({});
    listed
        .into_iter()
        .flatten()
        .filter(|one| !is_any_or_null(one))
        .collect()
}

/// The kinds of tables that a list holds, each with a note that names the kind.
fn item_tables(list: &Value) -> Vec<(String, &Value)> {
    let items = &list["items"];
    let kinds = items["oneOf"]
        .as_array()
        .map_or_else(|| vec![items], |all| all.iter().collect());
    let with_note = |table| {
        let tag = properties(table)?
            .iter()
            .find(|(_, option)| option.get("const").is_some());
        let note = tag.map(|(key, option)| format!("With `{key} = {}`: ", option["const"]));
        Some((note.unwrap_or_default(), table))
    };
    kinds.into_iter().filter_map(with_note).collect()
}

/// The type of an option in a few words, with its constant values.
fn type_of(schema: &Value) -> String {
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(", ");
    }
    let several = alternatives(schema);
    if !several.is_empty() {
        let mut types: Vec<String> = several.into_iter().map(type_of).collect();
        types.dedup();
        return types.join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let types = types.into_iter().filter(|name| *name != "null");
    let types: Vec<String> = types
        .map(|name| match name {
            "array" => format!("list of {}", type_of(&schema["items"])),
            "object" => "table".to_owned(),
            "number" => "float".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    types.join(" or ")
}

/// A default value, with a size in bytes as a size in MiB.
fn readable(value: &Value) -> String {
    let bytes = value
        .as_str()
        .and_then(|text| text.strip_suffix('B')?.parse::<u64>().ok());
    match bytes {
        Some(bytes) if bytes > 0 && bytes.is_multiple_of(1 << 20) => {
            format!("\"{}MiB\"", bytes >> 20)
        }
        _ => value.to_string(),
    }
}

/// The properties of a schema, or of the alternative that has some.
fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    let own = schema["properties"].as_object();
    own.or_else(|| alternatives(schema).into_iter().find_map(properties))
}

/// Options that the page describes once, since every stage of a role has them.
const COMMON: [&str; 2] = ["batch", "inputs"];

/// Adds the rows of a table's options, and those of the tables in it. Descriptions begin with
/// `note`.
fn add_options(prefix: &str, note: &str, schema: &Value, rows: &mut Vec<[String; 4]>) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, option) in properties(schema).into_iter().flatten() {
        let is_kind = name == "kind" && option.get("const").is_some();
        let is_common = COMMON.contains(&name.as_str()) && option.get("properties").is_none()
            || (name == "batch" && prefix.is_empty());
        if prefix.is_empty() && (is_kind || is_common) {
            continue;
        }
        if option.get("const").is_some() && prefix.ends_with("[].") {
            continue;
        }
        let key = format!("{prefix}{name}");
        let default = match option.get("default").filter(|value| !value.is_null()) {
            _ if required.contains(&Value::from(name.as_str())) => "required".to_owned(),
            Some(value) if value.is_object() => String::new(),
            Some(value) => format!("`{}`", readable(value)),
            None => String::new(),
        };
        let mut meaning = format!("{note}{}", description(option));
        for alternative in alternatives(option) {
            if let (Some(value), text) = (alternative.get("const"), description(alternative))
                && !text.is_empty()
            {
                let _ = write!(meaning, " `{value}`: {text}");
            }
        }
        if option["x-changes-rows"] == false {
            meaning += " (A change keeps the output.)";
        }
        rows.push([format!("`{key}`"), type_of(option), default, cell(&meaning)]);
        if properties(option).is_some() {
            add_options(&format!("{key}."), "", option, rows);
        }
        for (item_note, table) in item_tables(option) {
            add_options(&format!("{key}[]."), &item_note, table, rows);
        }
    }
}

fn options(schema: &Value) -> String {
    let mut rows = Vec::new();
    add_options("", "", schema, &mut rows);
    table(["option", "type", "default", "meaning"], rows)
}

/// The schemas of the kinds in a pipeline schema, by name, with the ones that take inputs or not.
fn kinds(pipeline: &Value, takes_inputs: bool) -> Vec<(String, Value)> {
    fn collect<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(map) => {
                let kind = &value["properties"]["kind"]["const"];
                if kind.is_string() && value["properties"].as_object().is_some_and(|p| p.len() > 1)
                {
                    found.push(value);
                }
                map.values().for_each(|inner| collect(inner, found));
            }
            Value::Array(all) => all.iter().for_each(|inner| collect(inner, found)),
            _ => {}
        }
    }
    let stages = &pipeline["properties"]["stages"];
    let mut found = Vec::new();
    collect(stages, &mut found);
    found
        .into_iter()
        .filter(|kind| kind["properties"].get("inputs").is_some() == takes_inputs)
        .map(|kind| {
            let name = kind["properties"]["kind"]["const"].as_str().unwrap();
            (name.to_owned(), kind.clone())
        })
        .collect()
}

fn page_of_kinds(all: &[(String, Value)], names: impl Iterator<Item = &'static str>) -> String {
    let mut text = String::new();
    for name in names {
        let (_, kind) = all.iter().find(|(found, _)| found == name).unwrap();
        let _ = write!(
            text,
            "\n## {name}\n\nThe kind `{name}`: {}.\n\n{}",
            description(kind),
            options(kind)
        );
    }
    text
}

const NOTE: &str = "A pipeline declares a stage as a table `[stages.NAME]` with its `kind` and these options. `latentflow \
                    check` reports\nunknown options and invalid values with their lines.";

#[test]
fn options_of_sources_are_current() {
    let sources = kinds(&schema("pipeline"), false);
    let batch = &sources[0].1["properties"]["batch"];
    let text = format!(
        "{NOTE} Every source also has the table `batch`.\n\n## batch\n\n{}\n\n{}{}",
        description(batch),
        options(batch),
        page_of_kinds(
            &sources,
            source::registry::KINDS.iter().map(|kind| kind.name)
        )
    );
    check_page("sources.md", "Sources", &text);
}

#[test]
fn options_of_transforms_and_sinks_are_current() {
    let others = kinds(&schema("pipeline"), true);
    let page = |stages: String| {
        format!(
            "{NOTE} `inputs` lists the stages whose records\nthe stage takes; they must have the same columns.\n{stages}"
        )
    };
    let transforms = transform::registry::KINDS.iter().map(|kind| kind.name);
    let transforms = page(page_of_kinds(&others, transforms));
    check_page("transforms.md", "Transforms", &transforms);
    let sinks = sink::registry::KINDS.iter().map(|kind| kind.name);
    let sinks = page(page_of_kinds(&others, sinks));
    check_page("sinks.md", "Sinks", &sinks);
}

#[test]
fn every_kind_is_in_the_table_of_stage_kinds() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/concepts/pipeline.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let kinds = source::registry::KINDS.iter().map(|kind| kind.name);
    let kinds = kinds.chain(transform::registry::KINDS.iter().map(|kind| kind.name));
    for kind in kinds.chain(sink::registry::KINDS.iter().map(|kind| kind.name)) {
        let first = |row: &&str| {
            let cell = row.split('|').nth(1).unwrap_or_default();
            cell.contains(&format!("`{kind}`"))
        };
        assert!(rows.iter().any(first), "{kind}");
    }
}

#[test]
fn tables_of_pipelines_are_current() {
    let mut pipeline = schema("pipeline");
    let models = pipeline["properties"]["models"]["additionalProperties"].clone();
    for table in ["models", "stages"] {
        pipeline["properties"]
            .as_object_mut()
            .unwrap()
            .remove(table);
    }
    let text = format!(
        "The keys at the top of a pipeline file, and the tables in it. [Sources](sources.md), [transforms](transforms.md) and\n\
         [sinks](sinks.md) have the options of `[stages.NAME]`.\n\n{}\n## models.NAME\n\n{}\n\n{}",
        options(&pipeline),
        description(&models),
        options(&models)
    );
    check_page("config.md", "Pipeline file", &text);
}

#[cfg(feature = "train")]
#[test]
fn tables_of_training_files_are_current() {
    let text = format!(
        "The keys and tables of a training file. [Training](../guides/train.md) describes them in context.\n\n{}",
        options(&schema("training"))
    );
    check_page("training-file.md", "Training file", &text);
}
