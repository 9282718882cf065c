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
}

/// All renamed keys.
const RENAMED_KEYS: [RenamedKey; 12] = [
    RenamedKey {
        table: "http",
        former: "window",
        current: "idempotency_window",
    },
    RenamedKey {
        table: "http",
        former: "limits.wait",
        current: "limits.response_timeout",
    },
    RenamedKey {
        table: "synthetic",
        former: "of",
        current: "content",
    },
    RenamedKey {
        table: "runtime",
        former: "call_records",
        current: "max_batch_records",
    },
    RenamedKey {
        table: "runtime",
        former: "optimisation",
        current: "optimization",
    },
    RenamedKey {
        table: "network",
        former: "fold",
        current: "space_to_depth",
    },
    RenamedKey {
        table: "network",
        former: "standardise",
        current: "standardize",
    },
    RenamedKey {
        table: "training",
        former: "optimiser",
        current: "optimizer",
    },
    RenamedKey {
        table: "training",
        former: "clip",
        current: "clip_grad_norm",
    },
    RenamedKey {
        table: "training",
        former: "average",
        current: "ema_decay",
    },
    RenamedKey {
        table: "data",
        former: "licence",
        current: "license",
    },
    RenamedKey {
        table: "hyperparameters",
        former: "optimiser",
        current: "optimizer",
    },
];

/// The tables of a training file that have renamed keys.
const TRAINING_TABLES: [&str; 3] = ["network", "training", "data"];

/// Returns the current name of an unknown key, if the table has it; `known` are the table's keys.
pub(super) fn current_name(key: &str, known: &[&str]) -> Option<&'static str> {
    let is_known = |current: &str| {
        current
            .split('.')
            .next()
            .is_some_and(|first| known.contains(&first))
    };
    let found = RENAMED_KEYS
        .iter()
        .find(|renamed| renamed.former == key && is_known(renamed.current));
    found.map(|renamed| renamed.current)
}

/// Returns the name under which an option of a table is stored and included in digests.
pub fn stored_name<'a>(table: &str, key: &'a str) -> &'a str {
    let found = RENAMED_KEYS
        .iter()
        .find(|renamed| renamed.table == table && renamed.current == key);
    found.map_or(key, |renamed| renamed.former)
}

/// Returns the options of a table under their stored names.
pub fn stored_options(table: &str, options: Map<String, Value>) -> Map<String, Value> {
    options
        .into_iter()
        .map(|(key, value)| (stored_name(table, &key).to_owned(), value))
        .collect()
}

/// Returns the current name of an option of a table from its stored name.
pub fn name_in_files<'a>(table: &str, key: &'a str) -> &'a str {
    let found = RENAMED_KEYS
        .iter()
        .find(|renamed| renamed.table == table && renamed.former == key);
    found.map_or(key, |renamed| renamed.current)
}

/// Returns stored options of a table under their current names.
pub fn current_options(table: &str, options: Map<String, Value>) -> Map<String, Value> {
    options
        .into_iter()
        .map(|(key, value)| (name_in_files(table, &key).to_owned(), value))
        .collect()
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
        assert_eq!(
            current_name("optimiser", &["epochs", "optimizer"]),
            Some("optimizer")
        );
        assert_eq!(
            current_name("limits.wait", &["limits", "listen"]),
            Some("limits.response_timeout")
        );
        assert_eq!(current_name("window", &["path"]), None);
        assert_eq!(current_name("epoch", &["epochs", "optimizer"]), None);
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
