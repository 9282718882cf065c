//! The ONNX Runtime backend, the only file that uses `ort`: loads the library, reads the inputs and
//! outputs of graphs, and runs sessions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::environment::Environment;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{self, ExecutionProvider as _, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};
use prometheus::Histogram;

use crate::model::config::{ExecutionProvider, GraphOptimization, RuntimeSpec};
use crate::model::dynamic_batcher::RunBatch;
use crate::model::tensor_spec::{Dim, ElementType, TensorSpec};

/// The inputs and outputs of an ONNX file as ONNX Runtime reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxGraph {
    /// The required inputs. Inputs with a default are not included.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
}

/// An ONNX file that ONNX Runtime has loaded and optimized. It can compute any of its outputs.
pub struct LoadedGraph(ort::session::Session);

impl LoadedGraph {
    /// Loads the file.
    ///
    /// # Errors
    /// The message of ONNX Runtime when it cannot load the file, or does not support the settings.
    pub fn open(path: &Path, runtime: &RuntimeSpec) -> Result<Self, String> {
        let environment = {
            let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
            let loaded = loaded.as_ref().ok_or("ONNX Runtime is not loaded")?;
            loaded.environment.clone()
        };
        // `ort` panics on unknown types.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            builder(&environment, runtime).and_then(|mut builder| builder.commit_from_file(path))
        }));
        opened
            .map_err(|_| "uses unsupported types".to_owned())?
            .map(Self)
            .map_err(reason)
    }

    /// The inputs and outputs.
    pub fn describe(&self) -> OnnxGraph {
        let specs = |outlets: &[Outlet]| outlets.iter().map(tensor_spec_of).collect();
        OnnxGraph {
            inputs: specs(self.0.inputs()),
            outputs: specs(self.0.outputs()),
        }
    }
}

/// A session that runs one input to the selected outputs, on the thread that owns it.
pub struct OrtSession {
    session: ort::session::Session,
    run_options: RunOptions<HasSelectedOutputs>,
    input: String,
    element: ElementType,
    outputs: Vec<String>,
    bytes: Vec<u8>,
    halves: Vec<f16>,
    metrics: InferenceMetrics,
}

/// The metrics of the calls of a session.
pub struct InferenceMetrics {
    /// The duration of a call in seconds.
    pub seconds: Histogram,
    /// The number of records of a call.
    pub records: Histogram,
}

impl OrtSession {
    /// A session that computes `outputs`. `metrics` observes each call.
    ///
    /// # Errors
    /// The message of ONNX Runtime when it does not support the selection.
    pub fn new(
        LoadedGraph(session): LoadedGraph,
        input: &TensorSpec,
        outputs: &[&TensorSpec],
        metrics: InferenceMetrics,
    ) -> Result<Self, String> {
        let selector = outputs
            .iter()
            .fold(OutputSelector::no_default(), |selector, output| {
                selector.with(&output.name)
            });
        Ok(Self {
            session,
            run_options: RunOptions::new().map_err(reason)?.with_outputs(selector),
            input: input.name.clone(),
            element: input.element.clone(),
            outputs: outputs.iter().map(|output| output.name.clone()).collect(),
            bytes: Vec::new(),
            halves: Vec::new(),
            metrics,
        })
    }
}

