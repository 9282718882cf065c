//! The reorder stage, which restores the order of batch numbers and sends each sink its output. It
//! never blocks a worker: the permits bound the number of batches that it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::InFlightPermit;
use super::generation::Generation;
use super::messages::{ProcessedBatch, SinkMessage, WorkerMessage};

/// A batch that waits for batches with lower numbers.
type HeldBatch = (ProcessedBatch, Arc<Generation>, InFlightPermit);

/// Runs until the announced end is reached, or until all workers have ended.
///
/// Batches are sent to the sinks without gaps, so a sink always commits a prefix of the run. The
/// end is sent to the sinks only if it was announced: a channel that closes before means a failure.
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
            // Batches after a failed one are dropped: their numbers are never reached.
            Ok(WorkerMessage::Failed { number }) => {
                end = Some(end.map_or(number, |end: u64| end.min(number)))
            }
            Ok(WorkerMessage::End { numbers }) => {
                end = Some(end.map_or(numbers, |end| end.min(numbers)))
            }
            Err(_) => return,
        }
        while let Some((result, generation, permit)) = waiting.remove(&next) {
            let permit = Arc::new(permit);
            for (sink, batch) in sinks.iter().zip(result.outputs) {
                // A sink that failed keeps draining its channel. Sending fails only if the sink
                // has panicked, which fails the run.
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
