//! The log of the models that a run opens and closes.

use std::sync::Arc;

use crate::model::Model;

pub(crate) fn log_closed(models: &[Arc<Model>]) {
    for model in models {
        let (name, digest) = (model.name(), model.digest());
        tracing::info!(model = name, digest, "model closed");
    }
}

pub(super) fn log_opened(models: &[Arc<Model>]) {
    for model in models {
        let (name, kind, digest) = (model.name(), model.kind(), model.digest());
        tracing::info!(model = name, kind, digest, "model opened");
    }
}