impl RunBatch for OrtSession {
    /// For a uint8 input, values are rounded, and clamped to 0..255. Only pixels need the clamping:
    /// other values were checked. The values of several outputs follow each other in each record,
    /// whose shape is then the number of all values.
    fn run_batch(
        &mut self,
        dims: &[usize],
        values: &[f32],
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, String> {
        let begun = Instant::now();
        let value = match self.element {
            ElementType::Uint8 => {
                self.bytes.clear();
                self.bytes
                    .extend(values.iter().map(|value| value.round() as u8));
                TensorRef::from_array_view((dims, self.bytes.as_slice())).map(TensorRef::into_dyn)
            }
            ElementType::Float16 => {
                self.halves.resize(values.len(), f16::ZERO);
                self.halves.convert_from_f32_slice(values);
                TensorRef::from_array_view((dims, self.halves.as_slice())).map(TensorRef::into_dyn)
            }
            _ => TensorRef::from_array_view((dims, values)).map(TensorRef::into_dyn),
        };
        let inputs = ort::inputs![self.input.as_str() => value.map_err(reason)?];
        let outputs = self
            .session
            .run_with_options(inputs, &self.run_options)
            .map_err(reason)?;
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.records.observe(rows as f64);
        let batch = dims.first().copied().unwrap_or_default();
        let output = |name: &String| {
            let found = outputs.get(name);
            found.ok_or_else(|| format!("ONNX Runtime did not return the output `{name}`"))
        };
        if let [only] = self.outputs.as_slice() {
            return append_rows(output(only)?, batch, rows, out);
        }
        let mut columns = Vec::new();
        for name in &self.outputs {
            let mut column = Vec::new();
            append_rows(output(name)?, batch, rows, &mut column)?;
            columns.push(column);
        }
        let lens: Vec<usize> = columns
            .iter()
            .map(|column| column.len() / rows.max(1))
            .collect();
        for row in 0..rows {
            for (column, len) in columns.iter().zip(&lens) {
                out.extend_from_slice(&column[row * len..(row + 1) * len]);
            }
        }
        Ok(vec![lens.iter().sum()])
    }
}

/// Appends the outputs of the first `rows` of `batch` records to `out`. Returns the shape of one.
fn append_rows(
    output: &DynValue,
    batch: usize,
    rows: usize,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, String> {
    let ValueType::Tensor { ty, shape, .. } = output.dtype() else {
        return Err(format!(
            "the output has the type {}; expected a tensor",
            output.dtype()
        ));
    };
    let dims: Vec<usize> = shape
        .iter()
        .filter_map(|&dim| usize::try_from(dim).ok())
        .collect();
    let Some((&first, row)) = dims.split_first().filter(|(first, _)| **first == batch) else {
        return Err(format!(
            "the output has the shape {dims:?} for a batch of {batch} records; expected {batch} as \
             its first dimension"
        ));
    };
    let len = dims.iter().product::<usize>() / first.max(1) * rows;
    let short = || "the output has fewer values than its shape declares".to_owned();
    match ty {
        TensorElementType::Float32 => {
            let (_, values) = output.try_extract_tensor::<f32>().map_err(reason)?;
            out.extend_from_slice(values.get(..len).ok_or_else(short)?);
        }
        TensorElementType::Float64 => {
            let (_, values) = output.try_extract_tensor::<f64>().map_err(reason)?;
            out.extend(
                values
                    .get(..len)
                    .ok_or_else(short)?
                    .iter()
                    .map(|&value| value as f32),
            );
        }
        TensorElementType::Float16 => {
            let (_, values) = output.try_extract_tensor::<f16>().map_err(reason)?;
            let start = out.len();
            out.resize(start + len, 0.0);
            values
                .get(..len)
                .ok_or_else(short)?
                .convert_to_f32_slice(&mut out[start..]);
        }
        TensorElementType::Uint8 => {
            let (_, values) = output.try_extract_tensor::<u8>().map_err(reason)?;
            out.extend(
                values
                    .get(..len)
                    .ok_or_else(short)?
                    .iter()
                    .map(|&value| f32::from(value)),
            );
        }
        other => {
            return Err(format!(
                "the output has the element type {}; expected float16, float32, float64 or uint8",
                element_of(*other)
            ));
        }
    }
    Ok(row.to_vec())
}

/// The loaded library and its environment, which live until the process ends: a process cannot load
/// a second library.
static LOADED: Mutex<Option<LoadedLibrary>> = Mutex::new(None);

struct LoadedLibrary {
    library: PathBuf,
    environment: Environment,
}

/// The path of the loaded library; `None` if none has been loaded.
pub fn loaded() -> Option<PathBuf> {
    LOADED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|loaded| loaded.library.clone())
}

/// Loads the library, unless a library has already been loaded.
///
/// # Errors
/// The reason why this file is not a supported ONNX Runtime. Another file may then be tried.
pub fn load(library: &Path) -> Result<(), String> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.is_some() {
        return Ok(());
    }
    // `ort` panics on a library that exports the expected symbol but is not ONNX Runtime.
    let builder =
        catch_unwind(|| ort::init_from(library)).map_err(|_| "is not ONNX Runtime".to_owned())?;
    let builder = builder.map_err(load_reason)?;
    let environment = catch_unwind(AssertUnwindSafe(|| {
        builder
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
    }));
    let environment = environment
        .map_err(|_| "is not ONNX Runtime".to_owned())?
        .map_err(reason)?;
    // Without a level, ONNX Runtime calls the logger for messages of all levels.
    environment.set_log_level(LogLevel::Warning);
    *loaded = Some(LoadedLibrary {
        library: library.to_path_buf(),
        environment,
    });
    Ok(())
}

/// Logs a message of the library at debug level: each failure is also returned as an error.
fn log(_: LogLevel, _: &str, _: &str, place: &str, message: &str) {
    tracing::debug!(
        target: "onnxruntime",
        place,
        text = message.trim(),
        "ONNX Runtime logged a message"
    );
}

