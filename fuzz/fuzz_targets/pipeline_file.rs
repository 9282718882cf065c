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
    if let Err(problems) = &mut outcome {
        assert!(!problems.is_empty() && !problems.to_string().is_empty());
        match problems.take_partial() {
            Some(partial) => outcome = Ok(partial),
            None => return,
        }
    }
    // All paths become those of this target, and the models are removed, since a plan opens both.
    if let Ok(spec) = &mut outcome {
        spec.models.clear();
        spec.settings.runtime = serde_json::Value::Null;
        let input = file("in.csv", b"a,b\n1,x\n");
        let folder = input.parent().expect("a folder");
        let below = |name: &str| folder.join(name);
        let settings = &mut spec.settings;
        settings.state = settings.state.take().map(|_| below("state"));
        settings.rejects.path = settings.rejects.path.take().map(|_| below("rejects"));
        for stage in &mut spec.stages {
            let path = stage.options.get_mut("path");
            if let Some(path) = path.filter(|path| path.is_string()) {
                *path = input.to_str().expect("a name that is text").into();
            }
        }
    }
    if let Err(problems) = plan::check(outcome, &METRICS) {
        assert!(!problems.is_empty() && problems.to_string().contains("p.toml"));
    }
});
