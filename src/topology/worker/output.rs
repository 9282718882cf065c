//! The output of the graph for a batch.

use crate::batch::Batch;
use crate::batch::reject::Reject;
use crate::source::InferenceResponse;
use crate::topology::poison_records::isolation::QuarantineReason;
use crate::topology::reject_records::BatchRejects;

/// A batch after all transforms: the records for each sink, and the rejects.
pub(super) struct GraphOutput {
    pub(super) outputs: Vec<Batch>,
    pub(super) rejects: BatchRejects,
}

impl GraphOutput {
    /// The records for the first sink, and the rejects.
    pub(super) fn into_response(self) -> Result<InferenceResponse, String> {
        let batch = self.outputs.into_iter().next();
        Ok(InferenceResponse {
            batch: batch.ok_or_else(|| "the pipeline has no sink".to_owned())?,
            rejected: self.rejects.into_list(),
        })
    }
}

/// Returns a reject for every record of a batch whose records crashed the process before.
pub(super) fn all_rejected(batch: &Batch, reason: QuarantineReason) -> Vec<Reject> {
    let reject = |&ordinal| Reject::new(ordinal, reason.code(), reason.reason());
    batch.row_ordinals.iter().map(reject).collect()
}

/// Returns the batch of an edge: a clone, or the batch itself for the last consumer, so that its
/// memory is freed early.
pub(super) fn take(
    edges: &mut [Option<Batch>],
    consumers: &mut [usize],
    from: usize,
) -> Option<Batch> {
    consumers[from] -= 1;
    if consumers[from] == 0 {
        edges[from].take()
    } else {
        edges[from].clone()
    }
}
