//! The exclusive right to write to an output, and the refusal of folders that hold another output.

pub(crate) mod fencing_epoch;
pub(crate) mod file_lock;
pub(crate) mod output_mounts;
pub(crate) mod shard_claim;
pub(crate) mod shard_marker;
pub mod writer_lease;
