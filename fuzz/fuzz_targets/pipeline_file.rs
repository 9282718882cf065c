//! Plans arbitrary text as a pipeline file: faults with their places, or a plan; never a panic or a
//! stack overflow.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use latentflow::metrics::Metrics;
use latentflow::{config, plan};
use latentflow_fuzz::file;
use libfuzzer_sys::fuzz_target;

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new()));

fuzz_target!(|text: &str| {
    let mut outcome = config::parse(Path::new("p.toml"), text, std::iter::empty(), &[]);
    match &mut outcome {
        Ok(spec) => restrict(spec),
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty());
            let partial = problems.take_partial();
            let Some(mut spec) = partial else { return };
            restrict(&mut spec);
            outcome = Ok(spec);
        }
    }
    if let Err(problems) = plan::check(outcome, &METRICS) {
        assert!(!problems.is_empty() && problems.to_string().contains("p.toml"));
    }
});

/// Replaces all paths by those of this target and removes the models, since a plan opens both.
fn restrict(spec: &mut config::PipelineConfig) {
    spec.models.clear();
    spec.settings.runtime = serde_json::Value::Null;
    let input = file("in.csv", b"a,b\n1,x\n");
    let folder = input.parent().expect("a folder").to_path_buf();
    spec.settings.state = spec.settings.state.take().map(|_| folder.join("state"));
    spec.settings.rejects.path = spec
        .settings
        .rejects
        .path
        .take()
        .map(|_| folder.join("rejects"));
    for stage in &mut spec.stages {
        if let Some(path) = stage
            .options
            .get_mut("path")
            .filter(|path| path.is_string())
        {
            *path = input.to_str().expect("a name that is text").into();
        }
    }
}
