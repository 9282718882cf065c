//! Makes requests durable with one sync for a group of them, and reports the outcome of each.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::fs_durable::failpoint;
use crate::metrics::{BlockingCaller, BlockingOperation};
use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::idempotency::RequestAttempt;
use crate::source::http::wal::record::{RecordHeader, RequestFingerprint};
use crate::source::http::wal::{WriteAheadLog, now};

/// Maximum number of bytes that are synced together; a larger request is synced alone.
const GROUP_BYTES: usize = 8 << 20;
/// Maximum number of requests that are synced together.
const GROUP: usize = 256;

/// A request to be made durable.
pub(crate) struct CommitRequest {
    /// Its records as the payload of a frame, which is sealed if it has a key.
    pub(crate) payload: Vec<u8>,
    /// Number of its records.
    pub(crate) rows: u32,
    /// Identifies repetitions of the request, if it has a key.
    pub(crate) attempt: Option<RequestAttempt>,
    /// Receives the outcome.
    pub(crate) reply: oneshot::Sender<CommitOutcome>,
    /// The memory of its payload.
    pub(crate) charge: MemoryReservation,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// Its records are durable from row `first` on; a repeated request is a duplicate.
    Accepted {
        first: u64,
        rows: u32,
        duplicate: bool,
    },
    /// Another request had the same key.
    KeyReused,
    /// The pending requests have reached the limit of the backlog.
    BacklogFull,
    /// It cannot be written because the disk is full or fails.
    Failed,
}

/// Commits requests until all senders are dropped. `limit` is the maximum number of pending bytes.
/// `caller` records when the thread is in a call that may not return.
pub(crate) fn run(
    journal: &Arc<WriteAheadLog>,
    limit: u64,
    mut requests: mpsc::Receiver<CommitRequest>,
    caller: &BlockingCaller,
) {
    let mut committer = GroupCommitter {
        wal: Arc::clone(journal),
        limit,
        file: None,
    };
    let mut held: Vec<CommitRequest> = Vec::new();
    loop {
        let mut group = std::mem::take(&mut held);
        if group.is_empty() {
            match requests.blocking_recv() {
                Some(request) => group.push(request),
                None => return,
            }
        }
        let mut bytes: usize = group.iter().map(|request| request.payload.len()).sum();
        while bytes < GROUP_BYTES && group.len() < GROUP {
            let Ok(request) = requests.try_recv() else {
                break;
            };
            bytes += request.payload.len();
            group.push(request);
        }
        caller.during(BlockingOperation::WriteJournal, || {
            committer.commit(group, &mut held)
        });
    }
}

struct GroupCommitter {
    wal: Arc<WriteAheadLog>,
    limit: u64,
    /// The last segment and its length.
    file: Option<(File, u64)>,
}

/// A request that is being written.
struct EncodedRequest {
    head: RecordHeader,
    request: CommitRequest,
}

impl GroupCommitter {
    /// Commits a group of requests. If several have the same key, those after the first are held
    /// for the next group.
    fn commit(&mut self, group: Vec<CommitRequest>, held: &mut Vec<CommitRequest>) {
        let (mut written, mut bytes): (Vec<EncodedRequest>, u64) = (Vec::new(), 0);
        let mut keys = BTreeSet::new();
        let (first, pending) = {
            let state = self.wal.state();
            (state.next, state.pending_bytes)
        };
        for request in group {
            // A client whose request has timed out, or that has disconnected, may repeat its
            // request.
            if request.reply.is_closed() {
                continue;
            }
            if request
                .attempt
                .is_some_and(|attempt| !keys.insert(attempt.key))
            {
                held.push(request);
                continue;
            }
            let next = written.last().map_or(first, |written| written.head.end());
            match self.admit(&request, next, pending + bytes) {
                Ok(head) => {
                    bytes += head.bytes();
                    written.push(EncodedRequest {
                        head: head.in_group(first),
                        request,
                    });
                }
                // The client may have disconnected, here and below.
                Err(outcome) => drop(request.reply.send(outcome)),
            }
        }
        if written.is_empty() {
            return;
        }
        let durable = self.write(&written, bytes);
        let heads: Vec<RecordHeader> = written.iter().map(|written| written.head).collect();
        match &durable {
            Ok(()) => self.wal.written(&heads),
            Err(error) => tracing::error!(
                folder = %self.wal.folder.display(),
                %error,
                "cannot write requests to the journal"
            ),
        }
        for EncodedRequest {
            head,
            request:
                CommitRequest {
                    reply,
                    charge,
                    payload,
                    ..
                },
        } in written
        {
            drop((payload, charge));
            let taken = CommitOutcome::Accepted {
                first: head.first,
                rows: head.rows,
                duplicate: false,
            };
            let _ = reply.send(if durable.is_ok() {
                taken
            } else {
                CommitOutcome::Failed
            });
        }
    }

