//! Infers the columns of JSON objects from the types of their values.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Schema};

use crate::source::table::json::scan::JsonEvents;
use crate::source::table::text::seen_values::SeenValues;

/// The types of the values at one place of the objects of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct JsonTypes {
    scalars: SeenValues,
    /// The types of the items of lists.
    items: Option<Box<JsonTypes>>,
    /// The types by key, in the order in which the keys were met.
    fields: Vec<(String, JsonTypes)>,
    /// The position of each key in `fields`.
    positions: HashMap<String, usize>,
    /// The numbers of scalars, lists and objects.
    counts: [u64; 3],
}

const SCALAR: usize = 0;
const LIST: usize = 1;
const OBJECT: usize = 2;

/// Number of values of other kinds than that of most values at their place that are left to become
/// rejects; also one in [`MISFIT_SHARE`] values.
const MISFITS: u64 = 10;
const MISFIT_SHARE: u64 = 100;

impl JsonTypes {
    /// The number of places of an object, including nested ones. A list counts as one of its items.
    pub(crate) fn places(&self) -> usize {
        let nested = self.fields.iter().map(|(_, types)| 1 + types.places());
        let items = self.items.as_ref().map_or(0, |items| items.places());
        nested.sum::<usize>() + items
    }

    /// Adds the types of another file or record.
    pub(crate) fn merge(&mut self, other: Self) {
        self.scalars.merge(other.scalars);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        match (&mut self.items, other.items) {
            (Some(items), Some(more)) => items.merge(*more),
            (items @ None, more) => *items = more,
            (Some(_), None) => {}
        }
        for (key, types) in other.fields {
            self.field(&key).merge(types);
        }
    }

    fn field(&mut self, key: &str) -> &mut Self {
        let position = match self.positions.get(key) {
            Some(position) => *position,
            None => {
                self.positions.insert(key.to_owned(), self.fields.len());
                self.fields.push((key.to_owned(), Self::default()));
                self.fields.len() - 1
            }
        };
        &mut self.fields[position].1
    }

    fn count(&mut self, kind: usize) {
        self.counts[kind] += 1;
    }

    /// Whether there are values.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts == [0; 3]
    }

    /// The columns of the objects.
    ///
    /// # Errors
    /// A sentence that names a column whose values have no common type.
    pub(in crate::source) fn schema(&self) -> Result<Schema, String> {
        Ok(Schema::new(self.columns("", false)?))
    }

    fn columns(&self, path: &str, is_in_list: bool) -> Result<Vec<Field>, String> {
        let field = |(key, types): &(String, Self)| {
            let data_type = types.data_type(&format!("{path}{key}"), is_in_list)?;
            Ok(Field::new(key, data_type, true))
        };
        self.fields.iter().map(field).collect()
    }

    /// The type of the values at `path`. Numbers in lists are features and become floats, unless a
    /// float would round them. Without a value the type is text.
    fn data_type(&self, path: &str, is_in_list: bool) -> Result<DataType, String> {
        let total: u64 = self.counts.iter().sum();
        let kind = (0..3).max_by_key(|kind| (self.counts[*kind], 2 - kind));
        let kind = kind.unwrap_or(SCALAR);
        if total - self.counts[kind] > MISFITS.max(total / MISFIT_SHARE) {
            let names = ["single values", "lists", "objects"];
            let found = (0..3).filter(|index| self.counts[*index] > 0);
            let found: Vec<_> = found.map(|index| names[index]).collect();
            return Err(format!("`{path}` has {}", found.join(" and ")));
        }
        match (kind, &self.items) {
            (LIST, Some(items)) => {
                let item = items.data_type(&format!("{path}[]"), true)?;
                Ok(DataType::new_list(item, true))
            }
            (LIST, None) => Ok(DataType::new_list(DataType::Utf8, true)),
            (OBJECT, _) => Ok(DataType::Struct(
                self.columns(&format!("{path}."), is_in_list)?.into(),
            )),
            _ => Ok(match self.scalars.data_type() {
                DataType::Null => DataType::Utf8,
                DataType::Int64 if is_in_list && !self.scalars.has_inexact_integer() => {
                    DataType::Float64
                }
                data_type => data_type,
            }),
        }
    }
}

