//! A network as a shape-checked list of steps: the single definition from which both the layers and
//! the ONNX nodes are built.

use crate::train::layer_spec::LayerSpec;
use crate::train::parameter::Parameter;
use crate::train::record_shape::RecordShape;

/// A list of steps whose shapes match, with its input and output shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sequential {
    layers: Vec<LayerSpec>,
    input: RecordShape,
    output: RecordShape,
}

impl Sequential {
    /// Checks that the output shape of each step matches the input shape of the next.
    ///
    /// # Errors
    /// Describes the first step that does not match.
    pub(in crate::train) fn new(
        input: RecordShape,
        layers: Vec<LayerSpec>,
    ) -> Result<Self, String> {
        let (mut shape, mut kept) = (input, Vec::new());
        for (index, step) in layers.iter().enumerate() {
            let next = step.after(shape, &mut kept);
            shape = next
                .map_err(|reason| format!("layer {index} ({step}) with input {shape}: {reason}"))?;
        }
        if !kept.is_empty() {
            return Err(format!(
                "number of stored values that are never added: {}",
                kept.len()
            ));
        }
        Ok(Self {
            layers,
            input,
            output: shape,
        })
    }

    /// Returns the steps.
    pub(crate) fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// Returns the input shape.
    pub fn input(&self) -> RecordShape {
        self.input
    }

    /// Returns the output shape.
    pub fn output(&self) -> RecordShape {
        self.output
    }

    /// Returns the parameters in the order of the steps: the weight of each layer, then its bias.
    pub fn parameters(&self) -> Vec<Parameter> {
        let of = |(index, step): (usize, &LayerSpec)| {
            step.parameters(
                index,
                self.layers.get(index + 1) == Some(&LayerSpec::AddSkip),
            )
        };
        self.layers.iter().enumerate().flat_map(of).collect()
    }

    /// Returns a readable line for each layer: a step together with the activation that follows it.
    pub fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for step in &self.layers {
            match (step, lines.last_mut()) {
                (LayerSpec::Activate(activation), Some(line)) => {
                    line.push_str(", ");
                    line.push_str(activation.as_str());
                }
                (LayerSpec::Flatten | LayerSpec::Unflatten { .. } | LayerSpec::SaveSkip, _) => {}
                (step, _) => lines.push(step.to_string()),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
