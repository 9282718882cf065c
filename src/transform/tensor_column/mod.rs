//! Columns of values, lists and tensors of any element type, row by row: the shape of a row, and
//! the range of its values.

pub(super) mod conversion;
pub(super) mod feed;
mod feed_shape;
pub(super) mod output;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::error::ArrowError;

use super::rows::RejectReason;
use crate::batch::reject::RejectCode;
use crate::tensor::{fixed_tensor_shape, variable_dims};

/// The type of the values of a column, and the shape of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnShape {
    /// The type of the values.
    pub(super) element: DataType,
    /// The dimensions of a row; `None` for those that differ from row to row. Empty for a column of
    /// single values.
    pub(super) dims: Vec<Option<usize>>,
}

impl ColumnShape {
    /// The shape of the rows of a column, by the lists or the tensor type that it has.
    pub(super) fn of(field: &Field) -> Self {
        if let Some((dims, values)) = variable_dims(field) {
            return Self {
                element: plain(values),
                dims: vec![None; dims],
            };
        }
        let (mut dims, mut item) = (Vec::new(), field.data_type());
        loop {
            item = match item {
                DataType::FixedSizeList(inner, len) => {
                    dims.push(usize::try_from(*len).ok());
                    inner.data_type()
                }
                DataType::List(inner) | DataType::LargeList(inner) => {
                    dims.push(None);
                    inner.data_type()
                }
                _ => break,
            };
        }
        if let Some(shape) = fixed_tensor_shape(field) {
            dims = shape.into_iter().map(Some).collect();
        }
        Self {
            element: plain(item),
            dims,
        }
    }

    /// The shape of every row, if it is fixed.
    pub(super) fn fixed(&self) -> Option<Vec<usize>> {
        self.dims.iter().copied().collect()
    }
}

impl std::fmt::Display for ColumnShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.dims.is_empty() {
            return write!(f, "single values of {}", self.element);
        }
        let dim = |dim: &Option<usize>| dim.map_or_else(|| "?".to_owned(), |size| size.to_string());
        let dims: Vec<String> = self.dims.iter().map(dim).collect();
        write!(
            f,
            "values of {} in the shape [{}]",
            self.element,
            dims.join(", ")
        )
    }
}

/// The type of the values of a dictionary, or the type itself.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

/// A column as its values and the ranges of its rows.
pub(crate) struct NestedColumn<'a> {
    name: &'a str,
    levels: Vec<ListLevel>,
    /// The values of all rows.
    pub(super) values: ArrayRef,
    /// The shape of each row, if the column stores it.
    shapes: Option<ArrayRef>,
    /// The shape of every row, if it is fixed.
    fixed: Option<Vec<usize>>,
}

/// One level of lists.
struct ListLevel {
    nulls: Option<NullBuffer>,
    bounds: ListBounds,
}

enum ListBounds {
    Fixed(usize),
    Offsets(Vec<usize>),
}

impl<'a> NestedColumn<'a> {
    /// Reads the column of a field.
    ///
    /// # Errors
    /// If Arrow cannot decode a dictionary.
    pub(super) fn new(field: &'a Field, column: &ArrayRef) -> Result<Self, ArrowError> {
        let mut levels = Vec::new();
        let (mut values, mut shapes) = (Arc::clone(column), None);
        if variable_dims(field).is_some()
            && let Some(tensor) = column.as_struct_opt()
        {
            levels.push(ListLevel {
                nulls: tensor.nulls().cloned(),
                bounds: ListBounds::Fixed(1),
            });
            values = Arc::clone(tensor.column(0));
            shapes = Some(Arc::clone(tensor.column(1)));
        }
        loop {
            let (bounds, inner) = if let Some(list) = values.as_fixed_size_list_opt() {
                let len = usize::try_from(list.value_length()).unwrap_or_default();
                (ListBounds::Fixed(len), Arc::clone(list.values()))
            } else if let Some(list) = values.as_list_opt::<i32>() {
                let offsets = list.value_offsets().iter();
                let offsets = offsets.map(|&at| usize::try_from(at).unwrap_or_default());
                (
                    ListBounds::Offsets(offsets.collect()),
                    Arc::clone(list.values()),
                )
            } else if let Some(list) = values.as_list_opt::<i64>() {
                let offsets = list.value_offsets().iter();
                let offsets = offsets.map(|&at| usize::try_from(at).unwrap_or_default());
                (
                    ListBounds::Offsets(offsets.collect()),
                    Arc::clone(list.values()),
                )
            } else {
                break;
            };
            let nulls = values.nulls().cloned();
            levels.push(ListLevel { nulls, bounds });
            values = inner;
        }
        if let DataType::Dictionary(_, item) = values.data_type() {
            values = arrow::compute::cast(&values, item)?;
        }
        Ok(Self {
            name: field.name(),
            levels,
            values,
            shapes,
            fixed: ColumnShape::of(field).fixed(),
        })
    }

