//! An ONNX graph's inputs and outputs as the file declares them: names, element types, dimensions.

use std::fmt;

/// A named tensor that goes into a graph, or comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name in the file.
    pub name: String,
    /// What its elements are.
    pub element: ElementType,
    /// Its dimensions; the first counts the records of a batch.
    pub dims: Vec<Dim>,
}

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Known when it runs; the file may name it.
    Dynamic(Option<String>),
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementType {
    /// float32, what flows in a pipeline.
    Float32,
    /// float16, of half the width.
    Float16,
    /// float64.
    Float64,
    /// Bytes.
    Uint8,
    /// Something that pipelines don't carry, by its ONNX name.
    Other(String),
}

impl TensorSpec {
    /// The dimensions of one record; `None` where the file does not even tell how many there are.
    pub fn row_dims(&self) -> Option<&[Dim]> {
        self.dims.get(1..)
    }

    /// The records that one call takes, where the file fixes that.
    pub fn batch(&self) -> Option<usize> {
        self.dims.first().and_then(Dim::fixed)
    }

    /// The shape of one record, where the file fixes it.
    pub fn row_shape(&self) -> Option<Vec<usize>> {
        self.row_dims()?.iter().map(Dim::fixed).collect()
    }

    /// The values of one record, where the file fixes that.
    pub fn row_len(&self) -> Option<usize> {
        values(&self.row_shape()?)
    }

    /// The shape under which a record of `shape` goes in: its own where the dimensions agree one by
    /// one; the file's where that is fixed, has another number of dimensions and as many values.
    /// `None`: it does not fit.
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
        (self.row_len()? == values(shape)?).then_some(own)
    }

    /// Whether a record of `shape` can go in.
    pub fn takes(&self, shape: &[usize]) -> bool {
        self.feed(shape).is_some()
    }
}

/// How many values a tensor of this shape has; `None` where that is beyond counting.
pub fn values(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |len, &size| len.checked_mul(size))
}

impl Dim {
    /// The size, where it is fixed.
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

    fn port(dims: &[Dim]) -> TensorSpec {
        TensorSpec {
            name: "x".to_owned(),
            element: ElementType::Float32,
            dims: dims.to_vec(),
        }
    }

    #[test]
    fn a_record_goes_in_under_its_own_shape_or_the_files() {
        let planes = port(&[
            Dim::Dynamic(None),
            Dim::Fixed(3),
            Dim::Dynamic(None),
            Dim::Dynamic(None),
        ]);
        assert_eq!(planes.feed(&[3, 8, 9]), Some(vec![3, 8, 9]));
        assert_eq!(planes.feed(&[8, 9, 3]), None);
        assert_eq!(planes.feed(&[216]), None);
        let series = port(&[Dim::Dynamic(None), Dim::Fixed(30), Dim::Fixed(7)]);
        assert_eq!(series.feed(&[210]), Some(vec![30, 7]));
        assert_eq!(series.feed(&[7, 30]), None);
    }

    #[test]
    fn a_port_reads_as_in_the_file() {
        let port = port(&[
            Dim::Dynamic(Some("batch".to_owned())),
            Dim::Fixed(10),
            Dim::Dynamic(None),
        ]);
        assert_eq!(port.to_string(), "`x` float32 [batch, 10, ?]");
    }
}
