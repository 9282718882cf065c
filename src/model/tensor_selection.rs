//! Selects the input of an ONNX file, and which of its outputs are the code and the reconstruction.

use crate::model::ort_backend::OnnxGraph;
use crate::model::same_layout;
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec, element_count};

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
            "has {} inputs, but a stage supplies only one: {}",
            graph.inputs.len(),
            list(&graph.inputs)
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
    if input.row_dims().is_none() || input.batch() == Some(0) {
        return Err(SelectionError::File(format!(
            "input {input} has no batch dimension, or a batch dimension of 0"
        )));
    }
    if input.batch().is_some_and(|batch| batch > MAX_BATCH) {
        return Err(SelectionError::File(format!(
            "input {input} fixes the batch size above the maximum of {MAX_BATCH} records"
        )));
    }
    Ok(input.clone())
}

fn check_output(
    input: &TensorSpec,
    output: &TensorSpec,
    outputs: &FileOutputs<'_>,
) -> Result<(), SelectionError> {
    if let ElementType::Other(_) = output.element {
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

/// Names of outputs that are the mean of the distribution of a VAE's code, as [`plain_name`]
/// writes them.
const MEAN_NAMES: [&str; 8] = [
    "mu",
    "mean",
    "zmu",
    "muz",
    "zmean",
    "meanz",
    "latentmu",
    "latentmean",
];
/// Other names of codes.
const CODE_NAMES: [&str; 10] = [
    "latent",
    "latents",
    "code",
    "codes",
    "z",
    "encoded",
    "encoding",
    "embedding",
    "embeddings",
    "bottleneck",
];
/// Names of reconstructions.
const RECONSTRUCTION_NAMES: [&str; 7] = [
    "recon",
    "reconstruction",
    "reconstructed",
    "decoded",
    "denoised",
    "xhat",
    "xrecon",
];

/// The outputs of a file, compared with the records that it takes, or that its encoder takes.
struct FileOutputs<'a> {
    all: &'a [TensorSpec],
    record: &'a TensorSpec,
}

/// The size of an output relative to that of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RelativeSize {
    /// The shape of a record, or one with the same layout.
    Record,
    /// Fewer values.
    Smaller,
    /// The file does not fix it.
    Unknown,
    /// As many values in another shape, more values, or not one tensor per record.
    Other,
}

impl<'a> FileOutputs<'a> {
    fn new(graph: &'a OnnxGraph, record: &'a TensorSpec) -> Self {
        Self {
            all: &graph.outputs,
            record,
        }
    }

