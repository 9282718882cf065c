//! The recognition of the writers of an output, whose stages may have the same meaning as those of
//! the plan with other digest rules or another spelling of options.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::output_identity::{OutputHistory, OutputIdentity, StageIdentity};

/// Interprets the records of earlier runs about a stage of the plan.
pub trait StageInterpreter: Send + Sync {
    /// The names of the input stages.
    fn inputs(&self) -> &[String];

    /// The digest of the stage by the rules before version 1, with its options as written.
    fn former(&self) -> &str;

    /// The options of the plan that change rows, including those inferred from the data.
    fn resolved(&self) -> &Map<String, Value>;

    /// Parses recorded options, with defaults for omitted ones. Returns `None` if they are not
    /// valid for the plan.
    fn parse_recorded(&self, recorded: &StageIdentity) -> Option<Map<String, Value>>;

    /// Parsed options in the form in which the plan records its own options.
    fn as_recorded(
        &self,
        recorded: &StageIdentity,
        understood: Map<String, Value>,
    ) -> Map<String, Value>;

    /// Whether parsed options currently have the same meaning as those of the plan.
    fn is_same(&self, understood: &Map<String, Value>) -> bool;

    /// The digest of the stage by the rules of a version, with these options and these digests of
    /// the inputs.
    fn digest(&self, version: u32, options: &Map<String, Value>, inputs: &[&str])
    -> Option<String>;
}

/// The interpreter of a stage of the plan; `None` for a stage that was read from an output.
#[derive(Clone, Default)]
pub struct StageReader {
    /// The interpreter.
    pub interpreter: Option<Arc<dyn StageInterpreter>>,
}

impl fmt::Debug for StageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.interpreter.is_some() {
            "Reader"
        } else {
            "none"
        })
    }
}

/// The interpreter is not part of the identity of a stage.
impl PartialEq for StageReader {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl OutputHistory {
    /// Finds the writers that are equal to `mine` with other digests, and adds these digests to
    /// `mine`. The options of the other writers are converted to the form of the plan, so that a
    /// refusal lists only differences in meaning.
    pub fn recognize(&mut self, mine: &mut OutputIdentity) {
        for (found, _) in &mut self.writers {
            if !mine.is_same(found) {
                recognize(mine, found);
            }
        }
    }
}

impl OutputIdentity {
    /// Whether another writer has the same meaning, regardless of the spelling of its options.
    pub fn has_same_meaning(&self, other: &Self) -> bool {
        let (mut mine, mut other) = (self.clone(), other.clone());
        recognize(&mut mine, &mut other);
        mine.is_same(&other)
    }
}

fn recognize(mine: &mut OutputIdentity, found: &mut OutputIdentity) {
    let understood: BTreeMap<String, Map<String, Value>> = mine
        .stages
        .iter()
        .filter_map(|(name, stage)| {
            let recorded = found
                .stages
                .get(name)
                .filter(|recorded| recorded.kind == stage.kind)?;
            Some((
                name.clone(),
                stage
                    .reader
                    .interpreter
                    .as_ref()?
                    .parse_recorded(recorded)?,
            ))
        })
        .collect();
    for (name, digest) in same_stages(mine, found, &understood) {
        if let Some(stage) = mine.stages.get_mut(&name) {
            stage.add_former(&digest);
        }
    }
    // Transforms and sinks may have been renamed.
    for stage in mine.stages.values_mut() {
        let former = stage
            .reader
            .interpreter
            .as_ref()
            .map(|reading| reading.former().to_owned());
        if let Some(former) = former.filter(|former| {
            found
                .stages
                .values()
                .any(|recorded| recorded.digest == *former)
        }) {
            stage.add_former(&former);
        }
    }
    if mine.is_same(found) && mine.digest != found.digest {
        mine.formers.push(found.digest.clone());
    }
    for (name, options) in understood {
        let reading = mine
            .stages
            .get(&name)
            .and_then(|stage| stage.reader.interpreter.as_ref());
        if let (Some(reading), Some(recorded)) = (reading, found.stages.get_mut(&name)) {
            recorded.options = reading.as_recorded(recorded, options);
        }
    }
}

/// The stages of `mine` that `found` has with the same name and the same meaning, with their
/// digests in `found`. A stage is the same if its recorded digest follows from its recorded options
/// and from inputs that are the same.
fn same_stages(
    mine: &OutputIdentity,
    found: &OutputIdentity,
    understood: &BTreeMap<String, Map<String, Value>>,
) -> BTreeMap<String, String> {
    let mut same: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let known = same.len();
        for (name, stage) in mine
            .stages
            .iter()
            .filter(|(name, _)| understood.contains_key(*name))
        {
            let is_same = |recorded: &StageIdentity| {
                let reading = stage.reader.interpreter.as_ref()?;
                let inputs = reading
                    .inputs()
                    .iter()
                    .map(|input| same.get(input).map(String::as_str));
                let inputs: Option<Vec<&str>> = inputs.collect();
                let digest = reading.digest(recorded.version, &recorded.options, &inputs?)?;
                Some(digest == recorded.digest && reading.is_same(understood.get(name)?))
            };
            let recorded = found.stages.get(name).filter(|_| !same.contains_key(name));
            if let Some(recorded) = recorded.filter(|recorded| is_same(recorded) == Some(true)) {
                same.insert(name.clone(), recorded.digest.clone());
            }
        }
        if same.len() == known {
            return same;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::coverage::Coverage;
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

        fn as_recorded(
            &self,
            _: &StageIdentity,
            understood: Map<String, Value>,
        ) -> Map<String, Value> {
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
}
