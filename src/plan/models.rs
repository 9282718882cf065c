//! Opens the models of a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Diagnostics;
use crate::config::settings::PipelineConfig;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::metrics::Metrics;
use crate::model::{Model, ModelSpec, RuntimeSpec};
use crate::{model, registry};

/// Describes where the ONNX Runtime library of a pipeline is found, without loading it; `None` for
/// a pipeline without models.
pub fn library(read: &Result<PipelineConfig, Diagnostics>) -> Option<String> {
    let spec = read.as_ref().map_or_else(Diagnostics::partial_spec, Some)?;
    let (runtime, _) =
        registry::parse_options_lenient::<RuntimeSpec>(spec.settings.runtime.clone());
    if spec.models.is_empty() {
        None
    } else {
        model::ort_library::library(&runtime.unwrap_or_default())
    }
}

pub(super) fn open_models(
    spec: &PipelineConfig,
    runtime: &RuntimeSpec,
    metrics: &Arc<Metrics>,
    faults: &mut Vec<ConfigError>,
) -> BTreeMap<String, Option<Arc<Model>>> {
    let mut models = BTreeMap::new();
    let ready = if spec.models.is_empty() {
        Ok(())
    } else {
        model::ort_library::init(runtime)
    };
    if let Err(fault) = &ready {
        faults.push(fault.clone().within("runtime"));
    }
    for table in &spec.models {
        let (written, mut found) =
            registry::parse_options_lenient::<ModelSpec>(table.options.clone());
        let opened = match written {
            Some(written) if ready.is_ok() => {
                let opened = Model::open(&table.name, &written, runtime, metrics);
                found.record_all(opened).map(Arc::new)
            }
            _ => None,
        };
        let key = format!("models.{}", table.name);
        faults.extend(found.into_iter().map(|fault| fault.within(&key)));
        models.insert(table.name.clone(), opened);
    }
    models
}
