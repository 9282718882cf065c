//! The columns of the outputs of a graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use crate::model::graph::RecordTensors;
use crate::model::tensor_spec::{Dim, TensorSpec, element_count};
use crate::tensor::{item_of, len_of, variable_column_of, variable_field_of, with_tensor_shape};
use crate::transform::tensor_column::feed::InputFeed;

/// A column with an output of a graph.
#[derive(Debug, Clone)]
pub(in crate::transform) struct OutputColumn {
    pub(in crate::transform) name: String,
    /// The index of the output in the selection of the session.
    pub(in crate::transform) output: usize,
    element: DataType,
    form: OutputForm,
}

/// The form of a record's output.
#[derive(Debug, Clone, PartialEq)]
enum OutputForm {
    /// One value.
    Value,
    /// A list of fixed length, or a tensor of fixed shape.
    Fixed(Vec<usize>),
    /// Lists or tensors whose shapes differ; the number is the number of dimensions.
    Dynamic(usize),
}

/// The sizes of the named dimensions that the columns of the inputs fix.
pub(in crate::transform) type NamedSizes = BTreeMap<String, Option<usize>>;

/// Collects the sizes of the named dimensions. A name with two sizes has none.
pub(in crate::transform) fn named_sizes(feeds: &[InputFeed]) -> NamedSizes {
    let mut sizes = NamedSizes::new();
    for feed in feeds {
        let (Some(shape), Some(dims)) = (&feed.shape, feed.spec.row_dims()) else {
            continue;
        };
        for (dim, &size) in dims.iter().zip(shape) {
            if let Dim::Dynamic(Some(name)) = dim {
                let known = sizes.entry(name.clone()).or_insert(Some(size));
                known.take_if(|known| *known != size);
            }
        }
    }
    sizes
}

impl OutputColumn {
    /// Plans the column `name` for an output, from its declared dimensions, the named sizes, and the
    /// shape that a trial run has returned.
    ///
    /// # Errors
    /// Why a column cannot hold the output, as a phrase.
    pub(in crate::transform) fn new(
        name: &str,
        (output, spec): (usize, &TensorSpec),
        sizes: &NamedSizes,
        trial: Option<&Vec<usize>>,
    ) -> Result<Self, String> {
        let element = spec.element.arrow_type().ok_or_else(|| {
            format!(
                "output {spec} has a type that columns cannot hold; of a scikit-learn classifier, \
                 export the probabilities as a tensor (`zipmap: False` in the options of skl2onnx), \
                 or name only other outputs"
            )
        })?;
        let declared = |dims: &[Dim]| -> Vec<Option<usize>> {
            let size = |dim: &Dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Dynamic(Some(symbol)) => sizes.get(symbol).copied().flatten(),
                Dim::Dynamic(None) => None,
            };
            dims.iter().map(size).collect()
        };
        let dims = match (spec.row_dims().map(declared), trial) {
            // The dimensions of the trial run differ from those that the file declares or infers.
            (Some(dims), Some(trial)) if dims.len() == trial.len() => {
                let agreed = |(dim, size): (Option<usize>, &usize)| dim.filter(|dim| dim == size);
                dims.into_iter().zip(trial).map(agreed).collect()
            }
            (Some(dims), None) => dims,
            (_, Some(trial)) => vec![None; trial.len()],
            (None, None) => {
                return Err(format!(
                    "output {spec} has no declared shape, and the model fails on a trial record; \
                     export the model with the shapes of its outputs"
                ));
            }
        };
        let form = match dims.iter().copied().collect::<Option<Vec<usize>>>() {
            Some(shape) if shape.is_empty() || shape == [1] => OutputForm::Value,
            Some(shape) => OutputForm::Fixed(shape),
            None => OutputForm::Dynamic(dims.len()),
        };
        if let OutputForm::Fixed(shape) = &form
            && element_count(shape).is_none_or(|len| len == 0 || i32::try_from(len).is_err())
        {
            return Err(format!(
                "output {spec} has the shape {shape:?} for a record, which a column cannot hold"
            ));
        }
        if element == DataType::Utf8 && dims.len() > 1 {
            return Err(format!(
                "output {spec} is a tensor of strings; a column holds one string or a list of \
                 strings per record"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            output,
            element,
            form,
        })
    }

