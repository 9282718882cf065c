//! The inputs of a graph from columns: the columns of each input, and the values of its records.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, Scalar};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, concat, interleave, is_null};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::model::graph::RecordTensors;
use crate::model::tensor_spec::{TensorSpec, element_count};
use crate::transform::rows::RejectedRows;
use crate::transform::tensor_column::conversion::{can_convert, convert, shown};
use crate::transform::tensor_column::feed_shape::{can_fit, feed_shape};
use crate::transform::tensor_column::{ColumnShape, NestedColumn};

/// The columns that feed an input of a graph.
#[derive(Debug, Clone)]
pub(in crate::transform) struct InputFeed {
    pub(in crate::transform) spec: TensorSpec,
    /// The type of the input's values.
    element: DataType,
    columns: Vec<usize>,
    /// The number of values of each column, if there are several.
    widths: Vec<usize>,
    /// Whether nulls become NaN.
    nulls_as_nan: bool,
    /// The shape with which every record is fed, if the columns fix it.
    pub(in crate::transform) shape: Option<Vec<usize>>,
}

/// The values of an input for the records of a batch.
pub(in crate::transform) struct FedInput {
    values: ArrayRef,
    /// The range of the values of each record, and the shape in which they are fed.
    pub(in crate::transform) rows: Vec<(Range<usize>, Vec<usize>)>,
}

impl InputFeed {
    /// Checks that the columns fit the input.
    ///
    /// # Errors
    /// The column that does not fit, as a phrase.
    pub(in crate::transform) fn new(
        spec: &TensorSpec,
        input: &Schema,
        columns: Vec<usize>,
        nulls_as_nan: bool,
    ) -> Result<Self, String> {
        let element = spec.element.arrow_type().unwrap_or(DataType::Null);
        let mut widths = Vec::new();
        let mut shape = None;
        for &column in &columns {
            let field = input.field(column);
            let of_column = ColumnShape::of(field);
            if !can_convert(&of_column.element, &element) {
                return Err(misfit(field, &of_column, spec));
            }
            if let [_] = columns.as_slice() {
                shape = of_column.fixed().map(|row| feed_shape(spec, &row));
                let known_misfit = shape.as_ref().is_some_and(Option::is_none);
                if known_misfit || (shape.is_none() && !can_fit(spec, &of_column.dims)) {
                    return Err(misfit(field, &of_column, spec));
                }
            } else {
                let width = of_column.fixed().and_then(|row| element_count(&row));
                widths.push(width.filter(|_| of_column.dims.len() < 2).ok_or_else(|| {
                    format!(
                        "column `{}` has {of_column}; of several columns that feed one input, each \
                         has single values or lists of one length",
                        field.name()
                    )
                })?);
            }
        }
        if !widths.is_empty() {
            let row = vec![widths.iter().sum::<usize>()];
            let found = feed_shape(spec, &row);
            if found.is_none() {
                return Err(format!(
                    "the columns have {} values together, which do not fit the input {spec}",
                    row[0]
                ));
            }
            shape = Some(found);
        }
        Ok(Self {
            spec: spec.clone(),
            nulls_as_nan: nulls_as_nan && element.is_floating(),
            element,
            columns,
            widths,
            shape: shape.flatten(),
        })
    }

    /// As [`InputFeed::new`], for a column of lists or tensors.
    ///
    /// # Errors
    /// If the column does not fit, or has single values.
    pub(in crate::transform) fn of_lists(
        spec: &TensorSpec,
        input: &Schema,
        column: usize,
    ) -> Result<Self, String> {
        let field = input.field(column);
        let shape = ColumnShape::of(field);
        if shape.dims.is_empty() {
            return Err(misfit(field, &shape, spec));
        }
        Self::new(spec, input, vec![column], false)
    }

