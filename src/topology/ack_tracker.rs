//! Which batches are durable in every sink, and who wants to know what became of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::batch::{Batch, BatchAck, Provenance, Reject};

/// Follows each batch from its dispatch until every sink has it.
pub(super) struct AckTracker {
    state: Mutex<AckState>,
}

struct AckState {
    /// The number of the batch that has waited longest.
    first: u64,
    unacked: VecDeque<UnackedBatch>,
    /// Per sink, the number below which everything is durable.
    durable: Vec<u64>,
    /// Sources that listen, by their place in the plan.
    subscribers: BTreeMap<usize, UnboundedSender<BatchAck>>,
}

struct UnackedBatch {
    source: usize,
    since: Instant,
    /// Kept only where somebody listens.
    ack: Option<BatchAck>,
}

impl AckTracker {
    /// For so many sinks, rejects counted as one.
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

    fn state(&self) -> MutexGuard<'_, AckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `listener` from now on what becomes of the batches of a source.
    pub(super) fn subscribe(&self, source: usize, listener: UnboundedSender<BatchAck>) {
        self.state().subscribers.insert(source, listener);
    }

    /// The next number is on its way.
    pub(super) fn begin(&self, source: usize, provenance: &Arc<Provenance>) {
        let mut state = self.state();
        let listened = state.subscribers.contains_key(&source);
        let ack = listened.then(|| BatchAck {
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

    /// A batch has been through the graph; these of its records were refused, those were not.
    pub(super) fn on_processed(
        &self,
        number: u64,
        refused: Vec<(Arc<str>, Reject)>,
        outputs: &[Batch],
    ) {
        let mut state = self.state();
        let place = number
            .checked_sub(state.first)
            .and_then(|place| usize::try_from(place).ok());
        let waiting = place.and_then(|place| state.unacked.get_mut(place));
        if let Some(ack) = waiting.and_then(|waiting| waiting.ack.as_mut()) {
            let refused_ones = refused.iter().map(|(_, reject)| reject.ordinal);
            let kept: BTreeSet<u32> = outputs
                .iter()
                .flat_map(|batch| &batch.row_ordinals)
                .copied()
                .chain(refused_ones)
                .collect();
            let all = u32::try_from(ack.provenance.len()).unwrap_or(u32::MAX);
            ack.filtered = (0..all).filter(|ordinal| !kept.contains(ordinal)).collect();
            ack.rejected = refused;
        }
    }

    /// A sink has made everything below this number durable.
    pub(super) fn durable(&self, sink: usize, below: u64) {
        let mut state = self.state();
        state.durable[sink] = below;
        let done = state.durable.iter().copied().min().unwrap_or(0);
        while state.first < done {
            let Some(UnackedBatch { source, ack, .. }) = state.unacked.pop_front() else {
                return;
            };
            state.first += 1;
            if let (Some(ack), Some(listener)) = (ack, state.subscribers.get(&source)) {
                // Who does not listen any more has ended.
                let _ = listener.send(ack);
            }
        }
    }

    /// For how long the oldest record has waited that is not durable yet; `None` where none waits.
    pub(super) fn oldest_unacked(&self) -> Option<Duration> {
        self.state()
            .unacked
            .front()
            .map(|waiting| waiting.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::batch::{RejectCode, Split};

    fn rows(row: u64) -> Arc<Provenance> {
        Arc::new(Provenance::rows(Split::new("s"), row..row + 1))
    }

    #[test]
    fn a_fate_is_told_in_order_once_the_slowest_sink_has_the_batch() {
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
        tracker.durable(0, 3);
        assert!(acks.try_recv().is_err(), "the other sink has nothing yet");
        assert!(tracker.oldest_unacked().is_some());
        tracker.durable(1, 2);
        let first = acks.try_recv().unwrap();
        assert_eq!((first.provenance, first.filtered), (rows(0), vec![0]));
        assert!(
            acks.try_recv().is_err(),
            "nobody listens for the other source"
        );
        tracker.durable(1, 3);
        let last = acks.try_recv().unwrap();
        assert_eq!(
            (last.provenance, &*last.rejected[0].1.reason, last.filtered),
            (rows(2), "no", vec![])
        );
        assert!(tracker.oldest_unacked().is_none());
    }
}
