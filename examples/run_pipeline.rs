//! Runs a pipeline file to its end inside another program, and prints how it ended.
//!
//! ```sh
//! cargo run --example run_pipeline -- pipelines/quickstart.toml
//! ```

use std::path::Path;
use std::sync::Arc;

use latentflow::config;
use latentflow::metrics::Metrics;
use latentflow::plan;
use latentflow::sink::ChangePolicy;
use latentflow::topology::Topology;
use latentflow::topology::outcome::RunOutcome;

#[expect(clippy::print_stdout, reason = "the program prints its result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1);
    let path = path.unwrap_or_else(|| "pipelines/quickstart.toml".to_owned());
    let records = run(Path::new(&path))?;
    println!("{path}: {records} records");
    Ok(())
}

/// Runs a pipeline, and returns the number of records that its sources have read.
pub fn run(path: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    // The file, with the overrides of the environment; faults have their lines.
    let read = config::load::read(path, &[])?;
    let metrics = Arc::new(Metrics::new());
    // Schemas, model shapes and memory are fixed; no thread was started.
    let plan = plan::resolve(read, &metrics)?;
    // The outputs are claimed, and the rows of earlier runs are known.
    let topology = Topology::open(plan, metrics, ChangePolicy::Refuse)?;
    let stats = topology.stats();
    let runtime = tokio::runtime::Runtime::new()?;
    // The second argument ends the run early: a future that completes on a signal, for example.
    let outcome = runtime.block_on(topology.run(None, std::future::pending()));
    match outcome {
        RunOutcome::Finished => Ok(stats.records()),
        RunOutcome::Failed(failure) => Err(failure.into()),
        other => Err(format!("the run ended early: {other:?}").into()),
    }
}
