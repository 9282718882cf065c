//! The inputs and outputs of an ONNX graph as the file declares them: names, element types and
//! dimensions.

use std::fmt;

/// An input or output tensor of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name of the tensor in the file.
    pub name: String,
    /// The type of its elements.
    pub element: ElementType,
    /// Its dimensions. The first is the batch dimension.
    pub dims: Vec<Dim>,
}

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A size that is known at run time. The file may give it a name.
    Dynamic(Option<String>),
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementType {
    /// float32, the type of tensors in a pipeline.
    Float32,
    /// float16.
    Float16,
    /// float64.
    Float64,
    /// uint8.
    Uint8,
    /// A type that pipelines do not support, by its ONNX name.
    Other(String),
}

impl TensorSpec {
    /// The dimensions of one record; `None` if the tensor has no dimensions.
    pub fn row_dims(&self) -> Option<&[Dim]> {
        self.dims.get(1..)
    }

    /// The batch size, if the file fixes it.
    pub fn batch(&self) -> Option<usize> {
        self.dims.first().and_then(Dim::fixed)
    }

    /// The shape of one record, if the file fixes it.
    pub fn row_shape(&self) -> Option<Vec<usize>> {
        self.row_dims()?.iter().map(Dim::fixed).collect()
    }

    /// The number of values of one record, if the file fixes it.
    pub fn row_len(&self) -> Option<usize> {
        element_count(&self.row_shape()?)
    }

    /// The shape with which a record of the shape `shape` is passed to the graph. This is its own
    /// shape if all dimensions match, or the shape in the file if that is fixed and has another
    /// number of dimensions but the same number of values. `None` if the record does not fit.
    pub fn feed(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let dims = self.row_dims()?;
        if dims.len() == shape.len() {
            let agree = dims
                .iter()
                .zip(shape)
                .all(|(dim, &size)| dim.fixed().is_none_or(|fixed| fixed == size));
            return agree.then(|| shape.to_vec());
        }
        let own = self.row_shape()?;
        (self.row_len()? == element_count(shape)?).then_some(own)
    }

    /// Whether a record of the shape `shape` fits.
    pub fn takes(&self, shape: &[usize]) -> bool {
        self.feed(shape).is_some()
    }
}

/// The number of values of a tensor of this shape; `None` if it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |len, &size| len.checked_mul(size))
}

impl Dim {
    /// The size, if it is fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Dynamic(_) => None,
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        write!(f, "`{}` {} [{}]", self.name, self.element, dims.join(", "))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Dynamic(Some(name)) => f.write_str(name),
            Self::Dynamic(None) => f.write_str("?"),
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Float64 => "float64",
            Self::Uint8 => "uint8",
            Self::Other(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dims: &[Dim]) -> TensorSpec {
        TensorSpec {
            name: "x".to_owned(),
            element: ElementType::Float32,
            dims: dims.to_vec(),
        }
    }

    #[test]
    fn record_is_passed_with_its_own_or_the_declared_shape() {
        let planes = spec(&[
            Dim::Dynamic(None),
            Dim::Fixed(3),
            Dim::Dynamic(None),
            Dim::Dynamic(None),
        ]);
        assert_eq!(planes.feed(&[3, 8, 9]), Some(vec![3, 8, 9]));
        assert_eq!(planes.feed(&[8, 9, 3]), None);
        assert_eq!(planes.feed(&[216]), None);
        let series = spec(&[Dim::Dynamic(None), Dim::Fixed(30), Dim::Fixed(7)]);
        assert_eq!(series.feed(&[210]), Some(vec![30, 7]));
        assert_eq!(series.feed(&[7, 30]), None);
    }

    #[test]
    fn display_shows_names_of_dimensions() {
        let spec = spec(&[
            Dim::Dynamic(Some("batch".to_owned())),
            Dim::Fixed(10),
            Dim::Dynamic(None),
        ]);
        assert_eq!(spec.to_string(), "`x` float32 [batch, 10, ?]");
    }
}
