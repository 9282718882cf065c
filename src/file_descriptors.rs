//! File descriptors of the process: raises their limit at startup, and makes a run without an end
//! wait if none is free.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::io::Errno;

/// Pause before the second attempt; each later pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Maximum pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether the process waits for a free descriptor; otherwise an attempt fails if none is free.
static WAITS: AtomicBool = AtomicBool::new(false);

/// Raises the limit on open files to the maximum that the process may set without privileges. If
/// that fails, the limit stays.
pub fn raise_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            // macOS refuses values above a limit of its own.
            let _ = setrlimit(
                Resource::Nofile,
                Rlimit {
                    current: limit.maximum,
                    ..limit
                },
            );
        }
    }
}

/// Makes [`open`] wait from now on: a run without an end survives a lack of descriptors.
pub(crate) fn wait_for_free() {
    WAITS.store(true, Relaxed);
}

/// Opens a file or connection. If no descriptor is free and the run has no end, blocks until one is
/// free.
///
/// # Errors
/// Returns the error of `open`.
pub fn open<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    open_within(WAITS.load(Relaxed), std::thread::sleep, open)
}

fn open_within<T>(
    waits: bool,
    mut sleep: impl FnMut(Duration),
    mut open: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        match open() {
            Err(error) if waits && is_exhausted(&error) => {
                tracing::warn!(
                    %error,
                    retry_ms = %pause.as_millis(),
                    "no file descriptor is free; retrying"
                );
                sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Whether the process or the system has no free descriptor.
fn is_exhausted(error: &io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    cfg!(unix) && (is(Errno::MFILE) || is(Errno::NFILE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Opens at the third attempt; returns the attempts, the result, and the sum of the pauses.
    fn attempts(waits: bool, errno: Errno) -> (u32, io::Result<u32>, Duration) {
        let (mut attempts, mut slept) = (0, Duration::ZERO);
        let opened = open_within(
            waits,
            |pause| slept += pause,
            || {
                attempts += 1;
                if attempts < 3 {
                    Err(errno.into())
                } else {
                    Ok(attempts)
                }
            },
        );
        (attempts, opened, slept)
    }

    #[test]
    fn endless_run_waits_for_a_descriptor() {
        let (attempts, opened, slept) = attempts(true, Errno::MFILE);
        assert_eq!((attempts, opened.unwrap(), slept), (3, 3, FIRST_PAUSE * 3));
    }

    #[test]
    fn batch_run_and_other_errors_do_not_wait() {
        for (waits, errno) in [(false, Errno::MFILE), (true, Errno::ACCESS)] {
            let (attempts, opened, slept) = attempts(waits, errno);
            assert_eq!((attempts, slept), (1, Duration::ZERO));
            assert_eq!(
                opened.unwrap_err().raw_os_error(),
                Some(errno.raw_os_error())
            );
        }
    }
}
