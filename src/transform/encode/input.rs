//! The column that `encode` reads: float32 tensors of one shape, or lists and tensors of numbers that
//! are read as the input of the model.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{Field, Float32Type, Schema};

use crate::batch::Batch;
use crate::batch::reject::{RejectCode, RejectCollector};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::model::files::ModelPath;
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec, element_count};
use crate::model::{Model, same_layout};
use crate::tensor::{TensorShape, all_finite, fixed_values};
use crate::transform::model_columns::{check_pixels, find_column, reject_unusable_rows};
use crate::transform::rows::{RejectedRows, find};
use crate::transform::tensor_column::feed::InputFeed;

/// The column of the records of `encode`.
pub(super) struct RecordColumn {
    pub(super) index: usize,
    /// The shape of every record, if it is fixed.
    pub(super) row: Option<Vec<usize>>,
    /// The number of values of a code.
    pub(super) code: usize,
    reader: RecordReader,
}

enum RecordReader {
    /// The column holds float32 tensors of one shape.
    Tensors,
    /// The values are converted, or the records have different shapes.
    Feed(InputFeed),
}

/// Records of one shape.
pub(super) struct RecordGroup {
    /// The rows of the batch.
    pub(super) rows: Vec<usize>,
    pub(super) shape: Vec<usize>,
    values: ArrayRef,
}

impl RecordGroup {
    /// The values of all records.
    pub(super) fn values(&self) -> &[f32] {
        let values = self.values.as_primitive_opt::<Float32Type>();
        values.map_or(&[], |values| values.values())
    }
}

impl RecordColumn {
    /// Finds the column that an option names, or the only one that fits: of tensors of one shape, or
    /// else of lists and tensors of different shapes.
    ///
    /// # Errors
    /// A fault at `column`.
    pub(super) fn find(
        model: &Model,
        input: &Schema,
        name: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let index_of = |field: &Field| input.index_of(field.name()).unwrap_or_default();
        let at_column = |index: usize| {
            let found = of_feed(model, input, index);
            found.map_err(|reason| {
                let column = input.field(index).name();
                ConfigError::new("column", format!("column `{column}`: {reason}"))
            })
        };
        let fits = |field: &Field, shape: &TensorShape| match shape {
            TensorShape::Fixed(row) => of_tensors(model, field, row).map(|_| ()),
            TensorShape::Variable(_) => of_feed(model, input, index_of(field)).map(|_| ()),
        };
        let tensors = || {
            input
                .fields()
                .iter()
                .filter_map(|field| TensorShape::of(field).map(|shape| (field, shape)))
        };
        match name {
            Some(name) => {
                let (index, field) = find(input, "column", name)?;
                if TensorShape::of(field).is_none() {
                    return at_column(index);
                }
            }
            None if !tensors().any(|(field, shape)| fits(field, &shape).is_ok()) => {
                let is_list = |&index: &usize| TensorShape::of(input.field(index)).is_none();
                let lists = (0..input.fields().len()).filter(is_list);
                let mut fitting: Vec<Self> = lists
                    .filter_map(|index| of_feed(model, input, index).ok())
                    .collect();
                if fitting.len() > 1 {
                    let names = fitting
                        .iter()
                        .map(|one| input.field(one.index).name().as_str());
                    let names: Vec<&str> = names.collect();
                    let message = format!(
                        "several columns fit the model: {}; name one of them",
                        names.join(", ")
                    );
                    return Err(ConfigError::new("column", message));
                }
                if let Some(one) = fitting.pop() {
                    return Ok(one);
                }
            }
            None => {}
        }
        let (index, field, shape) = find_column(input, name, fits)?;
        let TensorShape::Fixed(row) = shape else {
            return at_column(index);
        };
        let code =
            of_tensors(model, field, &row).map_err(|reason| ConfigError::new("column", reason))?;
        Ok(Self {
            index,
            row: Some(row),
            code,
            reader: RecordReader::Tensors,
        })
    }

    /// Reads the records of a batch, grouped by their shapes. Records that the model cannot take are
    /// removed from the batch.
    ///
    /// # Errors
    /// If the column differs from the plan.
    pub(super) fn read(
        &self,
        batch: Batch,
        rejects: &mut RejectCollector,
    ) -> Result<(Batch, Vec<RecordGroup>), StageError> {
        match (&self.reader, &self.row) {
            (RecordReader::Feed(feed), _) => read_feed(feed, self.index, batch, rejects),
            (RecordReader::Tensors, row) => {
                let row = row.clone().unwrap_or_default();
                let shape = TensorShape::Fixed(row.clone());
                let batch = reject_unusable_rows(batch, self.index, &shape, rejects, |_| Ok(()))?;
                let column = batch.records.column(self.index);
                let list = column
                    .as_fixed_size_list_opt()
                    .filter(|_| fixed_values(column).is_some())
                    .ok_or_else(|| {
                        StageError::new(
                            ErrorCode::Internal,
                            "the column does not hold tensors, contrary to the plan",
                        )
                    })?;
                let len = element_count(&row).unwrap_or_default();
                let group = RecordGroup {
                    rows: (0..batch.records.num_rows()).collect(),
                    shape: row,
                    values: list.values().slice(0, batch.records.num_rows() * len),
                };
                Ok((batch, vec![group]))
            }
        }
    }
}

