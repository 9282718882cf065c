//! The outputs of an ONNX file: their names, and the sizes of their records.

use crate::model::ort_backend::OnnxGraph;
use crate::model::same_layout;
use crate::model::tensor_selection::SelectionError;
use crate::model::tensor_spec::{Dim, TensorSpec, element_count};

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
pub(super) struct FileOutputs<'a> {
    all: &'a [TensorSpec],
    pub(super) record: &'a TensorSpec,
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
    pub(super) fn new(graph: &'a OnnxGraph, record: &'a TensorSpec) -> Self {
        Self {
            all: &graph.outputs,
            record,
        }
    }

    pub(super) fn named(
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

    pub(super) fn named_reconstruction(
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
                tensor_list(self.all)
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
    pub(super) fn plain_code(&self) -> Option<&'a TensorSpec> {
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
    pub(super) fn plain_reconstruction(&self) -> Option<&'a TensorSpec> {
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

    pub(super) fn has_record_shape(&self, output: &TensorSpec) -> bool {
        self.relative_size(output) == RelativeSize::Record
    }

    fn relative_size(&self, output: &TensorSpec) -> RelativeSize {
        let (Some(own), Some(record)) = (output.row_dims(), self.record.row_dims()) else {
            return RelativeSize::Other;
        };
        let batches = (output.batch(), self.record.batch());
        if !output.element.is_read_as_float32()
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

    pub(super) fn question(&self) -> String {
        let is_candidate = |spec: &TensorSpec| {
            !has_name(spec, &RECONSTRUCTION_NAMES)
                && self.code_candidates().any(|other| other.name == spec.name)
        };
        self.question_of("output", "code", is_candidate)
    }

    /// The message that requires an option, with a line to write. The example is the first output
    /// that satisfies `fits`, preferably one with several values, or else the first output.
    pub(super) fn question_of(
        &self,
        option: &str,
        what: &str,
        fits: impl Fn(&TensorSpec) -> bool,
    ) -> String {
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
            tensor_list(self.all)
        )
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.all.iter().map(|spec| spec.name.as_str()).collect();
        names.join(", ")
    }
}

pub(crate) fn tensor_list(tensors: &[TensorSpec]) -> String {
    let all: Vec<String> = tensors.iter().map(TensorSpec::to_string).collect();
    all.join(", ")
}

pub(super) fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
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