    fn admit(
        &self,
        request: &CommitRequest,
        first: u64,
        pending: u64,
    ) -> Result<RecordHeader, CommitOutcome> {
        let taken = request.attempt.and_then(|attempt| {
            let keys = &self.wal.state().keys;
            let earlier = || {
                keys.get(&attempt.former.0)
                    .filter(|taken| matches!(taken.request, RequestFingerprint::Crc32(_)))
            };
            keys.get(&attempt.key)
                .or_else(earlier)
                .map(|taken| (taken, attempt.is(taken.request)))
        });
        if let Some((taken, same)) = taken {
            let again = CommitOutcome::Accepted {
                first: taken.first,
                rows: taken.rows,
                duplicate: true,
            };
            return Err(if same {
                again
            } else {
                CommitOutcome::KeyReused
            });
        }
        let key = request.attempt.map(|attempt| attempt.key);
        let head = RecordHeader::new(first, request.rows, now(), key, &request.payload);
        let head = head.ok_or(CommitOutcome::Failed)?;
        // One request is always accepted, independent of its size, so that none waits forever.
        if pending > 0 && pending + head.bytes() > self.limit {
            Err(CommitOutcome::BacklogFull)
        } else {
            Ok(head)
        }
    }

    /// Appends frames to the last segment and syncs it. After a failure, the segment is truncated
    /// to its previous length.
    fn write(&mut self, frames: &[EncodedRequest], bytes: u64) -> Result<(), String> {
        if self.file.is_none() || self.wal.is_full() {
            let file = self.wal.begin().map_err(|error| error.to_string())?;
            self.file = Some((file, 0));
        }
        let Some((file, length)) = &mut self.file else {
            return Err("no segment is open".to_owned());
        };
        let outcome = append(file, frames).and_then(|()| {
            failpoint("request-written");
            file.sync_data()
        });
        failpoint("request-synced");
        match outcome {
            Ok(()) => *length += bytes,
            Err(error) => {
                // If the truncation fails as well, the next write starts a new segment, and the
                // incomplete frame is never read.
                let cut = file
                    .set_len(*length)
                    .and_then(|()| file.seek(SeekFrom::Start(*length)));
                if cut.is_err() {
                    self.file = None;
                }
                return Err(error.to_string());
            }
        }
        Ok(())
    }
}

/// Size of the write buffer; a larger frame is not copied.
const BUFFER: usize = 256 << 10;

fn append(file: &File, frames: &[EncodedRequest]) -> io::Result<()> {
    let mut output = BufWriter::with_capacity(BUFFER, file);
    let written = frames
        .iter()
        .try_for_each(|EncodedRequest { head, request }| {
            output.write_all(&head.to_bytes())?;
            output.write_all(&request.payload)
        });
    let written = written.and_then(|()| output.flush());
    // Buffered bytes must not be written after the truncation.
    drop(output.into_parts());
    written
}
