//! Runs a few records through a model when it is loaded, to find models that fail on every record,
//! and models that return different values for the same record, whose cause the operators alone do
//! not show.

use prometheus::{Histogram, HistogramOpts};

use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::config::RuntimeSpec;
use crate::model::files::{ModelFile, ModelPath};
use crate::model::load::files::LoadedGraphs;
use crate::model::ort_backend::LoadedGraph;
use crate::model::ort_backend::session::{InferenceMetrics, OrtSession};
use crate::model::session::{Session, SessionBackend};
use crate::model::tensor_spec::{ElementType, TensorSpec, element_count};
use crate::model::{ImageInput, Model};

/// The maximum number of values of a record of a trial run, so that loading stays fast: an RGB
/// image of 256x256.
pub(super) const MAX_VALUES: usize = 3 << 16;

/// The side of an image of a trial run, if the model takes any size.
const IMAGE_SIDE: usize = 32;

/// The difference of two values, relative to the largest value of the record, that is attributed to
/// the order of additions.
pub(super) const TOLERANCE: f32 = 1e-5;

/// Runs a record of zeros through each file of a model, and another record twice, each time among
/// other records. Returns the first file that fails on zeros or returns different values, and a
/// description. A file that cannot be run for another reason passes.
///
/// `graphs` are the files that are loaded for the CPU. The others are loaded here, because a device
/// may add in another order each time.
pub(super) fn fault<'a>(
    model: &'a Model,
    runtime: &RuntimeSpec,
    mut graphs: LoadedGraphs,
) -> Option<(&'a ModelFile, String)> {
    let image_shape = model.image_input().map(|ImageInput { format, size, .. }| {
        let side = IMAGE_SIDE.next_multiple_of(model.size_multiple());
        let (height, width) = size.unwrap_or((side, side));
        format.shape(height, width)
    });
    let input_shape = model.input_shape().or(image_shape)?;
    let decoder = model.files(ModelPath::Decode).unwrap_or_default();
    let code_shape = model.code_size().map(|size| vec![size]);
    let encoders = model.files(ModelPath::Encode)?.into_iter();
    let files = encoders
        .map(|file| (file, Some(input_shape.clone())))
        .chain(decoder.into_iter().map(|file| (file, code_shape.clone())));
    for (file, shape) in files {
        let graph = graphs.remove(file.role);
        let found = shape.and_then(|shape| file_fault(model, file, &shape, graph, runtime));
        if let Some(fault) = found {
            return Some((file, fault));
        }
    }
    None
}

fn file_fault(
    model: &Model,
    file: &ModelFile,
    shape: &[usize],
    graph: Option<LoadedGraph>,
    runtime: &RuntimeSpec,
) -> Option<String> {
    let len = element_count(shape).filter(|&len| (1..=MAX_VALUES).contains(&len))?;
    let outputs: Vec<&TensorSpec> = file.taken().collect();
    let graph = graph.map_or_else(|| load_for_cpu(file, runtime), Ok).ok()?;
    let mut session = session(graph, file, &outputs, model.call_limits(file, &outputs)).ok()?;
    let record = trial_record(&file.input, len, 1);
    // A model that takes images of any size may require larger ones.
    if file.input.row_shape().is_some()
        && let Err(reason) = session.run(&vec![0.0; len], shape, &mut Vec::new())
    {
        return Some(format!("the model fails on zeros: {reason}"));
    }
    let mut run = |others: &[f32]| {
        let mut values = Vec::new();
        // The record is in the middle, since it may depend only on those before or after it.
        let records = [others, &record, others].concat();
        session.run(&records, shape, &mut values).ok()?;
        let row = values.len() / 3;
        values.get(row..2 * row).map(<[f32]>::to_vec)
    };
    let (zeros, others) = (vec![0.0; len], trial_record(&file.input, len, 2));
    let first = run(&zeros)?;
    if same_values(&first, &run(&others)?) {
        return None;
    }
    let cause = if same_values(&first, &run(&zeros)?) {
        "depends on the other records of its batch; no operator may combine records, such as a \
         mean over the first dimension; export the model with a batch size of 1"
    } else {
        "differs between two runs; export the model without random numbers"
    };
    Some(format!(
        "the output `{}` of a record {cause}, or set `allow_nondeterministic = true`",
        file.output.name
    ))
}

fn load_for_cpu(file: &ModelFile, runtime: &RuntimeSpec) -> Result<LoadedGraph, String> {
    let settings = RuntimeSpec {
        optimization: runtime.optimization,
        ..RuntimeSpec::default()
    };
    LoadedGraph::open(&file.path, &settings)
}

/// A session whose calls are not counted in the metrics of the run.
fn session(
    graph: LoadedGraph,
    file: &ModelFile,
    outputs: &[&TensorSpec],
    limits: InferenceBatchLimits,
) -> Result<Session, String> {
    let histogram = || {
        Histogram::with_opts(HistogramOpts::new("trial_run", "trial run"))
            .map_err(|error| error.to_string())
    };
    let metrics = InferenceMetrics {
        seconds: histogram()?,
        records: histogram()?,
    };
    let session = OrtSession::new(graph, &file.input, outputs, metrics)?;
    Ok(Session::new(
        SessionBackend::Own(session),
        file.input.clone(),
        limits,
    ))
}

/// A record of `len` different values from 0 to `scale`, or of bytes.
fn trial_record(input: &TensorSpec, len: usize, scale: u8) -> Vec<f32> {
    let byte = |index: usize| {
        let mixed = (index as u32 + u32::from(scale)).wrapping_mul(0x9e37_79b1);
        f32::from((mixed >> 24) as u8)
    };
    let unit = match input.element {
        ElementType::Uint8 => 1.0,
        _ => f32::from(scale) / 255.0,
    };
    (0..len).map(|index| byte(index) * unit).collect()
}

/// Whether two outputs are equal up to rounding. Values that are not finite have to be identical.
fn same_values(one: &[f32], other: &[f32]) -> bool {
    let largest = one
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let same =
        |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= TOLERANCE * largest;
    one.len() == other.len() && one.iter().zip(other).all(same)
}
