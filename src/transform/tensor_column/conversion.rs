//! Conversion of the values of a column to the element type of a tensor, without loss.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// Whether columns of `from` can feed tensors of `to`. Numbers feed numbers, but fractions never
/// feed integers; booleans feed everything but strings.
pub(crate) fn can_convert(from: &DataType, to: &DataType) -> bool {
    let is_text = |one: &DataType| {
        matches!(
            one,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    match to {
        DataType::Utf8 => is_text(from),
        DataType::Boolean => *from == DataType::Boolean,
        to if to.is_floating() => is_number(from) || *from == DataType::Boolean,
        _ => from.is_integer() || *from == DataType::Boolean,
    }
}

/// Whether a type is one of the integers and floating-point numbers.
fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating()
}

/// The values of a column in another type.
pub(crate) struct ConvertedValues {
    /// The values; those that are null or unfit are undefined.
    pub(crate) values: ArrayRef,
    /// The values that the type cannot hold, and that are not null; `None` if there are none.
    pub(crate) unfit: Option<BooleanArray>,
}

/// Converts values. Floating-point numbers are rounded to the precision of the type, as NumPy does;
/// those beyond its range, and integers that it does not hold exactly, are unfit.
///
/// # Errors
/// If Arrow cannot convert between the types, contrary to [`can_convert`].
pub(crate) fn convert(values: &ArrayRef, to: &DataType) -> Result<ConvertedValues, ArrowError> {
    let from = values.data_type();
    if to == &DataType::Utf8 {
        return convert_texts(values);
    }
    if from == to {
        return Ok(ConvertedValues {
            values: ArrayRef::clone(values),
            unfit: None,
        });
    }
    let converted = cast(values, to)?;
    let is_exact = !is_number(from) || matches!((from, to), (DataType::Float32, DataType::Float64));
    let unfit = if is_exact {
        None
    } else if from.is_floating() {
        let (before, after) = (
            cast(values, &DataType::Float64)?,
            cast(&converted, &DataType::Float64)?,
        );
        let (before, after) = (
            before.as_primitive::<Float64Type>(),
            after.as_primitive::<Float64Type>(),
        );
        let overflows = |row| before.value(row).is_finite() && !after.value(row).is_finite();
        Some(
            (0..before.len())
                .map(|row| Some(before.is_valid(row) && overflows(row)))
                .collect(),
        )
    } else {
        Some(distinct(values, &cast(&converted, from)?)?)
    };
    Ok(ConvertedValues {
        values: converted,
        unfit: unfit.filter(|unfit: &BooleanArray| unfit.true_count() > 0),
    })
}

/// Converts texts. ONNX Runtime takes texts that end at a NUL, so texts that contain one are unfit.
fn convert_texts(values: &ArrayRef) -> Result<ConvertedValues, ArrowError> {
    let texts = cast(values, &DataType::Utf8)?;
    let strings = texts.as_string::<i32>().iter();
    let unfit: BooleanArray = strings
        .map(|text| Some(text.is_some_and(|text| text.contains('\0'))))
        .collect();
    Ok(ConvertedValues {
        unfit: Some(unfit).filter(|unfit| unfit.true_count() > 0),
        values: texts,
    })
}

/// A value of a column, for a message.
pub(crate) fn shown(values: &ArrayRef, index: usize) -> String {
    array_value_to_string(values, index).unwrap_or_default()
}
