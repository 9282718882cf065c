//! The ONNX Runtime backend, the only file that uses `ort`: loads the library, reads the inputs and
//! outputs of graphs, and runs sessions.

pub mod library;
pub(crate) mod graph_session;
pub(crate) mod session;
pub(crate) mod tensor_values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::model::config::{ExecutionProvider, GraphOptimization, RuntimeSpec};
use crate::model::ort_backend::library::{LOADED, dispatch};
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
    pub(in crate::model) fn open(path: &Path, runtime: &RuntimeSpec) -> Result<Self, String> {
        let environment = {
            let loaded = LOADED.lock();
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
        TensorElementType::Int8 => ElementType::Int8,
        TensorElementType::Int16 => ElementType::Int16,
        TensorElementType::Int32 => ElementType::Int32,
        TensorElementType::Int64 => ElementType::Int64,
        TensorElementType::Uint16 => ElementType::Uint16,
        TensorElementType::Uint32 => ElementType::Uint32,
        TensorElementType::Uint64 => ElementType::Uint64,
        TensorElementType::Bool => ElementType::Bool,
        TensorElementType::String => ElementType::String,
        TensorElementType::Bfloat16 => ElementType::Other("bfloat16".to_owned()),
        other => ElementType::Other(other.to_string().to_lowercase()),
    }
}

/// Options of a run that computes these outputs only.
///
/// # Errors
/// The message of ONNX Runtime when it does not support the selection.
fn selected_outputs<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<RunOptions<HasSelectedOutputs>, String> {
    let selector = names.fold(OutputSelector::no_default(), OutputSelector::with);
    Ok(RunOptions::new().map_err(reason)?.with_outputs(selector))
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
