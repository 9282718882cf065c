//! Selects the input of an ONNX file, and which of its outputs are the code and the reconstruction.

pub(crate) mod file_outputs;

use crate::model::ort_backend::OnnxGraph;
use crate::model::tensor_selection::file_outputs::FileOutputs;
use crate::model::tensor_spec::{ElementType, TensorSpec};

pub(crate) use crate::model::tensor_selection::file_outputs::tensor_list;

/// The maximum batch size that a file may fix. Every call has this many records, including padding.
const MAX_BATCH: usize = 1 << 16;

/// The tensors of a file that a pipeline uses.
pub(super) struct SelectedTensors {
    pub(super) input: TensorSpec,
    /// The code, the reconstruction of a decoder, or the only result of a network in one file.
    pub(super) output: TensorSpec,
    /// The reconstruction, if the file returns a code as well.
    pub(super) reconstruction: Option<TensorSpec>,
    /// Why `output` is not the code of a network in one file: several outputs may be it.
    pub(super) ambiguity: Option<String>,
}

/// The outputs that the options of a model name.
#[derive(Clone, Copy, Default)]
pub(super) struct OutputNames<'a> {
    pub(super) output: Option<&'a str>,
    pub(super) reconstruction: Option<&'a str>,
}

/// Why the input or the outputs of a graph cannot be used.
pub(super) enum SelectionError {
    /// The option does not select an output that can be used, or has to select one.
    Option(&'static str, String),
    /// The file cannot be used in a pipeline.
    File(String),
}

/// Selects the tensors of an encoder or of a network in one file. A sole output is taken. Of several
/// outputs, those that no option names have to be plain: see [`FileOutputs::plain_code`] and
/// [`FileOutputs::plain_reconstruction`]. `has_decoder` is whether another file computes the
/// reconstruction.
pub(super) fn select_encoder(
    graph: &OnnxGraph,
    names: OutputNames<'_>,
    is_encoder: bool,
    has_decoder: bool,
) -> Result<SelectedTensors, SelectionError> {
    let input = select_input(graph)?;
    let outputs = FileOutputs::new(graph, &input);
    let named = match names.reconstruction {
        Some(name) => Some(outputs.named_reconstruction(name, has_decoder)?),
        None => None,
    };
    let plain = || match has_decoder {
        true => None,
        false => outputs.plain_reconstruction(),
    };
    let explicit = outputs.named("output", names.output)?;
    let (output, reconstruction, ambiguity) = match (explicit, graph.outputs.as_slice()) {
        // A named output with the shape of the input may itself be the reconstruction.
        (Some(output), _) if outputs.has_record_shape(output) => (output, named, None),
        (Some(output), _) => (output, named.or_else(plain), None),
        (None, [sole]) => (sole, named, None),
        (None, _) => match (outputs.plain_code(), named, plain()) {
            (Some(code), named, plain) => (code, named.or(plain), None),
            (None, None, Some(result)) if !is_encoder => (result, None, Some(outputs.question())),
            _ => return Err(SelectionError::Option("output", outputs.question())),
        },
    };
    check_output(&input, output, &outputs)?;
    Ok(SelectedTensors {
        output: output.clone(),
        reconstruction: reconstruction
            .filter(|reconstruction| reconstruction.name != output.name)
            .cloned(),
        ambiguity,
        input,
    })
}

/// Selects the tensors of a decoder of records with the specification `record`: of several outputs,
/// the only one with the shape of a record.
pub(super) fn select_decoder(
    graph: &OnnxGraph,
    name: Option<&str>,
    record: &TensorSpec,
) -> Result<SelectedTensors, SelectionError> {
    let input = select_input(graph)?;
    let outputs = FileOutputs::new(graph, record);
    let output = match (
        outputs.named("decoder_output", name)?,
        graph.outputs.as_slice(),
    ) {
        (Some(output), _) | (None, [output]) => output,
        (None, _) => outputs.plain_reconstruction().ok_or_else(|| {
            let message = outputs.question_of("decoder_output", "reconstruction", |_| true);
            SelectionError::Option("decoder_output", message)
        })?,
    };
    check_output(&input, output, &outputs)?;
    Ok(SelectedTensors {
        output: output.clone(),
        reconstruction: None,
        ambiguity: None,
        input,
    })
}

fn select_input(graph: &OnnxGraph) -> Result<TensorSpec, SelectionError> {
    let [input] = graph.inputs.as_slice() else {
        let message = format!(
            "has {} inputs, but an encoder or a complete network has one: {}",
            graph.inputs.len(),
            tensor_list(&graph.inputs)
        );
        return Err(SelectionError::File(message));
    };
    if !matches!(
        input.element,
        ElementType::Float32 | ElementType::Float16 | ElementType::Uint8
    ) {
        return Err(SelectionError::File(format!(
            "input {input} has an unsupported element type; expected float32, float16 or uint8"
        )));
    }
    check_batch(input).map_err(SelectionError::File)?;
    Ok(input.clone())
}

/// Checks that the first dimension of an input can be the batch.
///
/// # Errors
/// The fault as a phrase.
pub(super) fn check_batch(input: &TensorSpec) -> Result<(), String> {
    if input.row_dims().is_none() || input.batch() == Some(0) {
        return Err(format!(
            "input {input} has no batch dimension, or a batch dimension of 0"
        ));
    }
    if input.batch().is_some_and(|batch| batch > MAX_BATCH) {
        return Err(format!(
            "input {input} fixes the batch size above the maximum of {MAX_BATCH} records"
        ));
    }
    Ok(())
}

fn check_output(
    input: &TensorSpec,
    output: &TensorSpec,
    outputs: &FileOutputs<'_>,
) -> Result<(), SelectionError> {
    if !output.element.is_read_as_float32() {
        let message = format!(
            "output {output} has an unsupported element type; expected float16, float32, float64 \
             or uint8; the outputs of the file are: {}",
            outputs.names()
        );
        return Err(SelectionError::File(message));
    }
    match (input.batch(), output.batch()) {
        (Some(taken), Some(given)) if taken != given => {
            let message = format!(
                "the input has a batch size of {taken} records, but the output {given}: {input} \
                 and {output}"
            );
            Err(SelectionError::File(message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
