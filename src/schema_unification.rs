//! Unification of the schemas of several files: the narrowest schema that holds the records of all
//! of them without loss.
//!
//! The rules are those of Arrow's permissive promotion, Spark's `mergeSchema` and Polars' relaxed
//! concatenation, as far as every value keeps its meaning: null with anything; integers, floats and
//! decimals to the wider; the layouts of text, bytes and lists to the one with the larger offsets;
//! dictionaries and run-end encodings to their values; units of times to the finest; structs by the
//! names of their fields. A field is nullable if it is nullable or absent in any file.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Fields, Schema,
    TimeUnit,
};
use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};
use serde_json::Value;

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
pub struct UnifiedSchema {
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
pub fn unify_fields(planned: &Field, found: &Field) -> Result<Field, TypeConflict> {
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

fn unify_types(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{Dictionary, Null, RunEndEncoded, Struct};
    if one == other {
        return Some(one.clone());
    }
    match (one, other) {
        (Null, data_type) | (data_type, Null) => Some(data_type.clone()),
        (Dictionary(_, value), data_type) | (data_type, Dictionary(_, value)) => {
            unify_types(value, data_type)
        }
        (RunEndEncoded(_, value), data_type) | (data_type, RunEndEncoded(_, value)) => {
            unify_types(value.data_type(), data_type)
        }
        (Struct(one), Struct(other)) if has_unique_names(one) && has_unique_names(other) => {
            let by_name = |field: &Field, found: &Field| unify(field, found).ok_or(());
            let fields = union_of_fields(one, other, &by_name).ok()?;
            Some(Struct(fields.into()))
        }
        _ => unify_numbers(one, other)
            .or_else(|| unify_layouts(one, other))
            .or_else(|| unify_times(one, other)),
    }
}

/// Whether fields can be matched by their names.
fn has_unique_names(fields: &Fields) -> bool {
    let names: BTreeSet<&String> = fields.iter().map(|field| field.name()).collect();
    names.len() == fields.len()
}

/// The bits of an integer type and whether it is signed.
fn integer(data_type: &DataType) -> Option<(u32, bool)> {
    Some(match data_type {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::Int64 => (64, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => return None,
    })
}

/// The bits of a float type.
fn float(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Float16 => 16,
        DataType::Float32 => 32,
        DataType::Float64 => 64,
        _ => return None,
    })
}

/// The digits before and behind the point that a decimal or integer type holds.
fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    let decimal = |precision: u8, scale: i8| Some((precision.checked_add_signed(-scale)?, scale));
    match *data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => decimal(precision, scale),
        ref other => Some(match integer(other)? {
            (8, _) => (3, 0),
            (16, _) => (5, 0),
            (32, _) => (10, 0),
            (_, true) => (19, 0),
            (_, false) => (20, 0),
        }),
    }
}

fn unify_numbers(one: &DataType, other: &DataType) -> Option<DataType> {
    if let (Some(one), Some(other)) = (integer(one), integer(other)) {
        return Some(widest_integer(one, other));
    }
    let float_bits = match (float(one), float(other)) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (Some(bits), None) => Some(float_for(integer(other)?, bits)),
        (None, Some(bits)) => Some(float_for(integer(one)?, bits)),
        (None, None) => None,
    };
    if let Some(bits) = float_bits {
        return Some(match bits {
            16 => DataType::Float16,
            32 => DataType::Float32,
            _ => DataType::Float64,
        });
    }
    let ((one_whole, one_scale), (other_whole, other_scale)) = (digits(one)?, digits(other)?);
    let scale = one_scale.max(other_scale);
    let precision = one_whole.max(other_whole).checked_add_signed(scale)?;
    if precision <= DECIMAL128_MAX_PRECISION {
        Some(DataType::Decimal128(precision, scale))
    } else if precision <= DECIMAL256_MAX_PRECISION {
        Some(DataType::Decimal256(precision, scale))
    } else {
        None
    }
}

/// The integer type for values of both. For unsigned 64-bit and signed integers it is the signed
/// one; a larger value is a value that does not fit.
fn widest_integer(one: (u32, bool), other: (u32, bool)) -> DataType {
    let signed = one.1 || other.1;
    let bits = [one, other].map(|(bits, is_signed)| {
        if signed && !is_signed {
            (bits * 2).min(64)
        } else {
            bits
        }
    });
    match (bits[0].max(bits[1]), signed) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (_, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (_, false) => DataType::UInt64,
    }
}

