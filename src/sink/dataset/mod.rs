//! A dataset of Parquet files: its description, and the changes of its files outside of runs.

pub mod compact;
pub mod data_files;
pub(crate) mod dataset_file;
pub mod inspect;
pub mod purge;
pub mod rejects;
pub(crate) mod rewrite;
pub(crate) mod rewrite_commit;
pub(crate) mod rewrite_verification;
pub(crate) mod summary_stats;