    /// The field of the column.
    ///
    /// # Errors
    /// If Arrow does not support the number of dimensions.
    pub(in crate::transform) fn field(&self) -> Result<Field, ArrowError> {
        let element = self.element.clone();
        let of = |data_type| Field::new(&self.name, data_type, false);
        Ok(match &self.form {
            OutputForm::Value => of(element),
            OutputForm::Fixed(shape) => {
                let list = DataType::FixedSizeList(item_of(element), self.len());
                match shape.as_slice() {
                    [_] => of(list),
                    shape => with_tensor_shape(of(list), shape),
                }
            }
            OutputForm::Dynamic(1) => of(DataType::List(item_of(element))),
            OutputForm::Dynamic(dims) => variable_field_of(&self.name, *dims, element)?,
        })
    }

    fn len(&self) -> i32 {
        len_of(self.values())
    }

    /// The number of values of a record; 1 if it is not fixed.
    pub(in crate::transform) fn values(&self) -> usize {
        match &self.form {
            OutputForm::Fixed(shape) => shape.iter().product(),
            _ => 1,
        }
    }

    /// The number of bytes of a value of a tensor whose shape differs; 0 for other columns.
    pub(in crate::transform) fn variable_value_bytes(&self) -> u64 {
        match self.form {
            OutputForm::Dynamic(dims) if dims > 1 => {
                self.element.primitive_width().unwrap_or(1) as u64
            }
            _ => 0,
        }
    }

    /// Checks the shape of a record's output.
    ///
    /// # Errors
    /// The difference, as a phrase.
    pub(in crate::transform) fn check(&self, shape: &[usize]) -> Result<(), String> {
        let (fits, expected) = match &self.form {
            OutputForm::Value => (shape.is_empty() || shape == [1], "one value".to_owned()),
            OutputForm::Fixed(fixed) => (shape == fixed, format!("{fixed:?}")),
            OutputForm::Dynamic(dims) => (shape.len() == *dims, format!("{dims} dimensions")),
        };
        if fits {
            return Ok(());
        }
        let name = &self.name;
        Err(format!(
            "the model returned the shape {shape:?} for the column `{name}`; expected {expected}"
        ))
    }

    /// Creates the column from the outputs of calls, each with its number of records.
    ///
    /// # Errors
    /// If the values exceed the size of an Arrow array.
    pub(in crate::transform) fn array(
        &self,
        calls: &[(usize, RecordTensors)],
    ) -> Result<ArrayRef, ArrowError> {
        let parts: Vec<&dyn Array> = calls
            .iter()
            .map(|(_, tensors)| tensors.values.as_ref())
            .collect();
        let values = match parts.as_slice() {
            [] => arrow::array::new_empty_array(&self.element),
            parts => concat(parts)?,
        };
        if i32::try_from(values.len()).is_err() {
            return Err(ArrowError::OffsetOverflowError(values.len()));
        }
        let shapes = || {
            let repeated =
                |(rows, tensors): &(usize, RecordTensors)| vec![tensors.shape.clone(); *rows];
            calls.iter().flat_map(repeated)
        };
        let item = item_of(self.element.clone());
        Ok(match &self.form {
            OutputForm::Value | OutputForm::Fixed(_) => self.array_of(values)?,
            OutputForm::Dynamic(1) => {
                let offsets = OffsetBuffer::from_lengths(shapes().map(|shape| shape[0]));
                Arc::new(ListArray::try_new(item, offsets, values, None)?)
            }
            OutputForm::Dynamic(dims) => {
                variable_column_of(*dims, values, &shapes().collect::<Vec<_>>())?
            }
        })
    }

    /// Creates the column of an output of fixed shape from the values of all records.
    ///
    /// # Errors
    /// If the number of values is not a multiple of that of a record.
    pub(in crate::transform) fn array_of(&self, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
        if self.form == OutputForm::Value {
            return Ok(values);
        }
        let item = item_of(self.element.clone());
        let list = FixedSizeListArray::try_new(item, self.len(), values, None)?;
        Ok(Arc::new(list))
    }
}