/// The bits of the float type for floats of `bits` bits and for integers: the narrowest that holds
/// each integer, or 64. A 64-bit integer that a float cannot hold is a value that does not fit.
fn float_for((integer_bits, _): (u32, bool), bits: u32) -> u32 {
    match integer_bits {
        8 => bits,
        16 => bits.max(32),
        _ => 64,
    }
}

/// Text, bytes and lists in different layouts.
fn unify_layouts(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{
        Binary, BinaryView, FixedSizeBinary, FixedSizeList, LargeBinary, LargeList, LargeListView,
        LargeUtf8, List, ListView, Map, Utf8, Utf8View,
    };
    let is_large = |data_type: &DataType| {
        matches!(
            data_type,
            LargeUtf8 | LargeBinary | LargeList(_) | LargeListView(_)
        )
    };
    let large = is_large(one) || is_large(other);
    let text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |data_type: &DataType| {
        matches!(
            data_type,
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_)
        )
    };
    if text(one) && text(other) {
        return Some(if large { LargeUtf8 } else { Utf8 });
    }
    if bytes(one) && bytes(other) {
        return Some(if large { LargeBinary } else { Binary });
    }
    if let (Map(one, sorted), Map(other, other_sorted)) = (one, other) {
        return Some(Map(Arc::new(unify(one, other)?), *sorted && *other_sorted));
    }
    let item = |data_type: &DataType| match data_type {
        List(item)
        | LargeList(item)
        | ListView(item)
        | LargeListView(item)
        | FixedSizeList(item, _) => Some(Arc::clone(item)),
        _ => None,
    };
    let unified = Arc::new(unify(item(one)?.as_ref(), item(other)?.as_ref())?);
    match (one, other) {
        (FixedSizeList(_, len), FixedSizeList(_, other_len)) if len == other_len => {
            Some(FixedSizeList(unified, *len))
        }
        // Vectors of different lengths are different data.
        (FixedSizeList(..), FixedSizeList(..)) => None,
        _ if large => Some(LargeList(unified)),
        _ => Some(List(unified)),
    }
}

/// Times and durations in different units. Time zones must be the same.
fn unify_times(one: &DataType, other: &DataType) -> Option<DataType> {
    use DataType::{Date32, Date64, Duration, Time32, Time64, Timestamp};
    match (one, other) {
        (Date32, Date64) | (Date64, Date32) => Some(Date64),
        (Timestamp(one, zone), Timestamp(other, other_zone)) if zone == other_zone => {
            Some(Timestamp(finest(*one, *other), zone.clone()))
        }
        (Duration(one), Duration(other)) => Some(Duration(finest(*one, *other))),
        (Time32(one) | Time64(one), Time32(other) | Time64(other)) => {
            Some(match finest(*one, *other) {
                unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
                unit => Time64(unit),
            })
        }
        _ => None,
    }
}

