//! Keys that were renamed since earlier versions. A user's file with a former name is refused with
//! the current one. Stored files of earlier versions are read, and digests of options keep the
//! former names, so that existing outputs are recognized.

use serde_json::{Map, Value};

/// A renamed key of a table.
struct RenamedKey {
    /// The table: the kind of a stage, or the name of a table of a training file or pipeline file.
    table: &'static str,
    /// The former name, which is stored, relative to the table.
    former: &'static str,
    /// The current name, which pipeline and training files have.
    current: &'static str,
    /// For a flag that became a choice: the current values for `false` and `true`.
    choices: Option<[&'static str; 2]>,
}

impl RenamedKey {
    const fn new(table: &'static str, former: &'static str, current: &'static str) -> Self {
        Self {
            table,
            former,
            current,
            choices: None,
        }
    }

    /// Converts a value of the option to the stored one.
    fn stored(&self, value: Value) -> Value {
        let choice = |name: &str| self.choices?.iter().position(|choice| *choice == name);
        match value.as_str().and_then(choice) {
            Some(index) => (index == 1).into(),
            None => value,
        }
    }

    /// Converts a stored value to that of the option.
    fn current(&self, value: Value) -> Value {
        match (self.choices, &value) {
            (Some(choices), Value::Bool(flag)) => choices[usize::from(*flag)].into(),
            _ => value,
        }
    }
}

/// All renamed keys.
const RENAMED_KEYS: [RenamedKey; 13] = [
    RenamedKey::new("http", "window", "idempotency_window"),
    RenamedKey::new("http", "limits.wait", "limits.response_timeout"),
    RenamedKey::new("synthetic", "of", "content"),
    RenamedKey::new("runtime", "call_records", "max_batch_records"),
    RenamedKey::new("runtime", "optimisation", "optimization"),
    RenamedKey::new("network", "fold", "space_to_depth"),
    RenamedKey::new("network", "standardise", "standardize"),
    RenamedKey::new("training", "optimiser", "optimizer"),
    RenamedKey::new("training", "clip", "clip_grad_norm"),
    RenamedKey::new("training", "average", "ema_decay"),
    RenamedKey::new("data", "licence", "license"),
    RenamedKey::new("hyperparameters", "optimiser", "optimizer"),
    RenamedKey {
        choices: Some(["full", "scaled"]),
        ..RenamedKey::new("pixels", "draft", "decode")
    },
];

/// The tables of a training file that have renamed keys.
const TRAINING_TABLES: [&str; 3] = ["network", "training", "data"];

/// Returns what to write instead of an unknown key, if the table has a key that replaces it; `known`
/// are the table's keys.
pub(super) fn replacement(key: &str, known: &[&str]) -> Option<String> {
    let is_known = |current: &str| {
        current
            .split('.')
            .next()
            .is_some_and(|first| known.contains(&first))
    };
    let found = RENAMED_KEYS
        .iter()
        .find(|renamed| renamed.former == key && is_known(renamed.current));
    found.map(|renamed| match renamed.choices {
        None => format!("use `{}`", renamed.current),
        Some([no, yes]) => {
            let current = renamed.current;
            format!("use `{current} = \"{yes}\"` for true and `{current} = \"{no}\"` for false")
        }
    })
}

/// Returns an option of a table as it is stored and included in digests.
pub fn stored_option(table: &str, key: String, value: Value) -> (String, Value) {
    let found = RENAMED_KEYS
        .iter()
        .find(|renamed| renamed.table == table && renamed.current == key);
    match found {
        Some(renamed) => (renamed.former.to_owned(), renamed.stored(value)),
        None => (key, value),
    }
}

/// Returns the options of a table as they are stored.
pub fn stored_options(table: &str, options: Map<String, Value>) -> Map<String, Value> {
    let options = options.into_iter();
    options
        .map(|(key, value)| stored_option(table, key, value))
        .collect()
}

/// Returns stored options of a table as files have them.
pub fn current_options(table: &str, options: Map<String, Value>) -> Map<String, Value> {
    let current = |(key, value): (String, Value)| {
        let found = RENAMED_KEYS
            .iter()
            .find(|renamed| renamed.table == table && renamed.former == key);
        match found {
            Some(renamed) => (renamed.current.to_owned(), renamed.current(value)),
            None => (key, value),
        }
    };
    options.into_iter().map(current).collect()
}

/// Returns a training file under its stored names.
pub fn stored_training_file(file: Value) -> Value {
    with_tables(file, stored_options)
}

/// Returns the training file of a model card under its current names.
pub fn current_training_file(file: Value) -> Value {
    with_tables(file, current_options)
}

/// Returns a `[data]` table under its stored names.
pub fn stored_data(table: Value) -> Value {
    with_sources("data", table, stored_options)
}

type RenameKeys = fn(&str, Map<String, Value>) -> Map<String, Value>;

fn with_tables(mut file: Value, rename: RenameKeys) -> Value {
    for table in TRAINING_TABLES {
        if let Some(value) = file.get_mut(table) {
            *value = with_sources(table, value.take(), rename);
        }
    }
    file
}

/// Renames the keys of a table, and the keys of its `sources` according to their kinds.
fn with_sources(table: &str, value: Value, rename: RenameKeys) -> Value {
    let Value::Object(options) = value else {
        return value;
    };
    let mut options = rename(table, options);
    let sources = options.get_mut("sources").and_then(Value::as_array_mut);
    for source in sources.into_iter().flatten() {
        if let Value::Object(source_options) = source {
            let kind = source_options
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            *source_options = rename(&kind, std::mem::take(source_options));
        }
    }
    Value::Object(options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_renamed_keys_are_unique_in_each_table() {
        for pick in [
            |renamed: &RenamedKey| renamed.former,
            |renamed: &RenamedKey| renamed.current,
        ] {
            let names: BTreeSet<_> = RENAMED_KEYS
                .iter()
                .map(|renamed| (renamed.table, pick(renamed)))
                .collect();
            assert_eq!(names.len(), RENAMED_KEYS.len());
        }
    }

    #[test]
    fn former_name_is_mapped_if_the_current_name_is_known() {
        let used = |key, known: &[&str]| replacement(key, known);
        assert_eq!(
            used("optimiser", &["epochs", "optimizer"]).as_deref(),
            Some("use `optimizer`")
        );
        assert_eq!(
            used("limits.wait", &["limits", "listen"]).as_deref(),
            Some("use `limits.response_timeout`")
        );
        assert_eq!(
            used("draft", &["decode"]).as_deref(),
            Some("use `decode = \"scaled\"` for true and `decode = \"full\"` for false")
        );
        assert_eq!(used("window", &["path"]), None);
        assert_eq!(used("epoch", &["epochs", "optimizer"]), None);
    }

    #[test]
    fn choice_is_stored_as_the_former_flag() {
        for (choice, flag) in [("full", json!(false)), ("scaled", json!(true))] {
            let current = json!({ "decode": choice, "keep": true });
            let current = current.as_object().unwrap();
            let stored = stored_options("pixels", current.clone());
            assert_eq!(stored["draft"], flag);
            assert_eq!(current_options("pixels", stored), *current);
        }
        let other = stored_options("pixels", Map::from_iter([("decode".into(), json!("x"))]));
        assert_eq!(other["draft"], json!("x"));
    }

    #[test]
    fn training_file_is_converted_to_stored_names_and_back() {
        let current = json!({
            "network": { "space_to_depth": true, "standardize": false },
            "training": {
                "optimizer": "muon",
                "clip_grad_norm": 1,
                "ema_decay": 0.9,
                "patience": 2,
            },
            "data": {
                "license": "MIT",
                "sources": [
                    { "kind": "synthetic", "content": "images" },
                    { "kind": "csv", "of": 1 },
                ],
            },
        });
        let stored = json!({
            "network": { "fold": true, "standardise": false },
            "training": { "optimiser": "muon", "clip": 1, "average": 0.9, "patience": 2 },
            "data": {
                "licence": "MIT",
                "sources": [
                    { "kind": "synthetic", "of": "images" },
                    { "kind": "csv", "of": 1 },
                ],
            },
        });
        assert_eq!(stored_training_file(current.clone()), stored);
        assert_eq!(stored_data(current["data"].clone()), stored["data"]);
        assert_eq!(current_training_file(stored), current);
    }
}