    /// The names of the columns.
    pub(in crate::transform) fn names<'a>(&self, input: &'a Schema) -> Vec<&'a str> {
        let names = self.columns.iter();
        names
            .map(|&column| input.field(column).name().as_str())
            .collect()
    }

    /// The shape of a record for a trial run: that of the columns, or 8 for each unknown dimension.
    pub(in crate::transform) fn trial_shape(&self) -> Vec<usize> {
        let dims = self.spec.row_dims().unwrap_or_default().iter();
        let declared = || dims.map(|dim| dim.fixed().unwrap_or(TRIAL_SIZE)).collect();
        self.shape.clone().unwrap_or_else(declared)
    }

    /// Reads the values of the records. Records that the input cannot hold are rejected.
    ///
    /// # Errors
    /// If Arrow cannot convert the columns, contrary to the plan.
    pub(in crate::transform) fn read(
        &self,
        batch: &RecordBatch,
        rejected: &mut RejectedRows,
    ) -> Result<FedInput, StageError> {
        let mut parts = Vec::new();
        for &column in &self.columns {
            let field = batch.schema_ref().field(column);
            parts.push(self.read_column(field, batch.column(column), rejected)?);
        }
        if self.widths.is_empty()
            && let Some(part) = parts.pop()
        {
            return Ok(part);
        }
        let width: usize = self.widths.iter().sum();
        let mut indices = Vec::with_capacity(batch.num_rows() * width);
        for row in 0..batch.num_rows() {
            for (part, len) in self.widths.iter().enumerate() {
                indices.extend((row * len..(row + 1) * len).map(|index| (part, index)));
            }
        }
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.values.as_ref()).collect();
        let shape = self.shape.clone().unwrap_or_default();
        let row = |row| (row * width..(row + 1) * width, shape.clone());
        Ok(FedInput {
            values: interleave(&arrays, &indices)?,
            rows: (0..batch.num_rows()).map(row).collect(),
        })
    }

    fn read_column(
        &self,
        field: &Field,
        column: &ArrayRef,
        rejected: &mut RejectedRows,
    ) -> Result<FedInput, StageError> {
        let nested = NestedColumn::new(field, column)?;
        let converted = convert(&nested.values, &self.element)?;
        let (mut values, unfit) = (converted.values, converted.unfit);
        let mut rows = Vec::with_capacity(column.len());
        for row in 0..column.len() {
            let found = nested.row(row).and_then(|(range, shape)| {
                let null = nested.values.null_count() > 0
                    && !self.nulls_as_nan
                    && range.clone().any(|index| nested.values.is_null(index));
                if null {
                    let reason = format!("`{}` is null, or holds a null", field.name());
                    return Err((RejectCode::Missing, reason));
                }
                let first = unfit.as_ref().and_then(|unfit| {
                    range
                        .clone()
                        .find(|&index| unfit.is_valid(index) && unfit.value(index))
                });
                if let Some(index) = first {
                    let reason = format!(
                        "`{}` holds {}, which the input {} of the model cannot hold",
                        field.name(),
                        shown(&nested.values, index),
                        self.spec
                    );
                    return Err((RejectCode::Mismatch, reason));
                }
                if !self.widths.is_empty() {
                    return Ok((range, shape));
                }
                match feed_shape(&self.spec, &shape).filter(|fed| !fed.contains(&0)) {
                    Some(fed) => Ok((range, fed)),
                    None => {
                        let reason = format!(
                            "`{}` has the shape {shape:?}, which does not fit the input {} of the \
                             model",
                            field.name(),
                            self.spec
                        );
                        Err((RejectCode::Mismatch, reason))
                    }
                }
            });
            rows.push(found.unwrap_or_else(|reason| {
                rejected.add(row, reason);
                (0..0, Vec::new())
            }));
        }
        if self.nulls_as_nan && values.null_count() > 0 {
            let nan = cast(&Float64Array::from(vec![f64::NAN]), &self.element)?;
            values = zip(&is_null(&values)?, &Scalar::new(nan), &values)?;
        }
        Ok(FedInput { values, rows })
    }
}

impl FedInput {
    /// The values of a record of float32; `None` for another type.
    pub(in crate::transform) fn floats(&self, row: usize) -> Option<&[f32]> {
        let values = self.values.as_primitive_opt::<Float32Type>()?.values();
        values.get(self.rows[row].0.clone())
    }

    /// The values of the records `rows`, which have one shape.
    pub(in crate::transform) fn gather(&self, rows: &[usize]) -> Result<RecordTensors, StageError> {
        let shape = rows.first().map(|&row| self.rows[row].1.clone());
        let ranges = || rows.iter().map(|&row| self.rows[row].0.clone());
        let adjacent = ranges()
            .zip(ranges().skip(1))
            .all(|(one, next)| one.end == next.start);
        let values = match (ranges().next(), ranges().next_back()) {
            (Some(first), Some(last)) if adjacent => {
                self.values.slice(first.start, last.end - first.start)
            }
            _ => {
                let parts: Vec<ArrayRef> = ranges()
                    .map(|range| self.values.slice(range.start, range.len()))
                    .collect();
                let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                concat(&parts)?
            }
        };
        Ok(RecordTensors {
            shape: shape.unwrap_or_default(),
            values: Arc::clone(&values),
        })
    }
}

/// The size of an unknown dimension in a trial run.
const TRIAL_SIZE: usize = 8;

fn misfit(field: &Field, shape: &ColumnShape, spec: &TensorSpec) -> String {
    format!(
        "column `{}` has {shape}, which do not fit the input {spec}",
        field.name()
    )
}
