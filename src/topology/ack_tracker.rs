//! Tracks the commit of each batch by every sink, and then sends an acknowledgement to its source.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use crate::batch::provenance::Provenance;
use crate::batch::reject::Reject;
use crate::batch::{Batch, BatchAck};

/// Tracks each batch from its dispatch until every sink has committed it.
pub(crate) struct AckTracker {
    state: Mutex<AckState>,
}

struct AckState {
    /// The number of the oldest batch that is not committed by every sink.
    first: u64,
    unacked: VecDeque<UnackedBatch>,
    /// Per sink, the number below which all batches are durable.
    durable: Vec<u64>,
    /// The sources that receive acknowledgements, by their index in the plan.
    subscribers: BTreeMap<usize, UnboundedSender<BatchAck>>,
}

struct UnackedBatch {
    source: usize,
    since: Instant,
    /// Stored only if the source has subscribed.
    ack: Option<BatchAck>,
}

impl AckTracker {
    /// Creates a tracker for this number of sinks. The rejects dataset counts as a sink.
    pub(super) fn new(sinks: usize) -> Self {
        let durable = vec![0; sinks];
        let state = AckState {
            first: 0,
            unacked: VecDeque::new(),
            durable,
            subscribers: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Sends the acknowledgements of the batches of a source to `subscriber` from now on.
    pub(super) fn subscribe(&self, source: usize, subscriber: UnboundedSender<BatchAck>) {
        self.state.lock().subscribers.insert(source, subscriber);
    }

    /// Adds the batch with the next number.
    pub(super) fn begin(&self, source: usize, provenance: &Arc<Provenance>) {
        let mut state = self.state.lock();
        let is_subscribed = state.subscribers.contains_key(&source);
        let ack = is_subscribed.then(|| BatchAck {
            provenance: Arc::clone(provenance),
            rejected: Vec::new(),
            filtered: Vec::new(),
        });
        state.unacked.push_back(UnackedBatch {
            source,
            since: Instant::now(),
            ack,
        });
    }

    /// Records the rejects and the outputs of a batch that has been processed. A record that is in
    /// neither was filtered out.
    pub(super) fn on_processed(
        &self,
        number: u64,
        rejected: Vec<(Arc<str>, Reject)>,
        outputs: &[Batch],
    ) {
        let mut state = self.state.lock();
        let index = number
            .checked_sub(state.first)
            .and_then(|index| usize::try_from(index).ok());
        let waiting = index.and_then(|index| state.unacked.get_mut(index));
        if let Some(ack) = waiting.and_then(|waiting| waiting.ack.as_mut()) {
            let rejected_ordinals = rejected.iter().map(|(_, reject)| reject.ordinal);
            let kept: BTreeSet<u32> = outputs
                .iter()
                .flat_map(|batch| &batch.row_ordinals)
                .copied()
                .chain(rejected_ordinals)
                .collect();
            let all = u32::try_from(ack.provenance.len()).unwrap_or(u32::MAX);
            ack.filtered = (0..all).filter(|ordinal| !kept.contains(ordinal)).collect();
            ack.rejected = rejected;
        }
    }

    /// Records that a sink has made all batches before the number `end` durable.
    pub(super) fn mark_durable(&self, sink: usize, end: u64) {
        let mut state = self.state.lock();
        state.durable[sink] = end;
        let done = state.durable.iter().copied().min().unwrap_or(0);
        while state.first < done {
            let Some(UnackedBatch { source, ack, .. }) = state.unacked.pop_front() else {
                return;
            };
            state.first += 1;
            if let (Some(ack), Some(subscriber)) = (ack, state.subscribers.get(&source)) {
                // Sending fails only if the source has ended.
                let _ = subscriber.send(ack);
            }
        }
    }

    /// The age of the oldest batch that is not durable in every sink; `None` if there is none.
    pub(super) fn oldest_unacked(&self) -> Option<Duration> {
        self.state
            .lock()
            .unacked
            .front()
            .map(|waiting| waiting.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::provenance::Split;
    use crate::batch::reject::RejectCode;

    fn rows(row: u64) -> Arc<Provenance> {
        Arc::new(Provenance::rows(Split::new("s"), row..row + 1))
    }

    #[test]
    fn acks_are_sent_in_order_after_the_slowest_sink() {
        let tracker = AckTracker::new(2);
        let (sender, mut acks) = tokio::sync::mpsc::unbounded_channel();
        tracker.subscribe(7, sender);
        assert!(tracker.oldest_unacked().is_none());
        for row in 0..3 {
            tracker.begin(if row == 1 { 5 } else { 7 }, &rows(row));
        }
        tracker.on_processed(0, Vec::new(), &[]);
        tracker.on_processed(
            2,
            vec![(Arc::from("t"), Reject::new(0, RejectCode::Model, "no"))],
            &[],
        );
        tracker.mark_durable(0, 3);
        assert!(acks.try_recv().is_err(), "the other sink has not committed");
        assert!(tracker.oldest_unacked().is_some());
        tracker.mark_durable(1, 2);
        let first = acks.try_recv().unwrap();
        assert_eq!((first.provenance, first.filtered), (rows(0), vec![0]));
        assert!(
            acks.try_recv().is_err(),
            "the other source has not subscribed"
        );
        tracker.mark_durable(1, 3);
        let last = acks.try_recv().unwrap();
        assert_eq!(
            (last.provenance, &*last.rejected[0].1.reason, last.filtered),
            (rows(2), "no", vec![])
        );
        assert!(tracker.oldest_unacked().is_none());
    }
}
