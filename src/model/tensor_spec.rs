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
    /// int8.
    Int8,
    /// int16.
    Int16,
    /// int32.
    Int32,
    /// int64.
    Int64,
    /// uint16.
    Uint16,
    /// uint32.
    Uint32,
    /// uint64.
    Uint64,
    /// bool.
    Bool,
    /// string.
    String,
    /// A type that pipelines do not support, by its ONNX name.
    Other(String),
}

impl TensorSpec {
    /// The dimensions of one record; `None` if the tensor has no dimensions.
    pub(crate) fn row_dims(&self) -> Option<&[Dim]> {
        self.dims.get(1..)
    }

    /// The batch size, if the file fixes it.
    pub fn batch(&self) -> Option<usize> {
        self.dims.first().and_then(Dim::fixed)
    }

    /// The shape of one record, if the file fixes it.
    pub(crate) fn row_shape(&self) -> Option<Vec<usize>> {
        self.row_dims()?.iter().map(Dim::fixed).collect()
    }

    /// The number of values of one record, if the file fixes it.
    pub(crate) fn row_len(&self) -> Option<usize> {
        element_count(&self.row_shape()?)
    }

    /// The shape with which a record of the shape `shape` is passed to the graph. This is its own
    /// shape if all dimensions match, or the shape in the file if that is fixed and has another
    /// number of dimensions but the same number of values. `None` if the record does not fit.
    pub(crate) fn feed(&self, shape: &[usize]) -> Option<Vec<usize>> {
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

/// The difference from a whole number that is attributed to the rounding of scaled values.
const WHOLE_TOLERANCE: f32 = 1e-3;
/// The smallest number that is rounded to infinity in float16.
const FLOAT16_OVERFLOW: f32 = 65_520.0;

impl TensorSpec {
    /// Checks that the type of the tensor can hold the values of a record, rounded as the type
    /// requires: values are never clamped.
    ///
    /// # Errors
    /// The first value that it cannot hold, as a phrase.
    pub(in crate::model) fn check_values(&self, values: &[f32]) -> Result<(), String> {
        let (fits, expected): (fn(f32) -> bool, _) = match self.element {
            ElementType::Uint8 => (
                |value| {
                    let whole = value.round();
                    (0.0..=255.0).contains(&whole) && (value - whole).abs() <= WHOLE_TOLERANCE
                },
                "whole numbers from 0 to 255",
            ),
            // Values that are not finite are passed on: float16 has them as well.
            ElementType::Float16 => (
                |value| !value.is_finite() || value.abs() < FLOAT16_OVERFLOW,
                "numbers from -65504 to 65504",
            ),
            _ => return Ok(()),
        };
        match values.iter().position(|&value| !fits(value)) {
            None => Ok(()),
            Some(index) => Err(format!(
                "value {} of the record is {}, but the input `{}` of the model is {}, which holds \
                 {expected}",
                index + 1,
                values[index],
                self.name,
                self.element
            )),
        }
    }
}

impl ElementType {
    /// Whether the type is one of the supported floating-point types.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self, Self::Float16 | Self::Float32 | Self::Float64)
    }

    /// Whether the values of an output of this type are read as float32, as codes and
    /// reconstructions are.
    pub(crate) fn is_read_as_float32(&self) -> bool {
        self.is_float() || *self == Self::Uint8
    }
}

/// The number of values of a tensor of this shape; `None` if it overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
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
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
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
    fn values_that_a_type_cannot_hold_are_refused() {
        let check = |element: ElementType, value: f32| {
            let typed = TensorSpec {
                element,
                ..spec(&[Dim::Dynamic(None), Dim::Fixed(2)])
            };
            typed.check_values(&[1.0, value])
        };
        for value in [0.0, -0.0, 255.0, 2.999_99, 254.999_9] {
            assert_eq!(check(ElementType::Uint8, value), Ok(()), "{value}");
        }
        for value in [-1.0, 256.0, 0.5, 254.6, f32::NAN, f32::INFINITY, 1e30] {
            assert_eq!(
                check(ElementType::Uint8, value),
                Err(format!(
                    "value 2 of the record is {value}, but the input `x` of the model is uint8, \
                     which holds whole numbers from 0 to 255"
                ))
            );
        }
        for value in [65_504.0, -65_519.9, 0.1, f32::NAN, f32::INFINITY] {
            assert_eq!(check(ElementType::Float16, value), Ok(()), "{value}");
        }
        for value in [65_520.0, -1e9] {
            assert!(check(ElementType::Float16, value).is_err(), "{value}");
        }
        assert_eq!(check(ElementType::Float32, 1e30), Ok(()));
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
