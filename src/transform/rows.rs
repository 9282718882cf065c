//! Helpers of the transforms: lookup of columns, reading of tensors row by row, and removal of
//! rejected rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::registry::did_you_mean;
use crate::tensor::{TensorShape, fixed_values, variable_row};

/// Finds the index and the field of the column that an option names.
///
/// # Errors
/// A fault at `key` that lists the columns, and suggests the most similar name.
pub(super) fn find<'a>(
    input: &'a Schema,
    key: &str,
    name: &str,
) -> Result<(usize, &'a Field), ConfigError> {
    input.column_with_name(name).ok_or_else(|| {
        let known: Vec<&str> = input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let message = format!(
            "no column `{name}`{}; the input has: {}",
            did_you_mean(name, &known),
            known.join(", ")
        );
        ConfigError::new(key, message)
    })
}

/// Finds the tensor column that an option names, or the only one: its index, field and shape.
///
/// # Errors
/// A fault at `key` if the column does not hold tensors of float32, or if no column is named and
/// there are several tensor columns or none.
pub(super) fn find_tensor<'a>(
    input: &'a Schema,
    key: &str,
    name: Option<&str>,
) -> Result<(usize, &'a Field, TensorShape), ConfigError> {
    let (index, field) = match name {
        Some(name) => find(input, key, name)?,
        None => find(input, key, only_tensor(input, key)?)?,
    };
    match TensorShape::of(field) {
        Some(shape) if shape.len() != Some(0) => Ok((index, field, shape)),
        _ => {
            let message = format!(
                "column `{}` holds {}, not tensors of float32",
                field.name(),
                field.data_type()
            );
            Err(ConfigError::new(key, message))
        }
    }
}

fn only_tensor<'a>(input: &'a Schema, key: &str) -> Result<&'a str, ConfigError> {
    let tensors = input
        .fields()
        .iter()
        .filter(|field| TensorShape::of(field).is_some());
    let tensors: Vec<&str> = tensors.map(|field| field.name().as_str()).collect();
    match tensors.as_slice() {
        [one] => Ok(one),
        [] => Err(ConfigError::new(
            key,
            "the input has no tensor column; create one with a `pixels` or `features` stage",
        )),
        several => Err(ConfigError::new(
            key,
            format!(
                "the input has several tensor columns: {}; name one of them",
                several.join(", ")
            ),
        )),
    }
}

/// Appends `field` to the columns of the input.
///
/// # Errors
/// A fault at `key` if the input has a column of this name.
pub(super) fn append(input: &Schema, key: &str, field: Field) -> Result<SchemaRef, ConfigError> {
    if input.column_with_name(field.name()).is_some() {
        let message = format!(
            "the input already has a column `{}`; choose another name",
            field.name()
        );
        return Err(ConfigError::new(key, message));
    }
    let fields: Vec<Arc<Field>> = input
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(field)])
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Appends the columns `added` to the batch, with the planned schema.
pub(super) fn with_columns(
    batch: Batch,
    schema: &SchemaRef,
    added: Vec<ArrayRef>,
) -> Result<Batch, StageError> {
    let columns = batch
        .records
        .columns()
        .iter()
        .cloned()
        .chain(added)
        .collect();
    let records = RecordBatch::try_new(Arc::clone(schema), columns)?;
    Ok(batch.with_records(records))
}

/// The positions of the rows `order` in ascending order; `None` if they have this order.
pub(super) fn positions_in_order(order: &[usize]) -> Option<UInt64Array> {
    if order.is_sorted() {
        return None;
    }
    let mut positions: Vec<usize> = (0..order.len()).collect();
    positions.sort_by_key(|&position| order[position]);
    Some(
        positions
            .into_iter()
            .map(|position| position as u64)
            .collect(),
    )
}

/// The reason that a row cannot be used.
pub(super) type RejectReason = (RejectCode, String);

/// The rows that cannot be used, each with the first reason.
#[derive(Default)]
pub(super) struct RejectedRows {
    reasons: BTreeMap<usize, RejectReason>,
}

