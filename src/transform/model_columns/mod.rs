//! Helpers of the transforms that run a model: the column that fits the model, and the rows that
//! the model can process.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Field, Schema};

use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::image::ColorSpace;
use crate::image::pixel_format::PixelFormat;
use crate::model::files::ModelPath;
use crate::model::session::chain::RowFailure;
use crate::model::tensor_spec::element_count;
use crate::model::{Model, same_layout};
use crate::tensor::{
    TensorShape, all_finite, fixed_values, tensor_field, variable_field, vector_field,
};
use crate::transform::rows::{RejectedRows, TensorRows, find_tensor};

/// Finds the tensor column that an option names, or the only one that fits.
///
/// # Errors
/// A fault at `column` if the column does not fit, or if no column is named and several fit.
pub(super) fn find_column<'a>(
    input: &'a Schema,
    name: Option<&str>,
    fits: impl Fn(&Field, &TensorShape) -> Result<(), String>,
) -> Result<(usize, &'a Field, TensorShape), ConfigError> {
    let misfit = |field: &Field, reason: String| {
        ConfigError::new("column", format!("column `{}`: {reason}", field.name()))
    };
    let fields = input
        .fields()
        .iter()
        .filter(|field| TensorShape::of(field).is_some_and(|shape| fits(field, &shape).is_ok()));
    let fitting: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
    let found = match (name, fitting.as_slice()) {
        (Some(name), _) => find_tensor(input, "column", Some(name))?,
        (None, [one]) => find_tensor(input, "column", Some(one))?,
        (None, []) => find_tensor(input, "column", None)?,
        (None, several) => {
            let message = format!(
                "several columns fit the model: {}; name one of them",
                several.join(", ")
            );
            return Err(ConfigError::new("column", message));
        }
    };
    fits(found.1, &found.2).map_err(|reason| misfit(found.1, reason))?;
    Ok(found)
}

/// Checks that the model is an encoder or a complete network.
///
/// # Errors
/// A fault at `model` if only the transform `onnx` can run it.
pub(super) fn check_network(model: &Model) -> Result<(), Vec<ConfigError>> {
    let Some(reason) = model.unfit() else {
        return Ok(());
    };
    let name = model.name();
    let message = format!("the model `{name}`: {reason}; run it in a stage of kind `onnx`");
    Err(vec![ConfigError::new("model", message)])
}

/// Checks that the pixel format in the metadata of a column equals that of the model.
pub(super) fn check_pixels(model: &Model, field: &Field) -> Result<(), String> {
    match (model.image_input(), PixelFormat::from_field(field)) {
        (Some(image), Some(format)) if !image.format.equals(&format) => {
            let (actual, expected) = (format.describe(), image.format.describe());
            let hint = format!("set `model = \"{}\"` in its `pixels` stage", model.name());
            Err(format!(
                "its pixels are {actual}, but the model takes {expected}; {hint}"
            ))
        }
        _ => Ok(()),
    }
}

/// Whether the values of a column are pixels for the model, which are rounded and bounded to a
/// uint8 input.
pub(super) fn holds_pixels(model: &Model, field: &Field) -> bool {
    model.image_input().is_some() && PixelFormat::from_field(field).is_some()
}

/// Checks that the model reconstructs the records of a column, which have one shape.
pub(super) fn fit_fixed(model: &Model, field: &Field, shape: &TensorShape) -> Result<(), String> {
    check_pixels(model, field)?;
    let expected = model.input_shape();
    match (shape, expected) {
        (TensorShape::Fixed(row), Some(expected)) if !same_layout(row, &expected) => Err(format!(
            "its records have the shape {row:?}, but the model `{}` takes {expected:?}",
            model.name()
        )),
        (TensorShape::Fixed(row), _) => model
            .output_shape(ModelPath::Reconstruct, row)
            .map(drop)
            .map_err(|error| error.to_string()),
        (TensorShape::Variable(_), _) => {
            let name = model.name();
            Err(format!(
                "its records have different shapes, but the model `{name}` takes one shape; set \
                 `size` in the `pixels` stage"
            ))
        }
    }
}

/// Creates a field for tensors of `shape` with the pixel format and the color space of `field`, if it
/// has them.
pub(super) fn field_like(
    field: &Field,
    shape: &TensorShape,
    name: &str,
) -> Result<Field, ConfigError> {
    let like = match shape {
        TensorShape::Fixed(shape) if shape.len() == 1 => Ok(vector_field(name, shape[0])),
        TensorShape::Fixed(shape) => tensor_field(name, shape),
        TensorShape::Variable(dims) => variable_field(name, *dims),
    };
    let like = like.map_err(|error| ConfigError::new("column", error.to_string()))?;
    Ok(match PixelFormat::from_field(field) {
        Some(format) => ColorSpace::of_field(field).annotate(format.annotate(like)),
        None => like,
    })
}

/// Rejects the rows with a missing or non-finite value, and those for whose shape `check` returns
/// an error.
pub(super) fn reject_unusable_rows(
    batch: Batch,
    column: usize,
    shape: &TensorShape,
    rejects: &mut RejectCollector,
    check: impl Fn(&[usize]) -> Result<(), String>,
) -> Result<Batch, StageError> {
    if let TensorShape::Fixed(row) = shape
        && all_usable(batch.records.column(column), row)
        && check(row).is_ok()
    {
        return Ok(batch);
    }
    let mut rejected = RejectedRows::default();
    let rows = TensorRows::new(&batch, column, shape);
    for row in 0..batch.records.num_rows() {
        match rows.get(row) {
            Err(reason) => rejected.add(row, reason),
            Ok((values, row_shape)) => {
                if let Err(reason) = check(&row_shape) {
                    rejected.add(row, (RejectCode::Mismatch, reason));
                } else if !all_finite(values) {
                    let name = batch.records.schema_ref().field(column).name();
                    rejected.add(
                        row,
                        (
                            RejectCode::NotFinite,
                            format!("`{name}` holds a value that is not finite"),
                        ),
                    );
                }
            }
        }
    }
    rejected.remove_from(batch, rejects)
}

/// Whether the column holds tensors of one shape without nulls and with finite values only. This
/// common case is checked without a loop over the rows.
fn all_usable(column: &ArrayRef, row: &[usize]) -> bool {
    let Some(list) = column.as_fixed_size_list_opt() else {
        return false;
    };
    let has_no_nulls = list.null_count() == 0 && list.values().null_count() == 0;
    let len = element_count(row).map(|len| len * list.len());
    has_no_nulls
        && fixed_values(column)
            .is_some_and(|values| Some(values.len()) == len && all_finite(values))
}

/// Rejects the rows on which the model failed, and those that its input cannot hold.
pub(super) fn reject_model_failures(
    failures: Vec<RowFailure>,
    first: usize,
    rejected: &mut RejectedRows,
) {
    for RowFailure { row, code, reason } in failures {
        rejected.add(first + row, (code, reason));
    }
}

/// Rejects the rows for which the output of the model is not finite. A row has `len` values, and
/// `first` is the index of the first row.
pub(super) fn reject_not_finite(
    values: &[f32],
    len: usize,
    what: &str,
    first: usize,
    rejected: &mut RejectedRows,
) {
    if all_finite(values) {
        return;
    }
    for (row, row_values) in values.chunks_exact(len.max(1)).enumerate() {
        if !all_finite(row_values) {
            let reason = format!("the model returned a {what} that is not finite");
            rejected.add(first + row, (RejectCode::NotFinite, reason));
        }
    }
}

#[cfg(test)]
pub(super) mod testing;
