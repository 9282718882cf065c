//! Keys that were renamed since earlier versions. A user's file with a former name is refused with
//! the current one. Stored files of earlier versions are read, and digests of options keep the
//! former names, so that existing outputs are recognized.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

/// The key in the JSON Schema of an option that declares its name in earlier versions.
const FORMER_NAME: &str = "x-former-name";
/// The key in the JSON Schema of an option that declares the values that replace `false` and `true`
/// of earlier versions.
const FORMER_VALUES: &str = "x-former-values";

/// A renamed key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RenamedKey {
    /// The former name, which is stored, relative to the table.
    former: String,
    /// The current name, which pipeline and training files have.
    current: String,
    /// For a flag that became a choice: the current values for `false` and `true`.
    choices: Option<[String; 2]>,
}

impl RenamedKey {
    /// Converts a value of the option to the stored one.
    fn stored(&self, value: Value) -> Value {
        let choice = |name: &str| {
            let choices = self.choices.as_ref()?;
            choices.iter().position(|choice| choice == name)
        };
        match value.as_str().and_then(choice) {
            Some(index) => (index == 1).into(),
            None => value,
        }
    }

    /// Converts a stored value to that of the option.
    fn current(&self, value: Value) -> Value {
        match (&self.choices, &value) {
            (Some(choices), Value::Bool(flag)) => choices[usize::from(*flag)].as_str().into(),
            _ => value,
        }
    }
}

/// Renamed keys of tables that are not the options of a kind: the table, the former and the current
/// name.
const RENAMED_IN_TABLES: [(&str, &str, &str); 9] = [
    ("runtime", "call_records", "max_batch_records"),
    ("runtime", "optimisation", "optimization"),
    ("network", "fold", "space_to_depth"),
    ("network", "standardise", "standardize"),
    ("training", "optimiser", "optimizer"),
    ("training", "clip", "clip_grad_norm"),
    ("training", "average", "ema_decay"),
    ("data", "licence", "license"),
    ("hyperparameters", "optimiser", "optimizer"),
];

/// The tables of a training file that have renamed keys.
const TRAINING_TABLES: [&str; 3] = ["network", "training", "data"];

/// The renamed keys of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenamedKeys(Vec<RenamedKey>);

impl RenamedKeys {
    /// Returns the keys that the options of a kind declare as renamed in their JSON Schema, including
    /// those of nested tables: `limits.wait`.
    pub fn of_schema(schema: impl Fn(&mut SchemaGenerator) -> Schema) -> Self {
        let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
        let schema = schema(&mut settings.into_generator()).to_value();
        let mut renamed = Vec::new();
        add_declared("", &schema, &mut renamed);
        Self(renamed)
    }

    /// Returns the renamed keys of a table that is not the options of a kind, such as `training`.
    pub(crate) fn of_table(table: &str) -> Self {
        let keys = RENAMED_IN_TABLES.iter().filter(|(of, ..)| *of == table);
        Self(keys.map(renamed_in_table).collect())
    }

    /// Returns what to write instead of an unknown key, if the table has a key that replaces it;
    /// `known` are the table's keys.
    pub(super) fn replacement(&self, key: &str, known: &[&str]) -> Option<String> {
        let tables = RENAMED_IN_TABLES.iter().map(renamed_in_table);
        let all = self.0.iter().cloned().chain(tables);
        let is_known = |current: &str| {
            let first = current.split('.').next();
            first.is_some_and(|first| known.contains(&first))
        };
        let mut found = all.filter(|renamed| renamed.former == key && is_known(&renamed.current));
        found.next().map(|renamed| match renamed.choices {
            None => format!("use `{}`", renamed.current),
            Some([no, yes]) => {
                let current = renamed.current;
                format!("use `{current} = \"{yes}\"` for true and `{current} = \"{no}\"` for false")
            }
        })
    }

    /// Returns an option as it is stored and included in digests.
    pub(crate) fn stored_option(&self, key: String, value: Value) -> (String, Value) {
        match self.0.iter().find(|renamed| renamed.current == key) {
            Some(renamed) => (renamed.former.clone(), renamed.stored(value)),
            None => (key, value),
        }
    }

    /// Returns options as they are stored.
    pub fn stored(&self, options: Map<String, Value>) -> Map<String, Value> {
        let options = options.into_iter();
        options
            .map(|(key, value)| self.stored_option(key, value))
            .collect()
    }

    /// Returns stored options as files have them.
    pub fn current(&self, options: Map<String, Value>) -> Map<String, Value> {
        let current = |(key, value): (String, Value)| match self
            .0
            .iter()
            .find(|renamed| renamed.former == key)
        {
            Some(renamed) => (renamed.current.clone(), renamed.current(value)),
            None => (key, value),
        };
        options.into_iter().map(current).collect()
    }
}

fn renamed_in_table((_, former, current): &(&str, &str, &str)) -> RenamedKey {
    RenamedKey {
        former: (*former).to_owned(),
        current: (*current).to_owned(),
        choices: None,
    }
}

/// Adds the renamed properties of a schema, and of the tables in it.
fn add_declared(prefix: &str, schema: &Value, renamed: &mut Vec<RenamedKey>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let former = property.get(FORMER_NAME).and_then(Value::as_str);
        let values = property.get(FORMER_VALUES).and_then(Value::as_array);
        let choice = |index: usize| Some(values?.get(index)?.as_str()?.to_owned());
        renamed.extend(former.map(|former| RenamedKey {
            former: format!("{prefix}{former}"),
            current: format!("{prefix}{name}"),
            choices: choice(0).zip(choice(1)).map(<[String; 2]>::from),
        }));
        add_declared(&format!("{prefix}{name}."), property, renamed);
    }
}

/// Returns a training file under its stored names. The keys of its sources stay.
pub fn stored_training_file(file: Value) -> Value {
    with_tables(file, |table, options| {
        RenamedKeys::of_table(table).stored(options)
    })
}

/// Returns the training file of a model card under its current names. The keys of its sources stay.
pub(crate) fn current_training_file(file: Value) -> Value {
    with_tables(file, |table, options| {
        RenamedKeys::of_table(table).current(options)
    })
}

fn with_tables(
    mut file: Value,
    rename: impl Fn(&str, Map<String, Value>) -> Map<String, Value>,
) -> Value {
    for table in TRAINING_TABLES {
        if let Some(options) = file.get_mut(table).and_then(Value::as_object_mut) {
            *options = rename(table, std::mem::take(options));
        }
    }
    file
}

/// Renames the keys of the `sources` of a `[data]` table. `rename` takes the kind of a source and its
/// options.
pub(crate) fn with_renamed_sources(
    mut data: Value,
    rename: impl Fn(&str, Map<String, Value>) -> Map<String, Value>,
) -> Value {
    let sources = data.get_mut("sources").and_then(Value::as_array_mut);
    for source in sources.into_iter().flatten() {
        if let Value::Object(options) = source {
            let kind = options.get("kind").and_then(Value::as_str);
            let kind = kind.unwrap_or_default().to_owned();
            *options = rename(&kind, std::mem::take(options));
        }
    }
    data
}

#[cfg(test)]
mod tests;
