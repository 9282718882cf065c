//! The description of a model folder, and tensors of Python as records.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, Float32Array, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use latentflow::evaluate::open_folder;
use latentflow::model::files::ModelPath;
use latentflow::model::{Model, ModelInput};
use latentflow::report::card_html;
use latentflow::tensor::{
    fixed_column, fixed_values, tensor_field, variable_column, variable_field, variable_row,
    vector_field,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use serde_json::json;

use crate::capsule::{PyBatches, PySchema, invalid};

/// The column of tensors.
const INPUT: &str = "input";

/// A model in a folder. The sessions are those of the pipelines that use it.
#[pyclass(frozen, module = "latentflow")]
pub struct NativeModel(Model);

#[pymethods]
impl NativeModel {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, allow_nondeterministic: bool) -> PyResult<Self> {
        let opened = py.detach(|| open_folder(&folder, allow_nondeterministic));
        opened
            .map(Self)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The properties of the model as JSON.
    fn describe(&self) -> String {
        let model = &self.0;
        let (takes, columns) = match model.input() {
            ModelInput::Image(_) => ("images", Vec::new()),
            ModelInput::Features(features) => ("features", features.columns.clone()),
            ModelInput::Tensor => ("tensors", Vec::new()),
        };
        json!({
            "name": model.card().map_or(model.name(), |card| card.name.as_str()),
            "kind": model.kind(),
            "digest": model.digest(),
            "summary": model.summary(),
            "loss": model.loss().as_str(),
            "takes": takes,
            "columns": columns,
            "input_shape": model.input_shape(),
            "code_size": model.code_size(),
            "reconstructs": model.files(ModelPath::Reconstruct).is_some(),
            "card": model.card(),
        })
        .to_string()
    }

    /// The model card as HTML; `None` without a card.
    fn html(&self) -> Option<String> {
        self.0.card().map(card_html)
    }

    /// The columns of [`tensors`](Self::tensors) of one `shape`, or of any size if the model takes
    /// images of any size.
    fn tensor_schema(&self, shape: Vec<usize>) -> PyResult<PySchema> {
        self.schema(&shape).map(PySchema)
    }

    /// Records with a column of tensors of one `shape`, without the dimension of the batch.
    fn tensors(
        &self,
        py: Python<'_>,
        values: PyBuffer<f32>,
        shape: Vec<usize>,
    ) -> PyResult<PyBatches> {
        let (schema, values) = (self.schema(&shape)?, values.to_vec(py)?);
        if i32::try_from(values.len()).is_err() {
            let message = format!("{} values are more than a batch can hold", values.len());
            return Err(PyValueError::new_err(message));
        }
        let len: usize = shape.iter().product();
        let column = if self.takes_any_size() {
            let rows = values.len() / len.max(1);
            variable_column(shape.len(), values, &vec![shape; rows])
        } else {
            fixed_column(len, values)
        };
        let batch =
            column.and_then(|column| RecordBatch::try_new(SchemaRef::clone(&schema), vec![column]));
        Ok(PyBatches {
            schema,
            batches: vec![batch.map_err(invalid)?],
        })
    }
}

impl NativeModel {
    fn takes_any_size(&self) -> bool {
        self.0
            .image_input()
            .is_some_and(|image| image.size.is_none())
    }

    fn schema(&self, shape: &[usize]) -> PyResult<SchemaRef> {
        let field = match shape {
            dims if self.takes_any_size() => variable_field(INPUT, dims.len()),
            [len] => Ok(vector_field(INPUT, *len)),
            dims => tensor_field(INPUT, dims),
        };
        let field = field.map_err(invalid)?;
        let field = match self.0.image_input() {
            Some(image) => image.format.annotate(field),
            None => field,
        };
        Ok(Schema::new(vec![field]).into())
    }
}

/// Copies a column of numbers or of tensors to `out`, in the order of the records. The values of a
/// null record are NaN.
///
/// # Errors
/// If the column is missing or holds other values, or their number differs from that of `out`.
#[pyfunction]
pub fn copy_values(
    py: Python<'_>,
    records: &PyBatches,
    column: &str,
    out: PyBuffer<f32>,
) -> PyResult<()> {
    let mut values: Vec<f32> = Vec::with_capacity(out.item_count());
    let width = out.item_count() / records.row_count().max(1);
    for batch in &records.batches {
        append_values(named_column(batch, column)?, width, &mut values)?;
    }
    out.copy_from_slice(py, &values)
}

fn append_values(column: &ArrayRef, width: usize, values: &mut Vec<f32>) -> PyResult<()> {
    let other = || PyValueError::new_err("the column holds neither tensors nor float32 numbers");
    let scalars = column.as_any().downcast_ref::<Float32Array>();
    let is_variable = column.as_any().is::<StructArray>();
    for row in 0..column.len() {
        let row_values = match scalars {
            _ if column.is_null(row) => None,
            Some(scalars) => Some(&scalars.values()[row..=row]),
            None if is_variable => Some(variable_row(column, row).ok_or_else(other)?.0),
            None => {
                let all = fixed_values(column).ok_or_else(other)?;
                all.get(row * width..(row + 1) * width)
            }
        };
        match row_values {
            Some(row_values) => values.extend_from_slice(row_values),
            None => values.extend(std::iter::repeat_n(f32::NAN, width)),
        }
    }
    Ok(())
}

/// The distinct shapes of a column of tensors of any size.
#[pyfunction]
pub fn tensor_shapes(records: &PyBatches, column: &str) -> PyResult<Vec<Vec<usize>>> {
    let mut shapes = BTreeSet::new();
    for batch in &records.batches {
        let found = named_column(batch, column)?;
        for row in 0..found.len() {
            shapes.extend(variable_row(found, row).map(|(_, shape)| shape));
        }
    }
    Ok(shapes.into_iter().collect())
}

fn named_column<'a>(batch: &'a RecordBatch, name: &str) -> PyResult<&'a ArrayRef> {
    let found = batch.column_by_name(name);
    found.ok_or_else(|| PyValueError::new_err(format!("the records have no column `{name}`")))
}

/// Records of a pipeline of images: `source` and `image`.
#[pyfunction]
pub fn image_records(sources: Vec<String>, images: Vec<PyBackedBytes>) -> PyResult<PyBatches> {
    let bytes: usize = images.iter().map(|image| image.len()).sum();
    if i32::try_from(bytes).is_err() {
        let message = format!("images of {bytes} bytes are more than a batch can hold");
        return Err(PyValueError::new_err(message));
    }
    let schema = SchemaRef::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("image", DataType::Binary, false),
    ]));
    let images = BinaryArray::from_iter_values(&images);
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(sources)), Arc::new(images)];
    let batch = RecordBatch::try_new(SchemaRef::clone(&schema), columns).map_err(invalid)?;
    Ok(PyBatches {
        schema,
        batches: vec![batch],
    })
}
