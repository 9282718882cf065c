//! The columns of a dataset that its report reads.

use arrow::datatypes::{DataType, Field, Schema};

use crate::columns::{ROW, SOURCE};
use crate::image::PixelFormat;
use crate::report::dataset_sample::anomalies::TOP_FEATURES;
use crate::transform::registry::error_columns;

/// Names of columns that may hold labels; the first that exists is used.
const LABELS: [&str; 5] = ["label", "class", "category", "target", "y"];

/// The columns that are read.
pub(super) struct SampledColumns {
    pub(super) errors: Vec<String>,
    pub(super) codes: Option<(String, usize)>,
    pub(super) label: Option<String>,
}

impl SampledColumns {
    pub(super) fn from_schema(schema: &Schema) -> Self {
        let is_float =
            |field: &Field| matches!(field.data_type(), DataType::Float32 | DataType::Float64);
        let fields = || schema.fields().iter().map(AsRef::as_ref);
        let errors = fields()
            .filter(|field| error_columns().any(|name| name == field.name()) && is_float(field));
        let codes = || fields().filter_map(|field| Some((field.name().clone(), code_size(field)?)));
        let latent = codes()
            .find(|(name, _)| name == "latent")
            .or_else(|| codes().next());
        let is_label = |name: &&str| {
            schema
                .field_with_name(name)
                .is_ok_and(|field| !field.data_type().is_nested())
        };
        Self {
            errors: errors.map(|field| field.name().clone()).collect(),
            codes: latent,
            label: LABELS.into_iter().find(is_label).map(str::to_owned),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let codes = self.codes.iter().map(|(name, _)| name);
        let origin = [SOURCE, ROW, TOP_FEATURES].map(str::to_owned);
        self.errors
            .iter()
            .chain(codes)
            .chain(&self.label)
            .chain(&origin)
            .cloned()
            .collect()
    }
}

/// Returns the size of a column of vectors; `None` for other columns and for images.
fn code_size(field: &Field) -> Option<usize> {
    let DataType::FixedSizeList(item, size) = field.data_type() else {
        return None;
    };
    let plain = item.data_type() == &DataType::Float32 && PixelFormat::from_field(field).is_none();
    usize::try_from(*size)
        .ok()
        .filter(|&size| plain && size > 1 && field.extension_type_name().is_none())
}