    fn named(
        &self,
        option: &'static str,
        name: Option<&str>,
    ) -> Result<Option<&'a TensorSpec>, SelectionError> {
        let Some(name) = name else { return Ok(None) };
        let found = self.all.iter().find(|spec| spec.name == name);
        found.map(Some).ok_or_else(|| {
            let message = format!(
                "unknown output; the outputs of the file are: {}",
                self.names()
            );
            SelectionError::Option(option, message)
        })
    }

    fn named_reconstruction(
        &self,
        name: &str,
        has_decoder: bool,
    ) -> Result<&'a TensorSpec, SelectionError> {
        const OPTION: &str = "reconstruction";
        if has_decoder {
            let message = "the decoder already computes the reconstruction; remove this key or \
                           `decoder`";
            return Err(SelectionError::Option(OPTION, message.to_owned()));
        }
        let fault = |reason: String| {
            let message = format!(
                "{reason}; a reconstruction of {} has its shape and the type float16, float32 or \
                 float64; the outputs of the file are: {}",
                self.record,
                list(self.all)
            );
            SelectionError::Option(OPTION, message)
        };
        let found = self.named(OPTION, Some(name))?;
        let output = found.ok_or_else(|| fault("is missing".to_owned()))?;
        match self.relative_size(output) {
            RelativeSize::Record | RelativeSize::Unknown if output.element.is_float() => Ok(output),
            _ => Err(fault(format!("output {output} is not a reconstruction"))),
        }
    }

    /// The only output that is plainly the code: it has fewer values than a record (or an unknown
    /// number), more than one, and is not named as a variance. If there are several, the mean of a
    /// VAE if there is a variance as well, or else the only one with the name of a code. One value
    /// per record may be a loss or a score, so it needs such a name.
    fn plain_code(&self) -> Option<&'a TensorSpec> {
        let candidates: Vec<&TensorSpec> = self.code_candidates().collect();
        let (variances, others): (Vec<&TensorSpec>, Vec<&TensorSpec>) =
            candidates.into_iter().partition(|spec| is_variance(spec));
        let vectors = || others.iter().filter(|spec| spec.row_len() != Some(1));
        let means = || others.iter().filter(|spec| has_name(spec, &MEAN_NAMES));
        let codes = others
            .iter()
            .filter(|spec| has_name(spec, &MEAN_NAMES) || has_name(spec, &CODE_NAMES));
        only(vectors())
            .or_else(|| only(means()).filter(|_| !variances.is_empty()))
            .or_else(|| only(codes))
            .copied()
    }

    /// The only floating-point output with the shape of a record, or the only one of them with the
    /// name of a reconstruction.
    fn plain_reconstruction(&self) -> Option<&'a TensorSpec> {
        let candidates = || {
            let all = self.all.iter();
            all.filter(|spec| self.has_record_shape(spec) && spec.element.is_float())
        };
        let named = || candidates().filter(|spec| has_name(spec, &RECONSTRUCTION_NAMES));
        only(candidates()).or_else(|| only(named()))
    }

    fn code_candidates(&self) -> impl Iterator<Item = &'a TensorSpec> {
        self.all.iter().filter(|spec| {
            matches!(
                self.relative_size(spec),
                RelativeSize::Smaller | RelativeSize::Unknown
            )
        })
    }

    fn has_record_shape(&self, output: &TensorSpec) -> bool {
        self.relative_size(output) == RelativeSize::Record
    }

    fn relative_size(&self, output: &TensorSpec) -> RelativeSize {
        let (Some(own), Some(record)) = (output.row_dims(), self.record.row_dims()) else {
            return RelativeSize::Other;
        };
        let batches = (output.batch(), self.record.batch());
        if matches!(output.element, ElementType::Other(_))
            || matches!(batches, (Some(one), Some(other)) if one != other)
        {
            return RelativeSize::Other;
        }
        match (output.row_shape(), self.record.row_shape()) {
            (Some(own_shape), Some(record_shape)) => {
                let values = (element_count(&own_shape), element_count(&record_shape));
                match values {
                    _ if same_layout(&own_shape, &record_shape) => RelativeSize::Record,
                    (Some(own_values), Some(values)) if (1..values).contains(&own_values) => {
                        RelativeSize::Smaller
                    }
                    _ => RelativeSize::Other,
                }
            }
            _ if own.len() == record.len() => {
                let agree = |(one, other): (&_, &_)| same_dim(one, other);
                match own.iter().zip(record).all(agree) {
                    true => RelativeSize::Record,
                    false => RelativeSize::Unknown,
                }
            }
            _ => RelativeSize::Unknown,
        }
    }

    fn question(&self) -> String {
        let is_candidate = |spec: &TensorSpec| {
            !has_name(spec, &RECONSTRUCTION_NAMES)
                && self.code_candidates().any(|other| other.name == spec.name)
        };
        self.question_of("output", "code", is_candidate)
    }

    /// The message that requires an option, with a line to write. The example is the first output
    /// that satisfies `fits`, preferably one with several values, or else the first output.
    fn question_of(&self, option: &str, what: &str, fits: impl Fn(&TensorSpec) -> bool) -> String {
        let means = || self.all.iter().filter(|spec| !is_variance(spec));
        let fitting = || means().filter(|spec| fits(spec));
        let example = fitting()
            .find(|spec| spec.row_len() != Some(1))
            .or(fitting().next())
            .or(means().next())
            .or(self.all.first())
            .map_or("", |spec| spec.name.as_str());
        format!(
            "the file has several outputs, and it is not plain which of them is the {what} of {}: \
             {}; select it, such as `{option} = {example:?}`",
            self.record,
            list(self.all)
        )
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.all.iter().map(|spec| spec.name.as_str()).collect();
        names.join(", ")
    }
}

