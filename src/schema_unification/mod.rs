//! Unification of the schemas of several files: the narrowest schema that holds the records of all
//! of them without loss.
//!
//! The rules are those of Arrow's permissive promotion, Spark's `mergeSchema` and Polars' relaxed
//! concatenation, as far as every value keeps its meaning: null with anything; integers, floats and
//! decimals to the wider; the layouts of text, bytes and lists to the one with the larger offsets;
//! dictionaries and run-end encodings to their values; units of times to the finest; structs by the
//! names of their fields. A field is nullable if it is nullable or absent in any file.

pub(crate) mod types;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};
use serde_json::Value;

use crate::schema_unification::types::unify_types;

/// Two types of a column that have no common type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeConflict {
    /// The column.
    pub column: String,
    /// Its type in the files so far.
    pub expected: String,
    /// Its type in the file that differs.
    pub found: String,
}

impl fmt::Display for TypeConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            column,
            expected,
            found,
        } = self;
        write!(f, "column `{column}` is {found}; expected {expected}")
    }
}

/// The unified schema of several files.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnifiedSchema {
    fields: Vec<FieldRef>,
    has_files: bool,
}

impl UnifiedSchema {
    /// Adds the schema of a file. New columns follow those of earlier files. After an error the
    /// schema is unchanged.
    ///
    /// # Errors
    /// The first column whose types have no common type.
    pub fn add(&mut self, file: &Schema) -> Result<(), TypeConflict> {
        if !self.has_files {
            self.fields = file.fields().to_vec();
            self.has_files = true;
            return Ok(());
        }
        self.fields = union_of_fields(&self.fields, file.fields(), &unify_fields)?;
        Ok(())
    }

    /// The columns so far.
    pub fn fields(&self) -> &[FieldRef] {
        &self.fields
    }
}

/// The field that holds the values of both fields.
///
/// # Errors
/// Both types, if they have no common type.
pub(crate) fn unify_fields(planned: &Field, found: &Field) -> Result<Field, TypeConflict> {
    unify(planned, found).ok_or_else(|| TypeConflict {
        column: planned.name().clone(),
        expected: describe(planned),
        found: describe(found),
    })
}

/// Checks that the values of `found` can be cast to the type of `planned`. Nullability is not
/// compared: a missing value that the plan does not allow is an error of its record.
///
/// # Errors
/// Both types, if `planned` is not the wider one.
pub fn accepts(planned: &Field, found: &Field) -> Result<(), TypeConflict> {
    let unified = unify_fields(planned, found)?;
    let type_of = |field: &Field| with_nullable_children(field.data_type());
    if type_of(&unified) == type_of(planned) {
        Ok(())
    } else {
        Err(TypeConflict {
            column: planned.name().clone(),
            expected: describe(planned),
            found: describe(found),
        })
    }
}

/// The type with all fields inside nullable.
fn with_nullable_children(data_type: &DataType) -> DataType {
    use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView, Map, Struct};
    let nullable = |field: &FieldRef| {
        let inner = with_nullable_children(field.data_type());
        Arc::new(
            field
                .as_ref()
                .clone()
                .with_data_type(inner)
                .with_nullable(true),
        )
    };
    match data_type {
        List(item) => List(nullable(item)),
        LargeList(item) => LargeList(nullable(item)),
        ListView(item) => ListView(nullable(item)),
        LargeListView(item) => LargeListView(nullable(item)),
        FixedSizeList(item, len) => FixedSizeList(nullable(item), *len),
        Map(entries, sorted) => Map(nullable(entries), *sorted),
        Struct(fields) => Struct(fields.iter().map(nullable).collect()),
        other => other.clone(),
    }
}

/// A type with the metadata that changes its meaning.
pub fn describe(field: &Field) -> String {
    let metadata: Vec<String> = meaning(field)
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => text,
                value => value.to_string(),
            };
            match key.as_str() {
                EXTENSION_TYPE_NAME_KEY | EXTENSION_TYPE_METADATA_KEY => value,
                key => format!("{key} {value}"),
            }
        })
        .rev()
        .collect();
    if metadata.is_empty() {
        field.data_type().to_string()
    } else {
        format!("{} ({})", field.data_type(), metadata.join(" "))
    }
}

fn unify(one: &Field, other: &Field) -> Option<Field> {
    if one.data_type() == other.data_type() && one.metadata() == other.metadata() {
        let nullable = one.is_nullable() || other.is_nullable();
        return Some(one.clone().with_nullable(nullable));
    }
    let metadata = match (one.data_type(), other.data_type()) {
        (DataType::Null, _) => other.metadata(),
        (_, DataType::Null) => one.metadata(),
        _ if meaning(one) == meaning(other) => one.metadata(),
        _ => return None,
    };
    let nullable = one.is_nullable()
        || other.is_nullable()
        || [one, other]
            .iter()
            .any(|field| field.data_type() == &DataType::Null);
    let data_type = unify_types(one.data_type(), other.data_type())?;
    Some(Field::new(one.name(), data_type, nullable).with_metadata(metadata.clone()))
}

/// The prefix of metadata keys of latentflow, such as the pixel format of a tensor.
const OWN_KEYS: &str = "latentflow.";

/// The metadata that changes the meaning of the values, in a form that does not depend on its
/// notation. Other metadata, such as field ids and comments, may differ between files.
fn meaning(field: &Field) -> Vec<(String, Value)> {
    let is_meaning = |key: &str| {
        key == EXTENSION_TYPE_NAME_KEY
            || key == EXTENSION_TYPE_METADATA_KEY
            || key.starts_with(OWN_KEYS)
    };
    let mut meaning: Vec<(String, Value)> = field
        .metadata()
        .iter()
        .filter(|(key, _)| is_meaning(key))
        .map(|(key, text)| {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
            (key.clone(), without_nulls(value))
        })
        .filter(|(_, value)| !is_empty(value))
        .collect();
    meaning.sort_by(|(one, _), (other, _)| one.cmp(other));
    meaning
}

/// Absent members of an object are written as null by some writers.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, member)| !member.is_null())
                .collect(),
        ),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// The fields of both lists by name: those of `one` in their order, then new ones of `other`.
/// A field that one list lacks becomes nullable.
fn union_of_fields<E>(
    one: &[FieldRef],
    other: &Fields,
    unify: &dyn Fn(&Field, &Field) -> Result<Field, E>,
) -> Result<Vec<FieldRef>, E> {
    let nullable = |field: &FieldRef| {
        if field.is_nullable() {
            Arc::clone(field)
        } else {
            Arc::new(field.as_ref().clone().with_nullable(true))
        }
    };
    let mut union = Vec::with_capacity(one.len());
    for field in one {
        union.push(match other.find(field.name()) {
            Some((_, found)) if found == field => Arc::clone(field),
            Some((_, found)) => Arc::new(unify(field, found)?),
            None => nullable(field),
        });
    }
    let is_new = |field: &&FieldRef| one.iter().all(|known| known.name() != field.name());
    union.extend(other.iter().filter(is_new).map(nullable));
    Ok(union)
}

#[cfg(test)]
mod tests;
