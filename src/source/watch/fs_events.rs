//! The file system events of a watched folder: created, written, closed and removed files, and
//! changed folders.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;

use crate::storage::mounts::FolderId;

/// Maximum number of queued events. After an overflow, the folder is listed instead.
const MAX_QUEUED: usize = 65_536;
/// Maximum number of files that are tracked as open for writing.
const MAX_WRITTEN: usize = 65_536;
/// Whether each folder needs its own watch, as on Linux; elsewhere one watch covers all subfolders.
const PER_FOLDER: bool = cfg!(target_os = "linux");

/// An event of a path.
pub(super) enum FsEvent {
    /// A file was closed after a write, or a file or folder was moved here or away, or removed.
    Changed(PathBuf),
    /// A file was created. It may be open for writing, or complete, such as a link.
    Created(PathBuf),
    /// A folder was created.
    Folder(PathBuf),
    /// Permissions or times were set.
    Attributes(PathBuf),
}

/// The events of a folder and its subfolders.
pub(super) struct FsEvents {
    events: Receiver<FsEvent>,
    sender: SyncSender<FsEvent>,
    state: Arc<EventState>,
    /// Events end when it is dropped; `None` if the system does not report events.
    watcher: Option<RecommendedWatcher>,
    /// The watched folders by path.
    covered: BTreeMap<PathBuf, FolderId>,
    /// Folders that could not be watched at the last attempt.
    uncovered: HashSet<PathBuf>,
}

/// State that is shared with the thread of the notification backend.
#[derive(Default)]
struct EventState {
    missed: AtomicBool,
    /// Files that were written to and have not been closed since.
    written: Mutex<HashSet<PathBuf>>,
}

impl EventState {}

impl FsEvents {
    /// A queue without a watched folder.
    pub(super) fn none() -> Self {
        let (sender, events) = sync_channel(MAX_QUEUED);
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

    /// Starts a watcher for the folders that are covered later. If the system does not report
    /// events, logs a warning.
    pub(super) fn begin(root: &Path) -> Self {
        let mut fs_events = Self::none();
        let (sender, state) = (fs_events.sender.clone(), Arc::clone(&fs_events.state));
        let mut forwarder = EventForwarder {
            sender,
            state,
            created: None,
        };
        let watcher = notify::recommended_watcher(move |event| forwarder.on_event(event));
        let watcher = watcher.and_then(|mut watcher| {
            if !PER_FOLDER {
                watcher.watch(root, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let report = |error: &notify::Error| {
            tracing::warn!(
                path = %root.display(),
                %error,
                "file system events are unavailable; the folder is listed every `rescan` instead"
            );
        };
        fs_events.watcher = watcher.inspect_err(report).ok();
        fs_events
    }

    /// Watches a folder that is not watched yet. Files that arrive after this call are reported;
    /// earlier ones must be listed.
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
            // The folder was removed in the meantime.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
            Err(error) => {
                if self.uncovered.is_empty() {
                    let hint = match error.kind {
                        ErrorKind::MaxFilesWatch => Some("raise fs.inotify.max_user_watches"),
                        _ => None,
                    };
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        hint,
                        "file system events are unavailable for a folder; it and other such \
                         folders are listed every `rescan` instead"
                    );
                }
                self.covered.remove(&path);
                self.uncovered.insert(path);
            }
        }
    }

    /// Unregisters a folder and its subfolders, which were moved, removed or replaced.
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

    /// The number of folders for which the system does not report events.
    pub(super) fn uncovered(&self) -> usize {
        self.uncovered.len()
    }

    /// The next event; `None` if none arrives until `end`.
    pub(super) fn next(&self, end: Instant) -> Option<FsEvent> {
        self.events
            .recv_timeout(end.saturating_duration_since(Instant::now()))
            .ok()
    }

    /// Whether events were lost since the last call.
    pub(super) fn take_overflow(&self) -> bool {
        let has_missed = self.state.missed.swap(false, Relaxed);
        if has_missed {
            // The lost events may include the close of a file.
            self.state.written.lock().clear();
        }
        has_missed
    }

    /// Whether a file was written to and has not been closed since.
    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.state.written.lock().contains(path)
    }
}

/// Forwards the events of the notification backend to the queue.
struct EventForwarder {
    sender: SyncSender<FsEvent>,
    state: Arc<EventState>,
    /// The file that was created last. If it is opened next, its creator has it open.
    created: Option<PathBuf>,
}

impl EventForwarder {
    fn on_event(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if event.need_rescan() => return self.mark_missed(),
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(
                    %error,
                    "the notification backend reported an error; the folder is listed again"
                );
                return self.mark_missed();
            }
        };
        let created = self.created.take();
        for path in event.paths {
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.state.written.lock().remove(&path);
                    self.send(FsEvent::Changed(path));
                }
                EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::From))
                | EventKind::Remove(_) => {
                    self.state.written.lock().remove(&path);
                    self.send(FsEvent::Changed(path));
                }
                EventKind::Modify(ModifyKind::Data(_)) => self.write(path),
                EventKind::Access(AccessKind::Open(_)) if created.as_ref() == Some(&path) => {
                    self.write(path)
                }
                EventKind::Create(CreateKind::Folder) => self.send(FsEvent::Folder(path)),
                EventKind::Create(_) => {
                    self.created = Some(path.clone());
                    self.send(FsEvent::Created(path));
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => self.send(FsEvent::Attributes(path)),
                // A rename within the folder is also reported as two separate events.
                _ => {}
            }
        }
    }

    fn write(&self, path: PathBuf) {
        let mut written = self.state.written.lock();
        if written.len() < MAX_WRITTEN {
            written.insert(path);
        } else {
            drop(written);
            self.mark_missed();
        }
    }

    fn mark_missed(&self) {
        self.state.missed.store(true, Relaxed);
    }

    fn send(&self, event: FsEvent) {
        match self.sender.try_send(event) {
            Err(TrySendError::Full(_)) => self.mark_missed(),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
    }
}
