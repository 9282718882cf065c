//! Puts batches back into the order of their numbers and hands each sink its part; never refuses a
//! worker, since it holds at most one batch per permit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::InFlightPermit;
use super::generation::Generation;
use super::messages::{ProcessedBatch, SinkMessage, WorkerMessage};

/// A batch that waits for those before it.
type HeldBatch = (ProcessedBatch, Arc<Generation>, InFlightPermit);

/// Runs until the end is said and reached, or until every worker is gone.
///
/// Only batches without a gap before them are handed on, so what a sink commits is always a prefix
/// of the run. The end is handed on only where it was said: a channel that closes means that
/// something broke.
pub(super) async fn reorder(
    done: async_channel::Receiver<WorkerMessage>,
    sinks: Vec<async_channel::Sender<SinkMessage>>,
) {
    let mut waiting: BTreeMap<u64, HeldBatch> = BTreeMap::new();
    let mut next = 0;
    let mut end = None;
    while end.is_none_or(|end| next < end) {
        match done.recv().await {
            Ok(WorkerMessage::Batch {
                number,
                result,
                generation,
                permit,
            }) => {
                waiting.insert(number, (*result, generation, permit));
            }
            // What comes behind a batch that failed is dropped: its numbers are never reached.
            Ok(WorkerMessage::Failed { number }) => {
                end = Some(end.map_or(number, |end: u64| end.min(number)))
            }
            Ok(WorkerMessage::End { numbers }) => {
                end = Some(end.map_or(numbers, |end| end.min(numbers)))
            }
            Err(_) => return,
        }
        while let Some((carried, generation, permit)) = waiting.remove(&next) {
            let permit = Arc::new(permit);
            for (sink, batch) in sinks.iter().zip(carried.outputs) {
                // A sink that failed keeps draining its channel; one that is gone has panicked and
                // said so.
                let (generation, permit) = (Arc::clone(&generation), Arc::clone(&permit));
                let _ = sink
                    .send(SinkMessage::Batch {
                        number: next,
                        batch,
                        generation,
                        permit,
                    })
                    .await;
            }
            next += 1;
        }
        if let Some(end) = end {
            waiting.retain(|&number, _| number < end);
        }
    }
    for sink in &sinks {
        let _ = sink.send(SinkMessage::End).await;
    }
}
