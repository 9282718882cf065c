//! Tests of the JSON Schemas that `latentflow schema` prints for editors.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::runs::latentflow;

/// The output of the program on success.
fn output(arguments: &[&str]) -> String {
    let output = latentflow(Path::new("."), arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn schema(kind: &str) -> Value {
    serde_json::from_str(&output(&["schema", kind])).unwrap()
}

fn toml_value(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// The TOML files of a folder of the repository.
fn shipped(folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let read = |path: PathBuf| {
        let value = toml_value(&fs::read_to_string(&path).unwrap());
        (path, value)
    };
    files.map(read).collect()
}

/// A validator that reports each error at a position, as editors do.
struct Validator<'a> {
    root: &'a Value,
    errors: Vec<String>,
}

/// The positions of the errors of a document.
fn errors(root: &Value, document: &Value) -> Vec<String> {
    let mut validator = Validator {
        root,
        errors: Vec::new(),
    };
    validator.check(root, document, "");
    validator.errors
}

impl Validator<'_> {
    fn is_valid(&self, schema: &Value, value: &Value) -> bool {
        let mut inner = Validator {
            root: self.root,
            errors: Vec::new(),
        };
        inner.check(schema, value, "");
        inner.errors.is_empty()
    }

    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let Value::Object(rules) = schema else {
            if schema == &json!(false) {
                self.errors.push(at.to_owned());
            }
            return;
        };
        for (keyword, rule) in rules {
            let holds = match keyword.as_str() {
                "$schema" | "title" | "description" | "default" | "examples" | "format"
                | "then" => true,
                annotation if annotation.starts_with("x-") => true,
                "$ref" => {
                    let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                    self.check(self.root.pointer(pointer).unwrap(), value, at);
                    true
                }
                "if" => {
                    if self.is_valid(rule, value) {
                        self.check(&rules["then"], value, at);
                    }
                    true
                }
                "not" => !self.is_valid(rule, value),
                "allOf" => {
                    rule.as_array()
                        .unwrap()
                        .iter()
                        .for_each(|part| self.check(part, value, at));
                    true
                }
                "anyOf" => self.matching(rule, value) > 0,
                "oneOf" => self.matching(rule, value) == 1,
                "type" => has_type(rule, value),
                "enum" => rule.as_array().unwrap().contains(value),
                "const" => rule == value,
                "minimum" => value
                    .as_f64()
                    .is_none_or(|met| met >= rule.as_f64().unwrap()),
                "maximum" => value
                    .as_f64()
                    .is_none_or(|met| met <= rule.as_f64().unwrap()),
                "minItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
                "maxItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
                "maxLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap()),
                "minLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
                "pattern" => value.as_str().is_none_or(|text| matches(rule, text)),
                _ => self.check_members(keyword, rules, value, at),
            };
            if !holds {
                self.errors.push(at.to_owned());
            }
        }
    }

    fn matching(&self, schemas: &Value, value: &Value) -> usize {
        let schemas = schemas.as_array().unwrap().iter();
        schemas
            .filter(|schema| self.is_valid(schema, value))
            .count()
    }

    /// Checks a keyword about the members of tables and arrays.
    fn check_members(
        &mut self,
        keyword: &str,
        rules: &serde_json::Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> bool {
        let rule = &rules[keyword];
        let below = |key: &str| match at {
            "" => key.to_owned(),
            at => format!("{at}.{key}"),
        };
        let table = value.as_object();
        match keyword {
            "required" => {
                let names = rule.as_array().unwrap().iter();
                return table.is_none_or(|table| {
                    names
                        .map(|name| name.as_str().unwrap())
                        .all(|name| table.contains_key(name))
                });
            }
            "properties" => {
                for (key, property) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(key) {
                        self.check(property, member, &below(key));
                    }
                }
            }
            // Taplo reports this error at all keys of the table.
            "additionalProperties" if rule == &json!(false) => {
                let known = |key: &String| rules["properties"].get(key).is_some();
                return table.is_none_or(|table| table.keys().all(known));
            }
            "additionalProperties" => {
                let known = |key: &String| rules["properties"].get(key).is_some();
                for (key, member) in table.into_iter().flatten() {
                    if !rules.contains_key("properties") || !known(key) {
                        self.check(rule, member, &below(key));
                    }
                }
            }
            "propertyNames" => {
                for key in table.into_iter().flat_map(serde_json::Map::keys) {
                    self.check(rule, &json!(key), &below(key));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, item, &format!("{at}[{index}]"));
                }
            }
            unknown => panic!("the validator of this test does not implement `{unknown}`"),
        }
        true
    }
}

