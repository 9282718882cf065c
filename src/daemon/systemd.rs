//! Notifications to systemd: readiness, watchdog keep-alives and a status line (`sd_notify(3)`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::topology::RunStats;

/// Maximum interval between status lines; a watchdog may require a shorter one.
const EVERY: Duration = Duration::from_secs(5);
/// Interval at which readiness is polled before it is reported.
const READY_EVERY: Duration = Duration::from_millis(50);

/// The connection to the notification socket of systemd.
#[derive(Clone)]
pub(super) struct SystemdNotifier {
    #[cfg(unix)]
    socket: Arc<std::os::unix::net::UnixDatagram>,
    /// Number of failed sends, of which only the first is logged.
    failures: Arc<AtomicUsize>,
}

impl SystemdNotifier {
    /// `None` if `NOTIFY_SOCKET` is not set or cannot be connected to.
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
                    socket = %name.to_string_lossy(),
                    %error,
                    "cannot connect to NOTIFY_SOCKET"
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
            tracing::warn!(%error, "cannot send a notification to systemd");
        }
        #[cfg(not(unix))]
        let _ = (text, self.failures.load(Relaxed));
    }
}

/// Connects to the socket; a name that begins with `@` is an abstract address, not a path.
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

/// Half of the interval after which systemd kills a process that sends no keep-alive; `None`
/// without a watchdog.
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

/// Reports readiness once the run is ready, and sends keep-alives and the status line from then on.
pub(super) async fn run_watchdog(notifier: SystemdNotifier, stats: Arc<RunStats>) {
    while !stats.is_ready() {
        tokio::time::sleep(READY_EVERY).await;
    }
    notifier.notify("READY=1");
    let (every, mut before) = (watchdog().unwrap_or(EVERY).min(EVERY), stats.done());
    loop {
        tokio::time::sleep(every).await;
        let (records, rejects) = (stats.done(), stats.rejects());
        let rate = (records - before) as f64 / every.as_secs_f64();
        notifier.notify(&format!(
            "WATCHDOG=1\nSTATUS={records} records, {rate:.0}/s, {rejects} rejected"
        ));
        before = records;
    }
}
