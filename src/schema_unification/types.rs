//! The common type of the values of two columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit,
};

use crate::schema_unification::{unify, union_of_fields};

pub(super) fn unify_types(one: &DataType, other: &DataType) -> Option<DataType> {
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

pub(super) fn finest(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    one.max(other)
}