/// Whether a text matches one of the patterns that the schemas have.
fn matches(pattern: &Value, text: &str) -> bool {
    match pattern.as_str().unwrap() {
        "^[a-z0-9_-]{1,64}$" => {
            (1..=64).contains(&text.len())
                && text
                    .chars()
                    .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
        }
        "^[0-9.]+ *[KMGTP]?i?B$" => {
            let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = text[number.len()..].strip_suffix('B');
            !number.trim_end().is_empty()
                && number
                    .trim_end()
                    .chars()
                    .all(|c| c.is_ascii_digit() || c == '.')
                && unit.is_some_and(|unit| {
                    let prefix = unit.strip_suffix('i').unwrap_or(unit);
                    prefix.is_empty() || ["K", "M", "G", "T", "P"].contains(&prefix)
                })
        }
        unknown => panic!("the validator of this test does not implement the pattern {unknown}"),
    }
}

fn has_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => panic!("unknown type {unknown}"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

#[test]
fn shipped_files_and_templates_match_their_schemas() {
    let (pipelines, trainings) = (schema("pipeline"), schema("training"));
    for (folder, schema) in [("pipelines", &pipelines), ("models", &trainings)] {
        let files = shipped(folder);
        assert!(!files.is_empty(), "{folder}");
        for (path, document) in files {
            assert_eq!(errors(schema, &document), [""; 0], "{}", path.display());
        }
    }
    for (template, schema) in [
        ("images", &pipelines),
        ("features", &pipelines),
        ("training", &trainings),
    ] {
        let document = toml_value(&output(&["init", template]));
        assert_eq!(errors(schema, &document), [""; 0], "{template}");
    }
}

#[test]
fn wrong_key_or_value_of_a_stage_is_an_error_at_that_key() {
    let schema = schema("pipeline");
    for (path, document) in shipped("pipelines") {
        let stages = document["stages"].as_object().unwrap();
        for name in stages.keys() {
            let mut changed = document.clone();
            changed["stages"][name]["wrong"] = json!(1);
            let expected = [format!("stages.{name}.wrong")];
            assert_eq!(errors(&schema, &changed), expected, "{}", path.display());
            changed = document.clone();
            changed["stages"][name]["kind"] = json!("wrong");
            let expected_kind = [format!("stages.{name}.kind")];
            assert_eq!(
                errors(&schema, &changed),
                expected_kind,
                "{}",
                path.display()
            );
        }
    }
    let at = |text: &str| errors(&schema, &toml_value(text));
    let pipeline = |stage: &str| format!("[stages.s]\n{stage}");
    for (stage, expected) in [
        ("kind = 'images'\npath = 'a'", vec![]),
        ("kind = 'images'\npath = 1", vec!["stages.s.path"]),
        (
            "kind = 'images'\npath = 'a'\nquality = 90",
            vec!["stages.s.quality"],
        ),
        (
            "kind = 'images'\ninputs = ['t']\npath = 'a'\nquality = 90",
            vec![],
        ),
        (
            "kind = 'images'\ninputs = ['t']\npath = 'a'\nwatch = true",
            vec!["stages.s.watch"],
        ),
        (
            "kind = 'images'\npath = 'a'\nbatch = { records = 'x' }",
            vec!["stages.s.batch.records"],
        ),
        (
            "kind = 'images'\npath = 'a'\nbatch = { size = 1 }",
            vec!["stages.s.batch.size"],
        ),
        (
            "kind = 'parquet'\ninputs = ['t']\npath = 'a'\nfile = { rows = 1 }",
            vec!["stages.s.file.rows"],
        ),
        (
            "kind = 'pixels'\ninputs = ['t']\nsize = [8, 8]\npath = 'a'",
            vec!["stages.s.path"],
        ),
        ("kind = 'pixels'\nsize = [8, 8]", vec!["stages.s"]),
        ("path = 'a'", vec!["stages.s"]),
    ] {
        assert_eq!(at(&pipeline(stage)), expected, "{stage}");
    }
    assert_eq!(at("[stages]\n[limits]\nmemroy = '1MiB'"), ["limits.memroy"]);
    assert_eq!(
        at("[stages]\n[models.m]\nencodr = 'a.onnx'"),
        ["models.m.encodr"]
    );
}

#[test]
fn wrong_key_of_a_training_file_is_an_error_at_that_key() {
    let schema = schema("training");
    for (path, document) in shipped("models") {
        for table in ["input", "network", "training", "data"] {
            let mut changed = document.clone();
            if changed.get(table).is_some() {
                changed[table]["wrong"] = json!(1);
                let expected = [format!("{table}.wrong")];
                assert_eq!(errors(&schema, &changed), expected, "{}", path.display());
            }
        }
        let mut changed = document.clone();
        let corruption = match changed.get_mut("corruption") {
            Some(Value::Array(several)) => Some((&mut several[0], "corruption[0].wrong")),
            Some(one) => Some((one, "corruption.wrong")),
            None => None,
        };
        if let Some((table, expected)) = corruption {
            table["wrong"] = json!(1);
            assert_eq!(errors(&schema, &changed), [expected], "{}", path.display());
        }
        changed = document.clone();
        changed["data"]["sources"][0]["wrong"] = json!(1);
        assert_eq!(
            errors(&schema, &changed),
            ["data.sources[0].wrong"],
            "{}",
            path.display()
        );
    }
}
