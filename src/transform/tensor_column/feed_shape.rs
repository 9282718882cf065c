//! The shapes with which records are fed to an input of a graph.

use crate::model::tensor_spec::{Dim, TensorSpec, element_count};

/// The shape with which a record of the shape `row` is fed: as [`TensorSpec::feed`]; a single value
/// as a tensor of one value; and a list as a tensor with one dynamic dimension, if its length is a
/// multiple of the product of the others.
pub(super) fn feed_shape(spec: &TensorSpec, row: &[usize]) -> Option<Vec<usize>> {
    if let Some(shape) = spec.feed(row) {
        return Some(shape);
    }
    let dims = spec.row_dims()?;
    let known = |dim: &Dim| dim.fixed().unwrap_or(1);
    match row {
        [] => dims
            .iter()
            .all(|dim| known(dim) == 1)
            .then(|| vec![1; dims.len()]),
        [len] if dims.iter().filter(|dim| dim.fixed().is_none()).count() == 1 => {
            let step = element_count(&dims.iter().map(known).collect::<Vec<_>>())?;
            let size = (step > 0 && len.is_multiple_of(step)).then(|| len / step)?;
            Some(dims.iter().map(|dim| dim.fixed().unwrap_or(size)).collect())
        }
        _ => None,
    }
}

/// Whether records with these dimensions, some of which are unknown, may fit the input.
pub(super) fn can_fit(spec: &TensorSpec, row: &[Option<usize>]) -> bool {
    let dims = spec.row_dims().unwrap_or_default();
    if dims.len() != row.len() {
        // The number of values may agree.
        return row.len() == 1 || spec.row_shape().is_some();
    }
    dims.iter()
        .zip(row)
        .all(|(dim, size)| match (dim.fixed(), size) {
            (Some(fixed), Some(size)) => fixed == *size,
            _ => true,
        })
}
