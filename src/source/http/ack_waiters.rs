//! Clients that wait until the records of their request are durable in every sink, and the outcome
//! of each record.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::batch::BatchAck;
use crate::batch::provenance::Split;
use crate::source::http::body::rejected_lines::TruncatedList;
use crate::source::http::wal::WriteAheadLog;

/// The outcome of the records of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RequestOutcome {
    /// Rejected records.
    pub(super) rejected: TruncatedList<RejectedRecord>,
    /// Rows that a filter dropped before every sink.
    pub(super) filtered: TruncatedList<u64>,
}

/// A record that a stage rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RejectedRecord {
    pub(super) row: u64,
    pub(super) stage: String,
    pub(super) code: &'static str,
    pub(super) reason: String,
}

struct AckWaiter {
    end: u64,
    outcome: RequestOutcome,
    reply: oneshot::Sender<RequestOutcome>,
}

/// The waiting clients, by the first row of their request.
#[derive(Default)]
pub(super) struct AckWaiters {
    waiters: Mutex<BTreeMap<u64, Vec<AckWaiter>>>,
}

impl AckWaiters {
    /// Waits for the rows from `first` up to `end`; `None` if they are already committed.
    pub(super) fn wait(
        &self,
        journal: &WriteAheadLog,
        first: u64,
        end: u64,
    ) -> Option<oneshot::Receiver<RequestOutcome>> {
        let mut waiters = self.waiters.lock();
        // This is checked under the lock, so that later commits find the waiter.
        if journal.state().done >= end {
            return None;
        }
        let (reply, outcome) = oneshot::channel();
        waiters.entry(first).or_default().push(AckWaiter {
            end,
            outcome: RequestOutcome::default(),
            reply,
        });
        Some(outcome)
    }

    /// Passes an acknowledgement of rows to the clients that wait for them, and to the journal.
    /// Rows are acknowledged in ascending order.
    pub(super) fn on_ack(&self, journal: &WriteAheadLog, split: &Split, ack: &BatchAck) {
        let mut waiters = self.waiters.lock();
        let row_of = |ordinal: u32| ack.provenance.row(ordinal).map(|(_, row)| row);
        for (stage, reject) in &ack.rejected {
            let Some(row) = row_of(reject.ordinal) else {
                continue;
            };
            let rejected = || {
                let (stage, code, reason) = (
                    stage.to_string(),
                    reject.code.as_str(),
                    reject.reason.clone(),
                );
                RejectedRecord {
                    row,
                    stage,
                    code,
                    reason,
                }
            };
            of_row(&mut waiters, row).for_each(|waiter| waiter.outcome.rejected.push(rejected));
        }
        for row in ack.filtered.iter().filter_map(|&ordinal| row_of(ordinal)) {
            of_row(&mut waiters, row).for_each(|waiter| waiter.outcome.filtered.push(|| row));
        }
        let ranges = ack
            .provenance
            .ranges()
            .iter()
            .filter(|range| *range.split == *split);
        let Some(done) = ranges.map(|range| range.rows.end).max() else {
            return;
        };
        journal.done(done);
        waiters.retain(|_, of_request| {
            let (ready, waiting) = std::mem::take(of_request)
                .into_iter()
                .partition(|waiter: &AckWaiter| waiter.end <= done);
            *of_request = waiting;
            for AckWaiter { outcome, reply, .. } in ready {
                // The client may have disconnected.
                let _ = reply.send(outcome);
            }
            !of_request.is_empty()
        });
    }
}

/// The clients that wait for a request with this row.
fn of_row(
    waiters: &mut BTreeMap<u64, Vec<AckWaiter>>,
    row: u64,
) -> impl Iterator<Item = &mut AckWaiter> {
    let request = waiters
        .range_mut(..=row)
        .next_back()
        .map(|(_, waiters)| waiters);
    request
        .into_iter()
        .flatten()
        .filter(move |waiter| row < waiter.end)
}
