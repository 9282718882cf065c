//! Reactions to Ctrl-C and SIGTERM.

use std::path::PathBuf;
use std::time::Duration;

use super::stderr;
use crate::cli::exit::ExitCode;

/// Resolves at the first Ctrl-C or SIGTERM. A second signal ends the process immediately, and so
/// does the end of `grace`; `None` means no deadline. `action` describes the shutdown in the log.
pub(super) async fn shutdown_signal(action: &'static str, grace: Option<Duration>) {
    let mut signals = match ShutdownSignals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot install signal handlers; a signal ends the run without a commit"
            );
            return std::future::pending().await;
        }
    };
    let signal = signals.next().await;
    tracing::info!(
        signal,
        action,
        "received a signal to stop; a second signal ends the process immediately"
    );
    tokio::spawn(async move {
        let deadline = async {
            match grace {
                Some(grace) => tokio::time::sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            second = signals.next() => {
                tracing::error!(
                    signal = second,
                    "received a second signal; the process ends, and the next run repeats the \
                     uncommitted work"
                );
            }
            () = deadline => tracing::error!(
                "shutdown.grace has elapsed; the process ends, and the next run repeats the \
                 uncommitted work"
            ),
        }
        stderr::flush();
        std::process::exit(ExitCode::Killed as i32);
    });
}

/// The signals that stop a process.
struct ShutdownSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl ShutdownSignals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "registering can fail elsewhere")]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// Number of attempts to remove a folder to which another thread writes.
const REMOVE_ATTEMPTS: usize = 10;

/// Removes a temporary folder at the first signal, and ends the process. Until then, signals have
/// no other effect. Returns when signals are handled.
pub(super) fn remove_on_signal(folder: PathBuf) {
    let (handled, is_handled) = std::sync::mpsc::channel();
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let signals = ShutdownSignals::new();
            // The receiver waits.
            let _ = handled.send(());
            if let Ok(mut signals) = signals {
                signals.next().await;
                (0..REMOVE_ATTEMPTS).any(|_| std::fs::remove_dir_all(&folder).is_ok());
                stderr::flush();
                std::process::exit(ExitCode::Killed as i32);
            }
        });
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    match thread.spawn(wait) {
        // Without a message, the thread has ended, and signals end the process.
        Ok(_) => drop(is_handled.recv()),
        Err(error) => tracing::warn!(%error, "cannot start the thread that handles signals"),
    }
}
