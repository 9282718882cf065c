//! Long work on a thread of its own, while the thread of Python reports its events and handles
//! signals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde_json::Value;

create_exception!(_latentflow, NativeArgumentError, PyValueError);
create_exception!(_latentflow, NativeWorkError, PyRuntimeError);

/// Interval at which signals are handled.
const INTERVAL: Duration = Duration::from_millis(100);

/// An event: its kind, and its fields as a JSON object.
pub type WatchedEvent = (&'static str, Value);

/// Receives the events of the work, and requests its end.
pub struct Watcher {
    events: Sender<WatchedEvent>,
    /// Becomes true if Python raised an exception, such as `KeyboardInterrupt`.
    pub stop: Arc<AtomicBool>,
}

impl Watcher {
    /// Reports an event.
    pub fn report(&self, kind: &'static str, fields: Value) {
        // The receiver lives until the work ends.
        let _ = self.events.send((kind, fields));
    }
}

/// Runs `work`, and calls `watch` with the kind and the JSON text of each of its events. If `watch`
/// or a signal handler raises an exception, `stop` becomes true, and the exception is returned after
/// the end of the work.
pub fn run_watched<T: Send>(
    py: Python<'_>,
    watch: &Bound<'_, PyAny>,
    work: impl FnOnce(&Watcher) -> T + Send,
) -> PyResult<T> {
    let (events, received) = channel();
    let received = Mutex::new(received);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = Watcher {
        events,
        stop: Arc::clone(&stop),
    };
    let (raised, result) = std::thread::scope(|scope| {
        let thread = scope.spawn(move || work(&watcher));
        let mut raised = None;
        loop {
            let next = py.detach(|| {
                let events = received.lock().unwrap_or_else(PoisonError::into_inner);
                events.recv_timeout(INTERVAL)
            });
            let handled = match next {
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => py.check_signals(),
                Ok(_) if raised.is_some() => Ok(()),
                Ok((kind, fields)) => py
                    .check_signals()
                    .and_then(|()| watch.call1((kind, fields.to_string())).map(drop)),
            };
            if let Err(error) = handled {
                stop.store(true, Ordering::Relaxed);
                raised.get_or_insert(error);
            }
        }
        (raised, py.detach(|| thread.join()))
    });
    match raised {
        Some(error) => Err(error),
        None => result.map_err(|_| PyRuntimeError::new_err("a thread panicked; this is a defect")),
    }
}
