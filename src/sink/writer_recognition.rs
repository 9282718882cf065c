//! Recognizes the writers of an output: stages that mean what the plan's mean, whatever rules or
//! spelling they were noted by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::output_identity::{OutputHistory, OutputIdentity, StageIdentity};

/// How a plan reads what earlier runs noted of one of its stages.
pub trait StageInterpreter: Send + Sync {
    /// The names of the stages that it takes records from.
    fn inputs(&self) -> &[String];

    /// The digest that the rules before the first version give the stage as it is written.
    fn former(&self) -> &str;

    /// The options of the plan that change rows, with those that were taken from the data.
    fn resolved(&self) -> &Map<String, Value>;

    /// Noted options as the plan understands them, defaults in place of what was left out; `None`
    /// where it does not.
    fn understand(&self, noted: &StageIdentity) -> Option<Map<String, Value>>;

    /// Understood options in the form in which the plan notes its own.
    fn as_noted(&self, noted: &StageIdentity, understood: Map<String, Value>)
    -> Map<String, Value>;

    /// Whether understood options mean the same as those of the plan, here and now.
    fn is_same(&self, understood: &Map<String, Value>) -> bool;

    /// The digest that the rules of a version give the stage with such options, after inputs of
    /// these digests.
    fn digest(&self, version: u32, options: &Map<String, Value>, inputs: &[&str])
    -> Option<String>;
}

/// The reading of a plan's stage; a stage that was read from an output has none.
#[derive(Clone, Default)]
pub struct StageReader(pub Option<Arc<dyn StageInterpreter>>);

impl fmt::Debug for StageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reader" } else { "none" })
    }
}

/// Who can read a stage is no part of what the stage is.
impl PartialEq for StageReader {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl OutputHistory {
    /// Finds the writers that are `mine` under other digests, and notes these in `mine`. Options of
    /// the others are put as the plan understands them, so that a refusal names what differs in
    /// meaning alone.
    pub fn recognize(&mut self, mine: &mut OutputIdentity) {
        for (found, _) in &mut self.writers {
            if !mine.is_same(found) {
                recognize(mine, found);
            }
        }
    }
}

impl OutputIdentity {
    /// Whether another writer means the same, however its options are spelled.
    pub fn means(&self, other: &Self) -> bool {
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
            let noted = found
                .stages
                .get(name)
                .filter(|noted| noted.kind == stage.kind)?;
            Some((name.clone(), stage.reader.0.as_ref()?.understand(noted)?))
        })
        .collect();
    for (name, digest) in same_stages(mine, found, &understood) {
        if let Some(stage) = mine.stages.get_mut(&name) {
            stage.was(&digest);
        }
    }
    // Transforms and sinks may have other names now.
    for stage in mine.stages.values_mut() {
        let former = stage
            .reader
            .0
            .as_ref()
            .map(|reading| reading.former().to_owned());
        if let Some(former) =
            former.filter(|former| found.stages.values().any(|noted| noted.digest == *former))
        {
            stage.was(&former);
        }
    }
    if mine.is_same(found) && mine.digest != found.digest {
        mine.formers.push(found.digest.clone());
    }
    for (name, options) in understood {
        let reading = mine
            .stages
            .get(&name)
            .and_then(|stage| stage.reader.0.as_ref());
        if let (Some(reading), Some(noted)) = (reading, found.stages.get_mut(&name)) {
            noted.options = reading.as_noted(noted, options);
        }
    }
}

/// The stages of `mine` that `found` has under the same name with the same meaning, and their
/// digests there. A stage is known for the same by its digest, which must come of what was noted,
/// after inputs that are the same.
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
            let is_same = |noted: &StageIdentity| {
                let reading = stage.reader.0.as_ref()?;
                let inputs = reading
                    .inputs()
                    .iter()
                    .map(|input| same.get(input).map(String::as_str));
                let inputs: Option<Vec<&str>> = inputs.collect();
                let digest = reading.digest(noted.version, &noted.options, &inputs?)?;
                Some(digest == noted.digest && reading.is_same(understood.get(name)?))
            };
            let noted = found.stages.get(name).filter(|_| !same.contains_key(name));
            if let Some(noted) = noted.filter(|noted| is_same(noted) == Some(true)) {
                same.insert(name.clone(), noted.digest.clone());
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

    /// A plan's stage: `size` has the default 1, and is a number whatever it is written as.
    struct Sized {
        inputs: Vec<String>,
        options: Map<String, Value>,
    }

    fn understood(noted: &Map<String, Value>) -> Map<String, Value> {
        let size = noted.get("size").cloned().unwrap_or(json!(1));
        let size = size
            .as_str()
            .map_or(size.clone(), |text| json!(text.parse::<u32>().unwrap()));
        noted
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

        fn understand(&self, noted: &StageIdentity) -> Option<Map<String, Value>> {
            Some(understood(&noted.options))
        }

        fn as_noted(
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

    /// The writer of a pipeline of `in` and `out`, each with its options.
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
        let stages = stages.map(|(((name, options), inputs), digest)| {
            let reading = || {
                Arc::new(Sized {
                    inputs,
                    options: options.clone(),
                }) as Arc<dyn StageInterpreter>
            };
            let reader = StageReader(reads.then(reading));
            (
                name.to_owned(),
                StageIdentity {
                    digest,
                    options,
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
    fn a_writer_of_the_same_meaning_is_the_same() {
        let spelled = [json!({ "path": "x", "size": "1" }), json!({ "size": "3" })];
        assert!(is_recognized(&writer(0, spelled.clone(), false)));
        assert!(is_recognized(&writer(FINGERPRINT_VERSION, spelled, false)));
        // An option that came later has its default in what was noted before.
        assert!(is_recognized(&writer(
            FINGERPRINT_VERSION,
            [json!({ "path": "x" }), json!({ "size": 3 })],
            false
        )));
    }

    #[test]
    fn a_writer_of_another_meaning_is_another() {
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
        // A digest that does not follow from what was noted is of another model, or another graph.
        let mut found = writer(0, [json!({ "path": "x" }), json!({ "size": "3" })], false);
        found.stages.get_mut("in").unwrap().digest = "other".into();
        assert!(!is_recognized(&found));
    }

    #[test]
    fn a_spelled_writer_of_another_model_differs_by_that_alone() {
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
    fn a_former_digest_is_noted_under_another_name_too() {
        let mut found = writer(0, [json!({ "path": "x" }), json!({ "size": 3 })], false);
        let mut last = found.stages.remove("out").unwrap();
        last.digest = "as written".into();
        found.digest.clone_from(&last.digest);
        found.stages.insert("renamed".into(), last);
        assert!(is_recognized(&found));
    }
}
