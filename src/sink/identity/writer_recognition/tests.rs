//! Unit tests of the module `writer_recognition`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::coverage::Coverage;
use crate::sink::identity::stage::{StageInterpreter, StageReader};
use crate::sink::{ChangePolicy, FINGERPRINT_VERSION};

/// A stage of a plan with the option `size`, which has the default 1 and may be written as
/// text.
struct Sized {
    inputs: Vec<String>,
    options: Map<String, Value>,
}

fn understood(recorded: &Map<String, Value>) -> Map<String, Value> {
    let size = recorded.get("size").cloned().unwrap_or(json!(1));
    let size = size
        .as_str()
        .map_or(size.clone(), |text| json!(text.parse::<u32>().unwrap()));
    recorded
        .clone()
        .into_iter()
        .chain([("size".to_owned(), size)])
        .collect()
}

fn digest(version: u32, options: &Map<String, Value>, inputs: &[&str]) -> String {
    format!(
        "{version} {} {}",
        Value::Object(options.clone()),
        inputs.join(" ")
    )
}

impl StageInterpreter for Sized {
    fn is_threshold(&self, _: &str) -> bool {
        false
    }

    fn with_current_names(&self, stored: Map<String, Value>) -> Map<String, Value> {
        stored
    }

    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn former(&self) -> &str {
        "as written"
    }

    fn resolved(&self) -> &Map<String, Value> {
        &self.options
    }

    fn parse_recorded(&self, recorded: &StageIdentity) -> Option<Map<String, Value>> {
        Some(understood(&recorded.options))
    }

    fn as_recorded(&self, _: &StageIdentity, understood: Map<String, Value>) -> Map<String, Value> {
        understood
    }

    fn is_same(&self, understood: &Map<String, Value>) -> bool {
        self.options == *understood
    }

    fn digest(
        &self,
        version: u32,
        options: &Map<String, Value>,
        inputs: &[&str],
    ) -> Option<String> {
        Some(digest(version, options, inputs))
    }
}

/// The writer of a pipeline with the stages `in` and `out` and their options.
fn writer(version: u32, options: [Value; 2], reads: bool) -> OutputIdentity {
    let options = options.map(|options| options.as_object().unwrap().clone());
    let options = if reads {
        options.map(|options| understood(&options))
    } else {
        options
    };
    let first = digest(version, &options[0], &[]);
    let last = digest(version, &options[1], &[&first]);
    let inputs = [vec![], vec!["in".to_owned()]];
    let stages = ["in", "out"]
        .into_iter()
        .zip(options)
        .zip(inputs)
        .zip([first, last.clone()]);
    let stages = stages.map(|(((name, own_options), own_inputs), digest)| {
        let reading = || {
            Arc::new(Sized {
                inputs: own_inputs,
                options: own_options.clone(),
            }) as Arc<dyn StageInterpreter>
        };
        let reader = StageReader {
            interpreter: reads.then(reading),
        };
        (
            name.to_owned(),
            StageIdentity {
                digest,
                options: own_options,
                version,
                reader,
                ..StageIdentity::default()
            },
        )
    });
    OutputIdentity {
        stage: "out".into(),
        digest: last,
        stages: stages.collect(),
        ..OutputIdentity::default()
    }
}

fn is_recognized(found: &OutputIdentity) -> bool {
    let mut mine = writer(
        FINGERPRINT_VERSION,
        [json!({ "path": "x" }), json!({ "size": 3 })],
        true,
    );
    let mut history = OutputHistory::default();
    history.add(found, &Coverage::default());
    history.recognize(&mut mine);
    mine.is_same(found)
}

#[test]
fn writer_with_other_spelling_of_options_is_recognized() {
    let spelled = [json!({ "path": "x", "size": "1" }), json!({ "size": "3" })];
    assert!(is_recognized(&writer(0, spelled.clone(), false)));
    assert!(is_recognized(&writer(FINGERPRINT_VERSION, spelled, false)));
    // An option that was added later has its default in earlier records.
    assert!(is_recognized(&writer(
        FINGERPRINT_VERSION,
        [json!({ "path": "x" }), json!({ "size": 3 })],
        false
    )));
}

#[test]
fn writer_with_other_options_is_not_recognized() {
    assert!(!is_recognized(&writer(
        FINGERPRINT_VERSION,
        [json!({ "path": "y" }), json!({ "size": 3 })],
        false
    )));
    assert!(!is_recognized(&writer(
        0,
        [json!({ "path": "x" }), json!({ "size": "4" })],
        false
    )));
    // A digest that does not follow from the options belongs to another model or another graph.
    let mut found = writer(0, [json!({ "path": "x" }), json!({ "size": "3" })], false);
    found.stages.get_mut("in").unwrap().digest = "other".into();
    assert!(!is_recognized(&found));
}

#[test]
fn writer_of_another_model_differs_only_in_the_model() {
    let mut mine = writer(
        FINGERPRINT_VERSION,
        [json!({ "path": "x" }), json!({ "size": 3 })],
        true,
    );
    let found = |path: &str| {
        let mut found = writer(
            0,
            [json!({ "path": path, "size": "1" }), json!({ "size": "3" })],
            false,
        );
        found.stages.get_mut("out").unwrap().digest = "of another model".into();
        found.digest = "of another model".into();
        let mut history = OutputHistory::default();
        history.add(&found, &Coverage::default());
        history
    };
    for (path, expected) in [("x", true), ("y", false)] {
        let mut history = found(path);
        history.recognize(&mut mine);
        assert_eq!(
            history.allows(ChangePolicy::AllowModels, &mine),
            expected,
            "{path}"
        );
    }
}

#[test]
fn renamed_stage_is_recognized_by_its_former_digest() {
    let mut found = writer(0, [json!({ "path": "x" }), json!({ "size": 3 })], false);
    let mut last = found.stages.remove("out").unwrap();
    last.digest = "as written".into();
    found.digest.clone_from(&last.digest);
    found.stages.insert("renamed".into(), last);
    assert!(is_recognized(&found));
}
