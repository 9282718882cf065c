//! The sessions of a model, and the memory that they take.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use prometheus::Histogram;

use crate::error::StageError;
use crate::model::batch_limits::InferenceBatchLimits;
use crate::model::dynamic_batcher::DynamicBatcher;
use crate::model::files::{ModelFile, ModelPath, stamp};
use crate::model::ort_backend::LoadedGraph;
use crate::model::ort_backend::session::{InferenceMetrics, OrtSession};
use crate::model::session::chain::SessionChain;
use crate::model::session::{Session, SessionBackend};
use crate::model::tensor_spec::{TensorSpec, element_count};
use crate::model::{Model, session};

impl Model {
    pub(super) fn probe(&self, path: ModelPath, shape: &[usize]) -> Result<Vec<usize>, String> {
        let len = element_count(shape).filter(|&len| len <= MAX_PROBE_VALUES);
        let len = len.ok_or_else(|| format!("the shape {shape:?} is too large for a trial run"))?;
        let mut chain = self.chain(path).map_err(|error| error.to_string())?;
        let output_shape = chain.run(&vec![0.0; len], shape, &mut Vec::new());
        output_shape.map_err(|error| error.to_string())
    }

    /// Creates the sessions of a path, which run on one thread.
    ///
    /// # Errors
    /// When the model does not have this path, or a file cannot be loaded again.
    pub fn chain(&self, path: ModelPath) -> Result<SessionChain, StageError> {
        self.chain_with(path, &[])
    }

    /// As [`Model::chain`], with more outputs of the first file, whose values follow those of the
    /// path in each record.
    ///
    /// # Errors
    /// Those of [`Model::chain`].
    pub(crate) fn chain_with(
        &self,
        path: ModelPath,
        more: &[TensorSpec],
    ) -> Result<SessionChain, StageError> {
        let parts = self.files(path);
        let parts = parts.ok_or_else(|| {
            StageError::Model(format!("the model `{}` has no decoder", self.name))
        })?;
        let sessions = parts
            .into_iter()
            .zip(std::iter::once(more).chain(std::iter::repeat(&[] as &[TensorSpec])))
            .map(|(part, extra)| {
                let outputs: Vec<&TensorSpec> =
                    part.outputs_of(path).into_iter().chain(extra).collect();
                self.session(part, &outputs)
            })
            .collect::<Result<_, _>>()?;
        Ok(SessionChain::new(sessions))
    }

    fn session(&self, part: &ModelFile, outputs: &[&TensorSpec]) -> Result<Session, StageError> {
        if stamp(&part.path) != part.stamp {
            let path = part.path.display();
            return Err(StageError::Model(format!(
                "{path}: the file has changed since it was loaded; run again to use the new file"
            )));
        }
        let limits = self.call_limits(part, outputs);
        let backend = if self.runtime.shares_sessions() {
            let mut shared = self.shared.lock();
            let names = outputs.iter().map(|output| output.name.clone()).collect();
            let one = match shared.entry((part.role, names)) {
                Entry::Occupied(opened) => Arc::clone(opened.get()),
                Entry::Vacant(vacant) => {
                    let session = self.open_session(part, outputs)?;
                    let batcher = DynamicBatcher::new(session, limits, part.input.batch());
                    Arc::clone(vacant.insert(Arc::new(batcher)))
                }
            };
            SessionBackend::Shared(one)
        } else {
            SessionBackend::Own(self.open_session(part, outputs)?)
        };
        Ok(Session::new(backend, part.input.clone(), limits))
    }

    fn call_seconds(&self, part: &ModelFile) -> Histogram {
        self.metrics
            .models
            .call_seconds
            .with_label_values(&[self.name.as_str(), part.role])
    }

    /// The total call duration of the busiest shared session, in seconds; `None` if each worker has
    /// its own sessions.
    pub(crate) fn shared_seconds(&self) -> Option<f64> {
        let seconds = self
            .all_files()
            .map(|part| self.call_seconds(part).get_sample_sum());
        self.runtime
            .shares_sessions()
            .then(|| seconds.fold(0.0, f64::max))
    }

    pub(crate) fn call_limits(
        &self,
        part: &ModelFile,
        outputs: &[&TensorSpec],
    ) -> InferenceBatchLimits {
        let images = [&part.input]
            .into_iter()
            .chain(outputs.iter().copied())
            .any(|spec| spec.row_dims().is_some_and(|dims| dims.len() > 1));
        InferenceBatchLimits::new(&self.runtime, images)
    }

    fn open_session(
        &self,
        part: &ModelFile,
        outputs: &[&TensorSpec],
    ) -> Result<OrtSession, StageError> {
        let labels = [self.name.as_str(), part.role];
        let records = self.metrics.models.call_records.with_label_values(&labels);
        let metrics = InferenceMetrics {
            seconds: self.call_seconds(part),
            records,
        };
        let session = LoadedGraph::open(&part.path, &self.runtime)
            .and_then(|graph| OrtSession::new(graph, &part.input, outputs, metrics));
        session.map_err(|reason| StageError::Model(format!("{}: {reason}", part.path.display())))
    }

    /// Estimates the memory that a path needs in each worker for records of `len` values, in bytes,
    /// in addition to input and output.
    pub(crate) fn scratch_bytes(&self, path: ModelPath, len: usize) -> u64 {
        if self.runtime.shares_sessions() {
            return 0;
        }
        let scratch = |part: &&ModelFile| {
            let limits = self.call_limits(part, &part.outputs_of(path));
            session::scratch_bytes(limits, len, part.input.batch())
        };
        self.files(path)
            .unwrap_or_default()
            .iter()
            .map(scratch)
            .max()
            .unwrap_or_default()
    }

    /// Estimates the memory of the sessions, in bytes: per worker, and once for all workers. ONNX
    /// Runtime holds the weights twice: as stored, and packed for its kernels.
    pub(crate) fn session_bytes(&self) -> (u64, u64) {
        let weights = 2 * self.file_bytes();
        if !self.runtime.shares_sessions() {
            return (weights, 0);
        }
        let device = self.runtime.uses_device();
        let calls = self.all_files().map(|part| {
            let limits = self.call_limits(part, &[&part.output]);
            session::shared_bytes(device, limits, &part.input)
        });
        (0, calls.fold(weights, u64::saturating_add))
    }
}

/// The sessions that all workers share, by the role of their file and the names of their outputs.
pub(super) type SharedSessions =
    BTreeMap<(&'static str, Vec<String>), Arc<DynamicBatcher<OrtSession>>>;

/// The maximum number of values of a trial run: more than an RGB image of 100 megapixels.
const MAX_PROBE_VALUES: usize = 1 << 29;
