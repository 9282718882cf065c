//! The names of options in stored `[data]` tables.

use serde_json::Value;

use crate::registry::{RenamedKeys, with_renamed_sources};
use crate::source;

/// Returns a `[data]` table under its stored names.
pub(super) fn stored_data(data: Value) -> Value {
    let data = match data {
        Value::Object(options) => RenamedKeys::of_table("data").stored(options).into(),
        other => other,
    };
    with_renamed_sources(data, |kind, options| renamed_keys(kind).stored(options))
}

/// Returns a `[data]` table under its current names.
pub(crate) fn current_data(data: Value) -> Value {
    let data = match data {
        Value::Object(options) => RenamedKeys::of_table("data").current(options).into(),
        other => other,
    };
    with_renamed_sources(data, |kind, options| renamed_keys(kind).current(options))
}

/// The renamed keys of a kind of source; none for an unknown kind.
fn renamed_keys(kind: &str) -> RenamedKeys {
    let known = source::registry::KINDS
        .iter()
        .find(|known| known.name == kind);
    known.map_or_else(RenamedKeys::default, |known| {
        RenamedKeys::of_schema(known.schema)
    })
}