fn finest(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    one.max(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use DataType::{
        Boolean, Date32, Date64, Decimal128, Dictionary, Duration, Float16, Float32, Float64, Int8,
        Int16, Int32, Int64, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt16, UInt32,
        UInt64, Utf8, Utf8View,
    };

    use super::*;
    use crate::tensor::{tensor_field, vector_field};

    fn both(one: &DataType, other: &DataType) -> Option<DataType> {
        let unified = unify_types(one, other);
        assert_eq!(unified, unify_types(other, one), "{one} and {other}");
        unified
    }

    #[test]
    fn numbers_unify_to_the_wider_type() {
        for (one, other, expected) in [
            (Int32, Int64, Int64),
            (UInt8, Int8, Int16),
            (UInt32, Int8, Int64),
            (UInt64, Int64, Int64),
            (UInt16, UInt32, UInt32),
            (Float32, Float64, Float64),
            (Float16, Int8, Float16),
            (Float16, Int16, Float32),
            (Float32, Int32, Float64),
            (Float64, UInt64, Float64),
            (Decimal128(5, 2), Decimal128(7, 1), Decimal128(8, 2)),
            (Decimal128(5, 2), Int64, Decimal128(21, 2)),
            (Null, Float32, Float32),
        ] {
            assert_eq!(both(&one, &other), Some(expected), "{one} and {other}");
        }
    }

    #[test]
    fn layouts_units_and_dictionaries_unify() {
        let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
        let large =
            |item: DataType| DataType::LargeListView(Arc::new(Field::new_list_field(item, false)));
        let words = |key: DataType| Dictionary(Box::new(key), Box::new(Utf8));
        let nanos = Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        for (one, other, expected) in [
            (Utf8, Utf8View, Utf8),
            (Utf8View, LargeUtf8, LargeUtf8),
            (words(Int8), words(Int16), Utf8),
            (words(Int8), LargeUtf8, LargeUtf8),
            (
                list(Int32),
                large(Int64),
                DataType::LargeList(Arc::new(Field::new_list_field(Int64, true))),
            ),
            (
                Timestamp(TimeUnit::Second, Some("UTC".into())),
                nanos.clone(),
                nanos.clone(),
            ),
            (
                Time32(TimeUnit::Second),
                Time64(TimeUnit::Microsecond),
                Time64(TimeUnit::Microsecond),
            ),
            (
                Duration(TimeUnit::Second),
                Duration(TimeUnit::Millisecond),
                Duration(TimeUnit::Millisecond),
            ),
            (Date32, Date64, Date64),
        ] {
            assert_eq!(both(&one, &other), Some(expected), "{one} and {other}");
        }
    }

    #[test]
    fn types_of_different_meaning_conflict() {
        let zoned = |zone: &str| Timestamp(TimeUnit::Second, Some(zone.into()));
        for (one, other) in [
            (Int64, Utf8),
            (Boolean, Int8),
            (Decimal128(5, 2), Float64),
            (zoned("UTC"), Timestamp(TimeUnit::Second, None)),
            (zoned("UTC"), zoned("+01:00")),
            (Date32, Timestamp(TimeUnit::Second, None)),
            (
                vector_field("v", 3).data_type().clone(),
                vector_field("v", 4).data_type().clone(),
            ),
        ] {
            assert_eq!(both(&one, &other), None, "{one} and {other}");
        }
    }

    #[test]
    fn schemas_unify_by_name_and_absent_columns_become_nullable() {
        let id = |data_type: DataType| {
            Field::new("id", data_type, false).with_metadata([("PARQUET:field_id", "7")])
        };
        let mut unified = UnifiedSchema::default();
        let first = Schema::new(vec![id(Int32), Field::new("x", Float32, false)]);
        unified.add(&first).unwrap();
        assert_eq!(unified.fields(), first.fields().to_vec());
        let second = Schema::new(vec![
            Field::new("y", Utf8, false),
            Field::new("id", Int64, false),
        ]);
        unified.add(&second).unwrap();
        let expected = [
            id(Int64),
            Field::new("x", Float32, true),
            Field::new("y", Utf8, true),
        ];
        assert_eq!(unified.fields(), expected.map(Arc::new));
        let before = unified.fields().to_vec();
        let conflict = unified
            .add(&Schema::new(vec![
                Field::new("z", Int8, true),
                Field::new("y", Boolean, true),
            ]))
            .unwrap_err();
        assert_eq!(conflict.to_string(), "column `y` is Boolean; expected Utf8");
        assert_eq!(unified.fields(), before);
    }

    #[test]
    fn structs_unify_by_the_names_of_their_fields() {
        let of = |fields: Vec<Field>| DataType::Struct(fields.into());
        let one = of(vec![Field::new("a", Int8, false)]);
        let other = of(vec![
            Field::new("b", Int8, false),
            Field::new("a", Int16, false),
        ]);
        assert_eq!(
            unify_types(&one, &other),
            Some(of(vec![
                Field::new("a", Int16, false),
                Field::new("b", Int8, true)
            ]))
        );
    }

    #[test]
    fn structs_with_two_fields_of_a_name_conflict() {
        let of = |count: usize, data_type: DataType| {
            DataType::Struct(vec![Field::new("a", data_type, true); count].into())
        };
        assert_eq!(both(&of(2, Int8), &of(1, Int64)), None);
        assert_eq!(both(&of(2, Int8), &of(2, Int8)), Some(of(2, Int8)));
    }

    #[test]
    fn metadata_with_a_meaning_must_be_the_same() {
        let tensor = |shape: &[usize]| tensor_field("t", shape).unwrap();
        let conflict = unify_fields(&tensor(&[3, 4]), &tensor(&[4, 3])).unwrap_err();
        assert!(conflict.found.contains(r#"{"shape":[4,3]}"#), "{conflict}");
        assert!(unify_fields(&tensor(&[3, 4]), &vector_field("t", 12)).is_err());
        let spaced = vector_field("t", 12).with_metadata([
            (EXTENSION_TYPE_NAME_KEY, "arrow.fixed_shape_tensor"),
            (
                EXTENSION_TYPE_METADATA_KEY,
                r#"{"dim_names": null, "shape": [3, 4]}"#,
            ),
        ]);
        assert_eq!(unify_fields(&tensor(&[3, 4]), &spaced), Ok(tensor(&[3, 4])));
        let null = Field::new("t", Null, true);
        assert_eq!(
            unify_fields(&null, &tensor(&[2])),
            Ok(tensor(&[2]).with_nullable(true))
        );
    }
}
