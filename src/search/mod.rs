//! Searches over the latents of a dataset: nearest neighbors and near-duplicates.

pub(crate) mod duplicates;
mod latent_column;
pub(crate) mod latent_dataset;
pub(crate) mod metric;
mod model_digests;
pub(crate) mod neighbors;
mod parallel;
pub(crate) mod query_image;
pub(crate) mod record_values;
mod scan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
