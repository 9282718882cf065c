//! The native module of the Python package: pipelines whose records Python reads and writes, and the
//! command line.

mod capsule;
mod engine;
mod evaluation;
mod model;
mod training;
mod watched;

use pyo3::prelude::*;

use capsule::{PyBatchReader, PyBatches, PySchema, schema_of, stream_of};
use engine::{Engine, NativePipelineError, NativeRunError};
use evaluation::evaluate_model;
use model::{NativeModel, copy_values, image_records, tensor_shapes};
use training::train_model;
use watched::{NativeArgumentError, NativeWorkError};

/// Runs the command line. `arguments` begins with the name of the program. Returns the exit code.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| {
        // The process is the program, and not that of another program that uses the package.
        latentflow::system::tune_allocator();
        latentflow::file_descriptors::raise_limit();
        let parsed = <latentflow::cli::Cli as clap::Parser>::try_parse_from(arguments);
        let exit = match parsed {
            Ok(parsed) => parsed.run(),
            Err(error) => {
                // The terminal may be closed.
                let _ = error.print();
                return u8::try_from(error.exit_code()).unwrap_or(2);
            }
        };
        let exit = exit.unwrap_or_else(|error| {
            let exit = latentflow::cli::exit::ExitCode::from_error(&error);
            latentflow::cli::exit::report_failure(&error, exit);
            exit
        });
        latentflow::cli::flush();
        exit as u8
    })
}

#[pymodule]
fn _latentflow(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Engine>()?;
    module.add_class::<NativeModel>()?;
    module.add_class::<PySchema>()?;
    module.add_class::<PyBatches>()?;
    module.add_class::<PyBatchReader>()?;
    module.add(
        "NativePipelineError",
        module.py().get_type::<NativePipelineError>(),
    )?;
    module.add("NativeRunError", module.py().get_type::<NativeRunError>())?;
    let argument_error = module.py().get_type::<NativeArgumentError>();
    module.add("NativeArgumentError", argument_error)?;
    module.add("NativeWorkError", module.py().get_type::<NativeWorkError>())?;
    module.add_function(wrap_pyfunction!(schema_of, module)?)?;
    module.add_function(wrap_pyfunction!(stream_of, module)?)?;
    module.add_function(wrap_pyfunction!(copy_values, module)?)?;
    module.add_function(wrap_pyfunction!(image_records, module)?)?;
    module.add_function(wrap_pyfunction!(tensor_shapes, module)?)?;
    module.add_function(wrap_pyfunction!(train_model, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate_model, module)?)?;
    module.add_function(wrap_pyfunction!(command, module)?)
}