/// Collects the types of the values of one object after another.
#[derive(Debug, Default)]
pub(crate) struct JsonTypeCollector {
    /// The places around the current value, from the outermost one. They are taken out of their
    /// parents until they end.
    open: Vec<OpenPlace>,
    key: String,
    /// The types of the objects so far.
    root: JsonTypes,
}

#[derive(Debug)]
struct OpenPlace {
    types: JsonTypes,
    /// The key of the place in its parent, if the parent is an object.
    key: String,
    is_list: bool,
}

impl JsonTypeCollector {
    /// The types of the objects so far.
    pub(crate) fn types(&self) -> &JsonTypes {
        &self.root
    }

    /// Adds the types of other objects.
    pub(crate) fn merge(&mut self, types: JsonTypes) {
        self.root.merge(types);
    }

    /// Ends the collection.
    pub(crate) fn into_types(self) -> JsonTypes {
        self.root
    }

    /// The place of the current value.
    fn place(&mut self) -> &mut JsonTypes {
        match self.open.last_mut() {
            None => &mut self.root,
            Some(parent) if parent.is_list => parent.types.items.get_or_insert_default(),
            Some(parent) => parent.types.field(&self.key),
        }
    }

    fn begin(&mut self, kind: usize) {
        let mut types = std::mem::take(self.place());
        types.count(kind);
        self.open.push(OpenPlace {
            types,
            key: std::mem::take(&mut self.key),
            is_list: kind == LIST,
        });
    }

    fn scalar(&mut self, seen: SeenValues) {
        let place = self.place();
        place.count(SCALAR);
        place.scalars.merge(seen);
    }
}

impl JsonEvents for JsonTypeCollector {
    fn begin_object(&mut self) {
        self.begin(OBJECT);
    }

    fn key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    fn begin_list(&mut self) {
        self.begin(LIST);
    }

    fn end(&mut self) {
        if let Some(OpenPlace { types, key, .. }) = self.open.pop() {
            self.key = key;
            *self.place() = types;
        }
    }

    fn string(&mut self) {
        self.scalar(SeenValues::ANY_TEXT);
    }

    fn number(&mut self, text: &str) {
        self.scalar(SeenValues::of_json_number(text));
    }

    fn boolean(&mut self) {
        self.scalar(SeenValues::ANY_BOOL);
    }

    fn null(&mut self) {
        // The key becomes a column even if all of its values are null.
        self.place();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::source::table::json::scan::scan_line;

    fn types(lines: &[&str]) -> JsonTypes {
        let mut collector = JsonTypeCollector::default();
        for line in lines {
            scan_line(line.as_bytes(), &mut collector).unwrap();
        }
        collector.into_types()
    }

    fn columns(types: &JsonTypes) -> Vec<String> {
        let schema = types.schema().unwrap();
        let column =
            |field: &std::sync::Arc<Field>| format!("{} {}", field.name(), field.data_type());
        schema.fields().iter().map(column).collect()
    }

    #[test]
    fn columns_hold_the_values_of_all_objects() {
        let lines = [
            r#"{"z": 1, "v": [1, null, [2]], "s": "x", "o": {"k": true}, "n": null, "u": 18446744073709551615}"#,
            r#"{"a": 3.0, "z": 2, "s": 1.50, "o": {"l": [9007199254740993], "k": null}, "e": []}"#,
        ];
        let both = types(&lines);
        let expected = [
            "z Int64",
            "v List(Float64)",
            "s Utf8",
            "o Struct(\"k\": Boolean, \"l\": List(Int64))",
            "n Utf8",
            "u UInt64",
            "a Float64",
            "e List(Utf8)",
        ];
        assert_eq!(columns(&both), expected);
        assert_eq!(both.places(), 10);
        let mut merged = types(&lines[..1]);
        merged.merge(types(&lines[1..]));
        assert_eq!(columns(&merged), expected);
    }

    #[test]
    fn kind_of_most_values_is_chosen_unless_many_differ() {
        let objects = |scalars: usize, nested: usize| {
            let mut lines = vec![r#"{"a": 1}"#; scalars];
            lines.extend(vec![r#"{"a": {"b": 1}}"#; nested]);
            types(&lines)
        };
        assert_eq!(columns(&objects(20, 10)), ["a Int64"]);
        assert_eq!(columns(&objects(2, 3)), ["a Struct(\"b\": Int64)"]);
        assert_eq!(
            objects(20, 11).schema().unwrap_err(),
            "`a` has single values and objects"
        );
    }
}