    /// The range of the values of a row, and its shape. A value itself may be null.
    ///
    /// # Errors
    /// [`RejectCode::Missing`] for a list that is null, and [`RejectCode::Mismatch`] for lists of
    /// different lengths, or values that do not fill their shape.
    pub(super) fn row(&self, row: usize) -> Result<(Range<usize>, Vec<usize>), RejectReason> {
        let (mut range, mut shape) = (row..row + 1, Vec::new());
        for (depth, level) in self.levels.iter().enumerate() {
            if let Some(nulls) = &level.nulls
                && range.clone().any(|index| nulls.is_null(index))
            {
                let reason = format!("`{}` is null, or holds a null", self.name);
                return Err((RejectCode::Missing, reason));
            }
            let (len, inner) = level.span(&range).ok_or_else(|| self.ragged(depth))?;
            shape.push(len);
            range = inner;
        }
        if let Some(fixed) = &self.fixed {
            shape.clone_from(fixed);
        } else if let Some(shapes) = &self.shapes {
            shape = stored_shape(shapes, row).ok_or_else(|| self.unfilled())?;
        }
        let values = shape
            .iter()
            .try_fold(1_usize, |len, &size| len.checked_mul(size));
        if values != Some(range.len()) {
            return Err(self.unfilled());
        }
        Ok((range, shape))
    }

    fn ragged(&self, depth: usize) -> RejectReason {
        let reason = format!(
            "`{}` holds lists of different lengths in dimension {}; a tensor needs equal lengths",
            self.name,
            depth + 1
        );
        (RejectCode::Mismatch, reason)
    }

    fn unfilled(&self) -> RejectReason {
        let reason = format!("the values of `{}` do not fill its shape", self.name);
        (RejectCode::Mismatch, reason)
    }
}

impl ListLevel {
    /// The length of the lists `range`, and the range of their items; `None` if the lengths differ.
    fn span(&self, range: &Range<usize>) -> Option<(usize, Range<usize>)> {
        match &self.bounds {
            ListBounds::Fixed(len) => Some((*len, range.start * len..range.end * len)),
            ListBounds::Offsets(offsets) => {
                let bounds = offsets.get(range.start..=range.end)?;
                let mut lens = bounds.windows(2).map(|pair| pair[1] - pair[0]);
                let first = lens.next().unwrap_or_default();
                let (start, end) = (*bounds.first()?, *bounds.last()?);
                lens.all(|len| len == first).then_some((first, start..end))
            }
        }
    }
}

/// The shape of a row of a tensor of variable shape.
fn stored_shape(shapes: &ArrayRef, row: usize) -> Option<Vec<usize>> {
    let sizes = shapes.as_fixed_size_list_opt()?.value(row);
    let sizes = sizes.as_primitive_opt::<Int32Type>()?;
    let sizes = sizes.iter().map(|size| usize::try_from(size?).ok());
    sizes.collect()
}

#[cfg(test)]
mod tests;
