//! Graphs with inputs and outputs of any number and type, and the calls of their sessions.

mod check;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::StageError;
use crate::model::Model;
use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::files::{FileStamp, ModelNetwork, stamp};
use crate::model::graph::run::GraphBackend;
use crate::model::nondeterminism::NondeterministicOutputs;
use crate::model::ort_backend::graph_session::OrtGraphSession;
use crate::model::ort_backend::session::InferenceMetrics;
use crate::model::ort_backend::{LoadedGraph, OnnxGraph};
use crate::model::session;
use crate::model::tensor_spec::TensorSpec;

pub(crate) use crate::model::ort_backend::graph_session::RecordTensors;
pub(crate) use run::{GraphOutputs, GraphSession};

/// The graph of the first ONNX file of a model, with all of its inputs and outputs.
#[derive(Debug)]
pub(crate) struct GraphFile {
    /// `encoder` or `model`: the key in a pipeline, and the value of a metric label.
    pub(super) role: &'static str,
    /// The path of the file.
    pub(crate) path: PathBuf,
    /// The inputs without a default.
    pub(crate) inputs: Vec<TensorSpec>,
    /// All outputs.
    pub(crate) outputs: Vec<TensorSpec>,
    nondeterministic: NondeterministicOutputs,
    stamp: FileStamp,
}

impl GraphFile {
    pub(super) fn new(
        (role, path): (&'static str, &Path),
        graph: &OnnxGraph,
        nondeterministic: NondeterministicOutputs,
    ) -> Self {
        Self {
            role,
            path: path.to_path_buf(),
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            nondeterministic,
            stamp: stamp(path),
        }
    }

    /// The batch size, if an input fixes it.
    pub(crate) fn batch(&self) -> Option<usize> {
        self.inputs.iter().find_map(TensorSpec::batch)
    }
}

/// The sessions of a graph that all workers share, by the names of their outputs.
pub(super) type SharedGraphSessions = BTreeMap<Vec<String>, Arc<Mutex<OrtGraphSession>>>;

impl Model {
    /// The graph of the file, if the model is one ONNX file.
    pub(crate) fn graph(&self) -> Option<&GraphFile> {
        let has_decoder = matches!(
            self.network,
            ModelNetwork::Autoencoder {
                decoder: Some(_),
                ..
            }
        );
        self.graph.as_ref().filter(|_| !has_decoder)
    }

    /// Why the graph is neither an encoder nor a complete network; `None` if it is.
    pub(crate) fn unfit(&self) -> Option<&str> {
        match &self.network {
            ModelNetwork::Graph(reason) => Some(reason),
            _ => None,
        }
    }

    /// The limits of a call of the graph.
    pub(crate) fn graph_limits(&self, graph: &GraphFile) -> InferenceBatchLimits {
        let tensors = graph.inputs.iter().chain(&graph.outputs);
        let images = tensors
            .filter_map(TensorSpec::row_dims)
            .any(|dims| dims.len() > 1);
        InferenceBatchLimits::new(&self.runtime, images)
    }

    /// Estimates the memory that a call of the graph needs for records of `len` values, in bytes.
    pub(crate) fn graph_scratch_bytes(&self, graph: &GraphFile, len: usize) -> u64 {
        session::scratch_bytes(self.graph_limits(graph), len, graph.batch())
    }

    /// Creates a session that computes `outputs`. Shared sessions run one call at a time.
    ///
    /// # Errors
    /// If the file cannot be loaded again.
    pub(crate) fn graph_session(
        &self,
        graph: &GraphFile,
        outputs: &[TensorSpec],
    ) -> Result<GraphSession, StageError> {
        if stamp(&graph.path) != graph.stamp {
            let path = graph.path.display();
            return Err(StageError::Model(format!(
                "{path}: the file has changed since it was loaded; run again to use the new file"
            )));
        }
        let open = || {
            let labels = [self.name.as_str(), graph.role];
            let metrics = InferenceMetrics {
                seconds: self.metrics.models.call_seconds.with_label_values(&labels),
                records: self.metrics.models.call_records.with_label_values(&labels),
            };
            LoadedGraph::open(&graph.path, &self.runtime)
                .and_then(|loaded| OrtGraphSession::new(loaded, &graph.inputs, outputs, metrics))
                .map_err(|reason| StageError::Model(format!("{}: {reason}", graph.path.display())))
        };
        let backend = if self.runtime.shares_sessions() {
            let names = outputs.iter().map(|output| output.name.clone()).collect();
            let mut shared = self.shared_graphs.lock();
            let session = match shared.get(&names) {
                Some(session) => Arc::clone(session),
                None => {
                    let session = Arc::new(Mutex::new(open()?));
                    shared.insert(names, Arc::clone(&session));
                    session
                }
            };
            GraphBackend::Shared(session)
        } else {
            GraphBackend::Own(open()?)
        };
        let limits = self.graph_limits(graph);
        Ok(GraphSession::new(backend, graph.batch(), limits))
    }
}
