//! What the system tells of a folder that is watched: which files are complete, which are gone, which folders have come.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::source::listing::Watched;

/// Notices that wait to be heard; when there are more, the folder is looked through instead.
const WAITING: usize = 65_536;

/// Something has happened to a path.
pub(super) enum Notice {
    /// It was closed by who wrote it, moved, or removed: what is there now is complete.
    Changed(PathBuf),
    /// It is a folder that was made.
    Folder(PathBuf),
}

/// The notices of a folder and all below it.
pub(super) struct Notices {
    notices: Receiver<Notice>,
    missed: Arc<AtomicBool>,
    /// Notices end when it is dropped; `None` where the system gives none.
    _watcher: Option<RecommendedWatcher>,
    /// Keeps the channel open where nobody writes.
    _sender: SyncSender<Notice>,
}

impl Notices {
    /// Begins to listen; where that cannot be, says so, and there will be none.
    pub(super) fn of(field: Option<&Watched>) -> Self {
        let (sender, notices) = sync_channel(WAITING);
        let missed = Arc::new(AtomicBool::new(false));
        let ears = Ears { sender: sender.clone(), missed: Arc::clone(&missed) };
        let watcher = field.and_then(|field| {
            let watcher = notify::recommended_watcher(move |event| ears.hear(event));
            let watching = watcher.and_then(|mut watcher| {
                watcher.watch(&field.root, RecursiveMode::Recursive)?;
                Ok(watcher)
            });
            watching
                .map_err(|error| {
                    let root = field.root.display();
                    tracing::warn!(
                        "{root}: the system cannot tell of changes ({error}): it is looked through by `rescan`"
                    );
                })
                .ok()
        });
        Self { notices, missed, _watcher: watcher, _sender: sender }
    }

    /// The next notice; `None` if there is none until `end`.
    pub(super) fn next(&self, end: Instant) -> Option<Notice> {
        self.notices.recv_timeout(end.saturating_duration_since(Instant::now())).ok()
    }

    /// Whether notices were lost since the last time that this was asked.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.swap(false, Relaxed)
    }
}

/// Where the system tells its events.
struct Ears {
    sender: SyncSender<Notice>,
    missed: Arc<AtomicBool>,
}

impl Ears {
    fn hear(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.missed.store(true, Relaxed),
            Ok(event) => {
                let notice = match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write))
                    | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::From))
                    | EventKind::Remove(_) => Notice::Changed,
                    EventKind::Create(CreateKind::Folder) => Notice::Folder,
                    // A rename within the folder comes as both of its halves, too.
                    _ => return,
                };
                event.paths.into_iter().for_each(|path| self.tell(notice(path)));
            }
            Err(error) => {
                tracing::debug!(%error, "a change was not told");
                self.missed.store(true, Relaxed);
            }
        }
    }

    fn tell(&self, notice: Notice) {
        match self.sender.try_send(notice) {
            Err(TrySendError::Full(_)) => self.missed.store(true, Relaxed),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
    }
}