/// Whether the loaded library was built with this execution provider.
pub fn available(provider: ExecutionProvider) -> bool {
    let available = match provider {
        ExecutionProvider::Cpu => Ok(true),
        ExecutionProvider::Cuda => ep::CUDA::is_available(),
        ExecutionProvider::Tensorrt => ep::TensorRT::is_available(),
        ExecutionProvider::Openvino => ep::OpenVINO::is_available(),
        ExecutionProvider::Coreml => ep::CoreML::is_available(),
    };
    available.unwrap_or(false)
}

fn load_reason(error: ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            // The message of the error itself is only "dlopen failed".
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!(
                "cannot be loaded: {}",
                cause.unwrap_or_else(|| error.to_string())
            )
        }
        ort::LoadDynamicError::MissingApi { .. } => "is a library, but not ONNX Runtime".to_owned(),
        ort::LoadDynamicError::InvalidVersionString => "does not report its version".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!(
                "is ONNX Runtime {version_str}; expected 1.{} or later",
                ort::MINOR_VERSION
            )
        }
    }
}

fn builder(environment: &Environment, runtime: &RuntimeSpec) -> ort::Result<SessionBuilder> {
    let level = match runtime.optimization {
        GraphOptimization::All => GraphOptimizationLevel::All,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::None => GraphOptimizationLevel::Disable,
    };
    let providers: Vec<ExecutionProviderDispatch> = runtime
        .providers
        .iter()
        .map(|&provider| dispatch(provider))
        .collect();
    let builder = ort::session::Session::builder(environment)?
        .with_optimization_level(level)?
        .with_intra_threads(runtime.threads.get())?
        .with_intra_op_spinning(false)?
        // Patterns are kept for each shape of an input, so that images of any size fill the memory.
        .with_memory_pattern(false)?
        .with_execution_providers(providers)?;
    if runtime.providers.contains(&ExecutionProvider::Cpu) {
        Ok(builder)
    } else {
        Ok(builder.with_disable_cpu_fallback()?)
    }
}

fn dispatch(provider: ExecutionProvider) -> ExecutionProviderDispatch {
    let dispatch = match provider {
        // Without the arena, each call requests the memory of its activations from the system again,
        // page by page. The arena keeps the peak of a call, whose size is bounded.
        ExecutionProvider::Cpu => ep::CPU::default().with_arena_allocator(true).build(),
        // The default searches all algorithms for each new batch size, and batch sizes vary.
        ExecutionProvider::Cuda => ep::CUDA::default()
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .build(),
        ExecutionProvider::Tensorrt => ep::TensorRT::default().build(),
        ExecutionProvider::Openvino => ep::OpenVINO::default().build(),
        ExecutionProvider::Coreml => ep::CoreML::default().build(),
    };
    dispatch.error_on_failure()
}

fn tensor_spec_of(outlet: &Outlet) -> TensorSpec {
    let name = outlet.name().to_owned();
    let ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    } = outlet.dtype()
    else {
        return TensorSpec {
            name,
            element: ElementType::Other(outlet.dtype().to_string()),
            dims: vec![],
        };
    };
    let symbols = dimension_symbols
        .iter()
        .map(Some)
        .chain(std::iter::repeat(None));
    let dim = |(&size, symbol): (&i64, Option<&String>)| match usize::try_from(size) {
        Ok(size) => Dim::Fixed(size),
        Err(_) => Dim::Dynamic(symbol.filter(|text| !text.is_empty()).cloned()),
    };
    TensorSpec {
        name,
        element: element_of(*ty),
        dims: shape.iter().zip(symbols).map(dim).collect(),
    }
}

fn element_of(element: TensorElementType) -> ElementType {
    match element {
        TensorElementType::Float32 => ElementType::Float32,
        TensorElementType::Float64 => ElementType::Float64,
        TensorElementType::Uint8 => ElementType::Uint8,
        TensorElementType::Float16 => ElementType::Float16,
        TensorElementType::Bfloat16 => ElementType::Other("bfloat16".to_owned()),
        TensorElementType::Int32 => ElementType::Other("int32".to_owned()),
        TensorElementType::Int64 => ElementType::Other("int64".to_owned()),
        other => ElementType::Other(other.to_string().to_lowercase()),
    }
}

/// Returns the message of ONNX Runtime on one line, without the file name, which the caller adds.
fn reason<R>(error: ort::Error<R>) -> String {
    let message = error
        .message()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    match message.split_once(" failed:") {
        Some((start, reason)) if start.starts_with("Load model from ") => reason.trim().to_owned(),
        _ => message,
    }
}
