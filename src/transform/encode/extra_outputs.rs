//! The outputs of an encoder other than the code, as columns of their own.

use std::collections::BTreeMap;

use crate::error::config_error::ConfigError;
use crate::model::Model;
use crate::model::files::ModelPath;
use crate::model::tensor_selection::tensor_list;
use crate::model::tensor_spec::{ElementType, TensorSpec};
use crate::registry::did_you_mean;
use crate::transform::encode::input::fixed_dims;
use crate::transform::tensor_column::output::{NamedSizes, OutputColumn};

/// The outputs other than the code: their tensors in the file, and their columns.
#[derive(Default)]
pub(super) struct ExtraOutputs {
    pub(super) tensors: Vec<TensorSpec>,
    pub(super) columns: Vec<OutputColumn>,
}

impl ExtraOutputs {
    /// Checks the option `outputs`, which names the output of each new column. `to` is the column of
    /// the code, and `row` the shape of every record, if it is fixed.
    ///
    /// # Errors
    /// Faults at `outputs`.
    pub(super) fn plan(
        model: &Model,
        outputs: &BTreeMap<String, String>,
        to: &str,
        row: Option<&[usize]>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut extras = Self::default();
        let files = model.files(ModelPath::Encode).unwrap_or_default();
        let (Some(file), false) = (files.first(), outputs.is_empty()) else {
            return Ok(extras);
        };
        let mut faults = Vec::new();
        let mut names = Vec::new();
        let known: Vec<&str> = file.outputs.iter().map(|spec| spec.name.as_str()).collect();
        for (column, tensor) in outputs {
            let found = file.outputs.iter().find(|spec| spec.name == *tensor);
            let fault = match found {
                None => format!(
                    "the encoder has no output `{tensor}`{}; its outputs are: {}",
                    did_you_mean(tensor, &known),
                    tensor_list(&file.outputs)
                ),
                Some(spec) if column == to && *spec == file.output => continue,
                Some(_) if column == to => format!(
                    "`{column}` is the column of the code, which is the output {}; set `output = \
                     {tensor:?}` in [models.{}], or choose another name",
                    file.output,
                    model.name()
                ),
                Some(spec) if !spec.element.is_read_as_float32() => format!(
                    "output {spec} does not hold floating-point numbers; run the file in a stage \
                     of kind `onnx`"
                ),
                Some(spec) => {
                    extras.tensors.push(spec.clone());
                    names.push(column);
                    continue;
                }
            };
            faults.push(ConfigError::new("outputs", fault));
        }
        let at_outputs = |message: String| vec![ConfigError::new("outputs", message)];
        if !faults.is_empty() {
            return Err(faults);
        }
        let shapes = match row {
            Some(row) if !extras.tensors.is_empty() => {
                let shapes = model.check_encoder_outputs(&extras.tensors, row);
                shapes.map_err(|reason| at_outputs(format!("{}: {reason}", file.path.display())))?
            }
            _ => None,
        };
        for (index, (name, spec)) in names.into_iter().zip(&extras.tensors).enumerate() {
            let trial = shapes
                .as_ref()
                .and_then(|shapes| shapes.get(index).cloned());
            let shape = spec.row_shape().or(trial).ok_or_else(|| {
                at_outputs(format!(
                    "output {spec} has no fixed shape for a record; run the file in a stage of \
                     kind `onnx`"
                ))
            })?;
            let fixed = TensorSpec {
                name: spec.name.clone(),
                element: ElementType::Float32,
                dims: fixed_dims(&shape),
            };
            let column = OutputColumn::new(name, (index, &fixed), &NamedSizes::new(), None);
            extras.columns.push(column.map_err(at_outputs)?);
        }
        Ok(extras)
    }

    /// The number of values of each output.
    pub(super) fn lens(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(OutputColumn::values)
    }
}