fn read_feed(
    feed: &InputFeed,
    column: usize,
    batch: Batch,
    rejects: &mut RejectCollector,
) -> Result<(Batch, Vec<RecordGroup>), StageError> {
    let mut rejected = RejectedRows::default();
    let input = feed.read(&batch.records, &mut rejected)?;
    for row in 0..batch.records.num_rows() {
        if !rejected.contains(row)
            && let Some(values) = input.floats(row)
            && !all_finite(values)
        {
            let name = batch.records.schema_ref().field(column).name();
            let reason = format!("`{name}` holds a value that is not finite");
            rejected.add(row, (RejectCode::NotFinite, reason));
        }
    }
    let usable: Vec<usize> = (0..batch.records.num_rows())
        .filter(|&row| !rejected.contains(row))
        .collect();
    let mut by_shape: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for (position, &row) in usable.iter().enumerate() {
        by_shape
            .entry(&input.rows[row].1)
            .or_default()
            .push(position);
    }
    let mut groups = Vec::with_capacity(by_shape.len());
    for (shape, positions) in by_shape {
        let rows: Vec<usize> = positions.iter().map(|&position| usable[position]).collect();
        groups.push(RecordGroup {
            shape: shape.to_vec(),
            values: input.gather(&rows)?.values,
            rows: positions,
        });
    }
    Ok((rejected.remove_from(batch, rejects)?, groups))
}

const DIFFERENT_SHAPES: &str = "its records have different shapes, but the model takes one shape; \
                                set `size` in the `pixels` stage";

/// Checks that a column of tensors of one shape fits the model, and returns the size of a code.
fn of_tensors(model: &Model, field: &Field, row: &[usize]) -> Result<usize, String> {
    check_pixels(model, field)?;
    if let Some(expected) = model.input_shape()
        && !same_layout(row, &expected)
    {
        return Err(format!(
            "its records have the shape {row:?}, but the model `{}` takes {expected:?}",
            model.name()
        ));
    }
    code_size(model, row)
}

/// Checks that a column of lists, or of tensors of different shapes, fits the model.
fn of_feed(model: &Model, input: &Schema, index: usize) -> Result<RecordColumn, String> {
    let field = input.field(index);
    check_pixels(model, field)?;
    let files = model.files(ModelPath::Encode).unwrap_or_default();
    let Some(file) = files.first() else {
        return Err(format!("the model `{}` has no encoder", model.name()));
    };
    let is_variable = matches!(TensorShape::of(field), Some(TensorShape::Variable(_)));
    let multiple = model.size_multiple();
    if is_variable && (model.input_shape().is_some() || multiple > 1) {
        return Err(DIFFERENT_SHAPES.to_owned());
    }
    let spec = TensorSpec {
        element: ElementType::Float32,
        ..file.input.clone()
    };
    let feed = InputFeed::of_lists(&spec, input, index)?;
    let row = feed.shape.clone().or_else(|| spec.row_shape());
    let code = match &row {
        Some(row) => code_size(model, row)?,
        None => {
            let trial = |size: usize| -> Vec<usize> {
                let dims = spec.row_dims().unwrap_or_default().iter();
                dims.map(|dim| dim.fixed().unwrap_or(size)).collect()
            };
            let images = spec.row_dims().is_some_and(|dims| dims.len() > 2);
            let sizes = if images { [64, 96] } else { [8, 12] };
            let [one, other] = sizes.map(trial);
            let (size, larger) = (code_size(model, &one)?, code_size(model, &other)?);
            if size != larger {
                return Err(format!(
                    "its records have different shapes, and the model returns {size} values for the \
                     shape {one:?}, but {larger} for {other:?}; a code needs one size: set `size` \
                     in the `pixels` stage, or run the model in a stage of kind `onnx`"
                ));
            }
            size
        }
    };
    Ok(RecordColumn {
        index,
        row,
        code,
        reader: RecordReader::Feed(feed),
    })
}

/// The number of values of the code of a record.
fn code_size(model: &Model, row: &[usize]) -> Result<usize, String> {
    let code = model
        .output_shape(ModelPath::Encode, row)
        .map_err(|error| error.to_string())?;
    let size = element_count(&code).filter(|&size| size > 0 && i32::try_from(size).is_ok());
    size.ok_or_else(|| {
        format!("the model returns the shape {code:?} for a record, which is not a valid code")
    })
}

/// A dimension of fixed size for each size of a shape, after the batch dimension.
pub(super) fn fixed_dims(shape: &[usize]) -> Vec<Dim> {
    let batch = std::iter::once(Dim::Dynamic(None));
    batch
        .chain(shape.iter().map(|&size| Dim::Fixed(size)))
        .collect()
}
