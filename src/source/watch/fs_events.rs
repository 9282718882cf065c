//! What the system reports of a watched folder: which files are complete or written to, which came,
//! and which folders changed.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::storage::mounts::FolderId;

/// FsEvents that wait to be read; when there are more, the folder is listed instead.
const WAITING: usize = 65_536;
/// Files that are being written at the same time, of which that is kept in mind.
const WRITTEN: usize = 65_536;
/// Linux watches each folder for itself; elsewhere one watch covers all folders below.
const PER_FOLDER: bool = cfg!(target_os = "linux");

/// Something has happened to a path.
pub(super) enum FsEvent {
    /// A file was closed after it was written, or something was moved here or away, or was removed.
    Changed(PathBuf),
    /// A name was made for a file: it may be open for writing, or complete, as a link is.
    Created(PathBuf),
    /// A folder was made.
    Folder(PathBuf),
    /// Permissions or times were set.
    Attributes(PathBuf),
}

/// The notices of a folder and all below it.
pub(super) struct FsEvents {
    events: Receiver<FsEvent>,
    sender: SyncSender<FsEvent>,
    state: Arc<EventState>,
    /// FsEvents end when it is dropped; `None` where the system gives none.
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched, by their paths.
    covered: BTreeMap<PathBuf, FolderId>,
    /// Folders that could not be watched at the last attempt.
    uncovered: HashSet<PathBuf>,
}

/// What the thread of the system's events shares.
#[derive(Default)]
struct EventState {
    missed: AtomicBool,
    /// Files that were written to and not closed since.
    written: Mutex<HashSet<PathBuf>>,
}

impl EventState {
    fn written(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FsEvents {
    /// FsEvents of no folder.
    pub(super) fn none() -> Self {
        let (sender, events) = sync_channel(WAITING);
        let (covered, uncovered) = (BTreeMap::new(), HashSet::new());
        Self {
            events,
            sender,
            state: Arc::default(),
            watcher: None,
            covered,
            uncovered,
        }
    }

    /// FsEvents of the folders that will be covered. Where the system gives none, that is logged.
    pub(super) fn begin(root: &Path) -> Self {
        let mut notices = Self::none();
        let (sender, state) = (notices.sender.clone(), Arc::clone(&notices.state));
        let mut listener = EventForwarder {
            sender,
            state,
            created: None,
        };
        let watcher = notify::recommended_watcher(move |event| listener.on_event(event));
        let watcher = watcher.and_then(|mut watcher| {
            if !PER_FOLDER {
                watcher.watch(root, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let report = |error: &notify::Error| {
            let root = root.display();
            tracing::warn!(
                "{root}: the system reports no changes ({error}); the folder is listed every `rescan`"
            );
        };
        notices.watcher = watcher.inspect_err(report).ok();
        notices
    }

    /// Watches a folder, unless it is watched. Files that come after this call are reported; those
    /// that came before are to be listed.
    pub(super) fn cover(&mut self, path: PathBuf, id: FolderId) {
        let Some(watcher) = self.watcher.as_mut().filter(|_| PER_FOLDER) else {
            return;
        };
        if self.covered.get(&path) == Some(&id) {
            return;
        }
        match watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.uncovered.remove(&path);
                self.covered.insert(path, id);
            }
            // It went in the meantime.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
            Err(error) => {
                if self.uncovered.is_empty() {
                    let folder = path.display();
                    let advice = match error.kind {
                        ErrorKind::MaxFilesWatch => "; raise fs.inotify.max_user_watches",
                        _ => "",
                    };
                    tracing::warn!(
                        "{folder}: the system reports no changes of this folder ({error}); it is listed every \
                         `rescan`, and so are others of which that is true{advice}"
                    );
                }
                self.covered.remove(&path);
                self.uncovered.insert(path);
            }
        }
    }

    /// Forgets that a folder and those below it are watched: they were moved or removed, or others
    /// are in their place.
    pub(super) fn uncover(&mut self, folder: &Path) {
        let below = self
            .covered
            .range(folder.to_path_buf()..)
            .map(|(path, _)| path);
        let below: Vec<PathBuf> = below
            .take_while(|path| path.starts_with(folder))
            .cloned()
            .collect();
        for path in below {
            self.covered.remove(&path);
        }
        self.uncovered.retain(|path| !path.starts_with(folder));
    }

    /// The number of folders of which the system reports nothing.
    pub(super) fn uncovered(&self) -> usize {
        self.uncovered.len()
    }

    /// The next notice; `None` if there is none until `end`.
    pub(super) fn next(&self, end: Instant) -> Option<FsEvent> {
        self.events
            .recv_timeout(end.saturating_duration_since(Instant::now()))
            .ok()
    }

    /// Whether notices were lost since the last call.
    pub(super) fn take_overflow(&self) -> bool {
        let missed = self.state.missed.swap(false, Relaxed);
        if missed {
            // The notice that a file was closed may be among them.
            self.state.written().clear();
        }
        missed
    }

    /// Whether a file was written to and not closed since.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.state.written().contains(path)
    }
}

/// Where the system reports its events.
struct EventForwarder {
    sender: SyncSender<FsEvent>,
    state: Arc<EventState>,
    /// The file whose name was made last: if it is opened next, its maker has it open.
    created: Option<PathBuf>,
}

impl EventForwarder {
    fn on_event(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if event.need_rescan() => return self.miss(),
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "a change was not reported");
                return self.miss();
            }
        };
        let created = self.created.take();
        for path in event.paths {
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.state.written().remove(&path);
                    self.tell(FsEvent::Changed(path));
                }
                EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::From))
                | EventKind::Remove(_) => {
                    self.state.written().remove(&path);
                    self.tell(FsEvent::Changed(path));
                }
                EventKind::Modify(ModifyKind::Data(_)) => self.write(path),
                EventKind::Access(AccessKind::Open(_)) if created.as_ref() == Some(&path) => {
                    self.write(path)
                }
                EventKind::Create(CreateKind::Folder) => self.tell(FsEvent::Folder(path)),
                EventKind::Create(_) => {
                    self.created = Some(path.clone());
                    self.tell(FsEvent::Created(path));
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => self.tell(FsEvent::Attributes(path)),
                // A rename within the folder comes as both of its halves, too.
                _ => {}
            }
        }
    }

    fn write(&self, path: PathBuf) {
        let mut written = self.state.written();
        if written.len() < WRITTEN {
            written.insert(path);
        } else {
            drop(written);
            self.miss();
        }
    }

    fn miss(&self) {
        self.state.missed.store(true, Relaxed);
    }

    fn tell(&self, notice: FsEvent) {
        match self.sender.try_send(notice) {
            Err(TrySendError::Full(_)) => self.miss(),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
    }
}