fn list(tensors: &[TensorSpec]) -> String {
    let all: Vec<String> = tensors.iter().map(TensorSpec::to_string).collect();
    all.join(", ")
}

fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

/// Whether two dimensions are fixed to one size, or both dynamic.
fn same_dim(one: &Dim, other: &Dim) -> bool {
    one.fixed() == other.fixed()
}

fn has_name(spec: &TensorSpec, names: &[&str]) -> bool {
    names.contains(&plain_name(spec).as_str())
}

fn is_variance(spec: &TensorSpec) -> bool {
    let name = plain_name(spec);
    ["logvar", "logsigma", "logstd", "variance"]
        .iter()
        .any(|part| name.contains(part))
        || ["var", "sigma", "std", "zvar", "zsigma", "zstd"].contains(&name.as_str())
}

/// The name without the path and the number that TensorFlow adds (`encoder/z_mean:0`), in lowercase
/// and without separators.
fn plain_name(spec: &TensorSpec) -> String {
    let name = spec.name.rsplit('/').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::expect;

    use super::*;

    /// A tensor of batches of any size; a dimension of 0 is dynamic.
    fn tensor(name: &str, element: ElementType, row: &[usize]) -> TensorSpec {
        let dim = |&size: &usize| match size {
            0 => Dim::Dynamic(None),
            size => Dim::Fixed(size),
        };
        let rows = row.iter().map(dim);
        TensorSpec {
            name: name.to_owned(),
            element,
            dims: std::iter::once(Dim::Dynamic(None)).chain(rows).collect(),
        }
    }

    fn graph(input: &[usize], outputs: &[(&str, &[usize])]) -> OnnxGraph {
        let outputs = outputs
            .iter()
            .map(|(name, row)| tensor(name, ElementType::Float32, row));
        OnnxGraph {
            inputs: vec![tensor("x", ElementType::Float32, input)],
            outputs: outputs.collect(),
        }
    }

    /// The selected code and reconstruction of an encoder, or the message of the refusal.
    fn encoder(graph: &OnnxGraph, output: Option<&str>, reconstruction: Option<&str>) -> String {
        let names = OutputNames {
            output,
            reconstruction,
        };
        match select_encoder(graph, names, true, false) {
            Ok(selected) => {
                let selected_name = selected.reconstruction.map(|spec| spec.name);
                format!(
                    "{} {}",
                    selected.output.name,
                    selected_name.unwrap_or_default()
                )
            }
            Err(SelectionError::Option(key, message)) => format!("{key}: {message}"),
            Err(SelectionError::File(message)) => message,
        }
    }

    #[test]
    fn plain_code_is_smaller_than_the_record_or_named() {
        let check = |input: &[usize], outputs: &[(&str, &[usize])], expected: &str| {
            assert_eq!(
                encoder(&graph(input, outputs), None, None),
                expected,
                "{outputs:?}"
            );
        };
        let small: &[usize] = &[2];
        let full: &[usize] = &[4];
        check(full, &[("y", small)], "y ");
        check(full, &[("y", &[9])], "y ");
        check(full, &[("y", full), ("h", small)], "h y");
        check(
            full,
            &[("recon", full), ("mu", small), ("logvar", small)],
            "mu recon",
        );
        check(
            full,
            &[
                ("z", small),
                ("encoder/z_mean:0", small),
                ("z_log_var", small),
            ],
            "encoder/z_mean:0 ",
        );
        check(full, &[("hidden", &[3]), ("Latent", small)], "Latent ");
        check(
            full,
            &[("code", &[1]), ("loss", &[1]), ("y", full)],
            "code y",
        );
        check(
            full,
            &[("code", small), ("aux", full), ("x_hat", full)],
            "code x_hat",
        );
        check(full, &[("code", small), ("a", full), ("b", full)], "code ");
        check(&[1, 28, 28], &[("y", &[784]), ("h", &[4, 2, 2])], "h y");
        // Images of any size, and a code of unknown size.
        check(&[3, 0, 0], &[("y", &[3, 0, 0]), ("h", &[16, 0, 0])], "h y");
        check(full, &[("y", full), ("h", &[0])], "h y");
    }

    #[test]
    fn option_is_required_if_no_output_is_plainly_the_code() {
        let check = |outputs: &[(&str, &[usize])], expected: expect_test::Expect| {
            expected.assert_eq(&encoder(&graph(&[4], outputs), None, None));
        };
        check(
            &[("5", &[2]), ("6", &[2]), ("4", &[4])],
            expect![[
                r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `5` float32 [?, 2], `6` float32 [?, 2], `4` float32 [?, 4]; select it, such as `output = "5"`"#
            ]],
        );
        check(
            &[("y", &[4]), ("score", &[1])],
            expect![[
                r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `y` float32 [?, 4], `score` float32 [?, 1]; select it, such as `output = "score"`"#
            ]],
        );
        check(
            &[("logvar", &[2]), ("wide", &[8])],
            expect![[
                r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [?, 4]: `logvar` float32 [?, 2], `wide` float32 [?, 8]; select it, such as `output = "wide"`"#
            ]],
        );
    }

    #[test]
    fn network_in_one_file_without_plain_code_reconstructs() {
        let two = graph(&[4], &[("5", &[2]), ("6", &[2]), ("y", &[4])]);
        let selected = select_encoder(&two, OutputNames::default(), false, false);
        let selected = selected.ok().unwrap();
        assert_eq!(selected.output.name, "y");
        assert!(selected.ambiguity.unwrap().contains("`output = \"5\"`"));
        let same = graph(&[4], &[("a", &[4]), ("b", &[4])]);
        assert!(select_encoder(&same, OutputNames::default(), false, false).is_err());
    }

    #[test]
    fn named_reconstruction_has_the_shape_of_the_record() {
        let outputs: &[(&str, &[usize])] = &[("mu", &[2]), ("a", &[4]), ("b", &[4])];
        let file = graph(&[4], outputs);
        assert_eq!(encoder(&file, None, Some("b")), "mu b");
        assert_eq!(encoder(&file, Some("a"), Some("b")), "a b");
        assert_eq!(encoder(&file, Some("a"), None), "a ");
        expect!["reconstruction: output `mu` float32 [?, 2] is not a reconstruction; a reconstruction of `x` float32 [?, 4] has its shape and the type float16, float32 or float64; the outputs of the file are: `mu` float32 [?, 2], `a` float32 [?, 4], `b` float32 [?, 4]"]
            .assert_eq(&encoder(&file, Some("a"), Some("mu")));
        expect!["reconstruction: unknown output; the outputs of the file are: mu, a, b"]
            .assert_eq(&encoder(&file, None, Some("c")));
        let mut bytes = graph(&[4], outputs);
        bytes.outputs[1].element = ElementType::Uint8;
        assert!(encoder(&bytes, None, Some("a")).starts_with("reconstruction: output `a` uint8"));
        let names = OutputNames {
            reconstruction: Some("a"),
            ..OutputNames::default()
        };
        let Err(SelectionError::Option(key, message)) = select_encoder(&file, names, true, true)
        else {
            panic!("accepted")
        };
        assert_eq!(
            (key, message.as_str()),
            (
                "reconstruction",
                "the decoder already computes the reconstruction; remove this key or `decoder`"
            )
        );
    }

    #[test]
    fn decoder_output_has_the_shape_of_the_record() {
        let record = tensor("x", ElementType::Float32, &[4]);
        let select = |outputs: &[(&str, &[usize])], name: Option<&str>| match select_decoder(
            &graph(&[2], outputs),
            name,
            &record,
        ) {
            Ok(selected) => selected.output.name,
            Err(SelectionError::Option(key, message)) => format!("{key}: {message}"),
            Err(SelectionError::File(message)) => message,
        };
        let (one, two): (&[usize], &[usize]) = (&[4], &[2]);
        assert_eq!(select(&[("h", two), ("y", one)], None), "y");
        assert_eq!(select(&[("h", two), ("y", one)], Some("h")), "h");
        expect![[r#"decoder_output: the file has several outputs, and it is not plain which of them is the reconstruction of `x` float32 [?, 4]: `a` float32 [?, 4], `b` float32 [?, 4]; select it, such as `decoder_output = "a"`"#]]
            .assert_eq(&select(&[("a", one), ("b", one)], None));
    }
}
