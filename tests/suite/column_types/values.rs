//! The value of one record of a column as JSON, regardless of how Arrow stores it.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RunArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType as _, ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type,
    Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Int16Type, Int32Type, Int64Type,
    RunEndIndexType, TimeUnit,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value, json};

const DAY_MILLISECONDS: i64 = 86_400_000;

/// A value. Numbers are text, so that JSON does not round them, and times have a prefix, so that
/// they differ from numbers.
pub fn value(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let wide = cast(&array.slice(row, 1), &DataType::Float64).unwrap();
            let number = wide
                .as_primitive::<arrow::datatypes::Float64Type>()
                .value(0);
            match number.is_nan() {
                true => json!("float nan"),
                false => json!(format!("float {:016x}", number.to_bits())),
            }
        }
        DataType::Date32 => json!(format!("date {}", native::<Date32Type>(array, row))),
        DataType::Date64 => {
            let milliseconds = array.as_primitive::<Date64Type>().value(row);
            json!(format!("date {}", milliseconds / DAY_MILLISECONDS))
        }
        DataType::Time32(unit) | DataType::Time64(unit) => time("time", unit, array, row),
        DataType::Timestamp(unit, None) => time("timestamp", unit, array, row),
        DataType::Timestamp(unit, Some(_)) => time("instant", unit, array, row),
        DataType::Duration(unit) => time("duration", unit, array, row),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array, row),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array, row),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array, row),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array, row),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(&array.slice(row, 1), &DataType::Utf8).unwrap();
            json!(format!("text {}", text.as_string::<i32>().value(0)))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(&array.slice(row, 1), &DataType::Binary).unwrap();
            hex(bytes.as_binary::<i32>().value(0))
        }
        DataType::FixedSizeBinary(_) => hex(array.as_fixed_size_binary().value(row)),
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::ListView(_) => list(&array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => list(&array.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(..) => {
            list(&FixedSizeListArray::value(array.as_fixed_size_list(), row))
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter();
            Value::Array(columns.map(|column| value(column, row)).collect())
        }
        DataType::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(array.as_map().value(row));
            list(&entries)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            value(dictionary.values(), dictionary.normalized_keys()[row])
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => run_value(array.as_run::<Int16Type>(), row),
            DataType::Int32 => run_value(array.as_run::<Int32Type>(), row),
            _ => run_value(array.as_run::<Int64Type>(), row),
        },
        integer if integer.is_integer() => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options).unwrap();
            json!(formatter.value(row).to_string())
        }
        other => panic!("a column has the type {other}"),
    }
}

fn native<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> i128 {
    i128::from(array.as_primitive::<T>().value(row).to_i64().unwrap())
}

fn time(kind: &str, unit: &TimeUnit, array: &ArrayRef, row: usize) -> Value {
    let width = match array.data_type() {
        DataType::Time32(_) => DataType::Int32,
        _ => DataType::Int64,
    };
    let number = cast(
        &cast(&array.slice(row, 1), &width).unwrap(),
        &DataType::Int64,
    )
    .unwrap();
    let scale: i128 = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    json!(format!(
        "{kind} {}",
        native::<Int64Type>(&number, 0) * scale
    ))
}

/// A decimal without trailing zeros after its point.
fn decimal<T: DecimalType>(array: &ArrayRef, row: usize) -> Value {
    let text = array.as_primitive::<T>().value_as_string(row);
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    json!(format!("decimal {text}"))
}

fn hex(bytes: &[u8]) -> Value {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!(format!("bytes {digits}"))
}

fn list(items: &ArrayRef) -> Value {
    Value::Array((0..items.len()).map(|item| value(items, item)).collect())
}

fn run_value<R: RunEndIndexType>(runs: &RunArray<R>, row: usize) -> Value {
    value(runs.values(), runs.get_physical_index(row))
}
