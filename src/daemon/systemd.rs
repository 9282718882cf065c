//! Tells systemd how the process is: ready, alive, and in a line what it does (`sd_notify(3)`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::topology::RunStats;

/// How often the line is told, where no watchdog asks for more.
const EVERY: Duration = Duration::from_secs(5);
/// How often it is asked whether the run is ready.
const READY_EVERY: Duration = Duration::from_millis(50);

/// The socket that systemd listens on.
#[derive(Clone)]
pub(super) struct SystemdNotifier {
    #[cfg(unix)]
    socket: Arc<std::os::unix::net::UnixDatagram>,
    /// Failures that were told in the log.
    failures: Arc<AtomicUsize>,
}

impl SystemdNotifier {
    /// `None` where nobody listens.
    #[cfg(unix)]
    pub(super) fn of_environment() -> Option<Self> {
        use std::os::unix::net::UnixDatagram;
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        let connected = UnixDatagram::unbound().and_then(|socket| {
            connect(&socket, &name)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => Some(Self {
                socket: Arc::new(socket),
                failures: Arc::default(),
            }),
            Err(error) => {
                tracing::warn!(
                    "{}: nobody can be told how the process is: {error}",
                    name.to_string_lossy()
                );
                None
            }
        }
    }

    #[cfg(not(unix))]
    pub(super) fn of_environment() -> Option<Self> {
        None
    }

    /// Sends lines of `KEY=value`.
    pub(super) fn notify(&self, text: &str) {
        #[cfg(unix)]
        if let Err(error) = self.socket.send(text.as_bytes())
            && self.failures.fetch_add(1, Relaxed) == 0
        {
            tracing::warn!(%error, "systemd cannot be told how the process is");
        }
        #[cfg(not(unix))]
        let _ = (text, self.failures.load(Relaxed));
    }
}

/// A name that begins with `@` is no file, but an abstract one.
#[cfg(unix)]
fn connect(
    socket: &std::os::unix::net::UnixDatagram,
    name: &std::ffi::OsStr,
) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?);
    }
    socket.connect(name)
}

/// Half of the time after which systemd takes a process for dead that says nothing.
fn watchdog() -> Option<Duration> {
    let ours = std::env::var("WATCHDOG_PID")
        .ok()
        .is_none_or(|pid| pid == std::process::id().to_string());
    let micros: u64 = std::env::var("WATCHDOG_USEC")
        .ok()
        .filter(|_| ours)?
        .parse()
        .ok()?;
    Some(Duration::from_micros(micros / 2)).filter(|half| !half.is_zero())
}

/// Says when the run is ready, and from then on that it is alive.
pub(super) async fn run_watchdog(notifier: SystemdNotifier, stats: Arc<RunStats>) {
    while !stats.is_ready() {
        tokio::time::sleep(READY_EVERY).await;
    }
    notifier.notify("READY=1");
    let (every, mut before) = (watchdog().unwrap_or(EVERY).min(EVERY), stats.records());
    loop {
        tokio::time::sleep(every).await;
        let (records, rejects) = (stats.records(), stats.rejects());
        let rate = (records - before) as f64 / every.as_secs_f64();
        notifier.notify(&format!(
            "WATCHDOG=1\nSTATUS={records} records, {rate:.0}/s, {rejects} rejected"
        ));
        before = records;
    }
}