impl RejectedRows {
    /// Adds a row of the batch, unless it is rejected already.
    pub(super) fn add(&mut self, row: usize, reason: RejectReason) {
        self.reasons.entry(row).or_insert(reason);
    }

    /// Whether the row is rejected.
    pub(super) fn contains(&self, row: usize) -> bool {
        self.reasons.contains_key(&row)
    }

    /// Adds the rows that `others` rejects. `row_of` converts its rows to those of the batch.
    pub(super) fn extend(&mut self, others: Self, row_of: impl Fn(usize) -> usize) {
        for (row, reason) in others.reasons {
            self.add(row_of(row), reason);
        }
    }

    /// Checks whether the model failed on every row. In that case, either the model is broken or
    /// all rows are bad, which [`super::IsolatedTransform`] distinguishes.
    ///
    /// # Errors
    /// The first failure, if the model failed on every row of a batch of `rows` rows.
    pub(super) fn check_model(&self, rows: usize) -> Result<(), StageError> {
        let failed = self
            .reasons
            .values()
            .filter(|(code, _)| *code == RejectCode::Model);
        match self.reasons.values().next() {
            Some((_, reason)) if failed.count() == rows => Err(StageError::Model(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Removes the rejected rows from the batch, and adds them to `rejects` in order.
    pub(super) fn remove_from(
        self,
        batch: Batch,
        rejects: &mut RejectCollector,
    ) -> Result<Batch, StageError> {
        if self.reasons.is_empty() {
            return Ok(batch);
        }
        let kept: BooleanArray = (0..batch.row_ordinals.len())
            .map(|row| Some(!self.reasons.contains_key(&row)))
            .collect();
        for (row, (code, reason)) in self.reasons {
            rejects.push(batch.row_ordinals[row], code, reason);
        }
        Ok(batch.filter(&kept)?)
    }
}

/// Row access to a tensor column of fixed or variable shape.
pub(super) struct TensorRows<'a> {
    name: &'a str,
    column: &'a dyn Array,
    shape: &'a TensorShape,
}

impl<'a> TensorRows<'a> {
    /// Creates access to the column at `index`, whose planned shape is `shape`.
    pub(super) fn new(batch: &'a Batch, index: usize, shape: &'a TensorShape) -> Self {
        Self {
            name: batch.records.schema_ref().field(index).name(),
            column: batch.records.column(index),
            shape,
        }
    }

    /// Returns the values of a row and their shape.
    ///
    /// # Errors
    /// [`RejectCode::Missing`] if a value is null; [`RejectCode::Mismatch`] if the values do not
    /// fill the shape of the row.
    pub(super) fn get(&self, row: usize) -> Result<(&'a [f32], Cow<'a, [usize]>), RejectReason> {
        if self.column.is_null(row) || self.has_null(row) {
            return Err((
                RejectCode::Missing,
                format!("`{}` is null, or holds a null", self.name),
            ));
        }
        let found = match self.shape {
            TensorShape::Fixed(shape) => {
                let len = shape.iter().product::<usize>();
                let values = fixed_values(self.column)
                    .and_then(|values| values.get(row * len..(row + 1) * len));
                values.map(|values| (values, Cow::Borrowed(shape.as_slice())))
            }
            TensorShape::Variable(_) => {
                let found = variable_row(self.column, row);
                let found =
                    found.filter(|(values, shape)| checked_product(shape) == Some(values.len()));
                found.map(|(values, shape)| (values, Cow::Owned(shape)))
            }
        };
        found.ok_or_else(|| {
            (
                RejectCode::Mismatch,
                format!("the values of `{}` do not fill its shape", self.name),
            )
        })
    }

    fn has_null(&self, row: usize) -> bool {
        let data = self.column.as_struct_opt().map(|tensor| tensor.column(0));
        let variable = data.and_then(|data| data.as_list_opt::<i32>());
        match (self.column.as_fixed_size_list_opt(), variable) {
            (Some(list), _) => list.values().null_count() > 0 && list.value(row).null_count() > 0,
            (_, Some(list)) => {
                list.is_null(row)
                    || (list.values().null_count() > 0 && list.value(row).null_count() > 0)
            }
            _ => false,
        }
    }
}

fn checked_product(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
}
