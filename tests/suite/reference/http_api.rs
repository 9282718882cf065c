//! The HTTP interface of the source `http`, from its OpenAPI document.

use std::fmt::Write as _;

use serde_json::Value;

use super::{cell, check_page, table};

const DOCUMENT: &str = include_str!("../../../src/source/http/openapi.json");

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The type of a parameter in one word, with its values.
fn type_of(schema: &Value) -> String {
    let values = schema["enum"].as_array().into_iter().flatten();
    let values: Vec<String> = values
        .filter_map(|value| Some(format!("`{}`", value.as_str()?)))
        .collect();
    match values.is_empty() {
        true => text_of(schema, "type").to_owned(),
        false => values.join(", "),
    }
}

/// The entry that a `$ref` names, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

#[test]
fn http_interface_is_current() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut text = format!(
        "{}\n\nA source `http` serves the OpenAPI document at `GET /openapi.json`. [HTTP ingest](../guides/http-ingest.md) has\n\
         examples.\n",
        text_of(&document["info"], "description")
    );
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let _ = write!(
                text,
                "\n## {} {path}\n\n{}. {}\n\n",
                method.to_uppercase(),
                text_of(operation, "summary"),
                text_of(operation, "description")
            );
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let rows: Vec<[String; 4]> = parameters
                .map(|parameter| resolved(&document, parameter))
                .map(|parameter| {
                    [
                        format!("`{}`", text_of(parameter, "name")),
                        text_of(parameter, "in").to_owned(),
                        type_of(&parameter["schema"]),
                        text_of(parameter, "description").to_owned(),
                    ]
                })
                .collect();
            if !rows.is_empty() {
                text += &table(["parameter", "in", "type", "meaning"], rows);
                text.push('\n');
            }
            let bodies = operation["requestBody"]["content"].as_object();
            let bodies = bodies.into_iter().flatten().map(|(media, body)| {
                let schema = resolved(&document, &body["schema"]);
                [
                    format!("`{media}`"),
                    text_of(schema, "description").to_owned(),
                ]
            });
            let bodies: Vec<[String; 2]> = bodies.collect();
            if !bodies.is_empty() {
                text += &table(["body", "content"], bodies);
                text.push('\n');
            }
            let answers = operation["responses"].as_object().into_iter().flatten();
            text += &table(
                ["status", "meaning"],
                answers.map(|(status, answer)| {
                    let answer = resolved(&document, answer);
                    [status.clone(), cell(text_of(answer, "description"))]
                }),
            );
        }
    }
    check_page("http-api.md", "HTTP interface", &text);
}
