//! Fits principal components, the baseline of a model.

use crate::error::StageError;
use crate::eval_metrics::Pca;
use crate::evaluate::inference::ModelRunner;
use crate::evaluate::options::Progress;
use crate::evaluate::sampler::Subsample;
use crate::model::ModelInput;

/// Maximum number of values of the records that principal components are fitted to, at which a pass
/// takes some seconds.
const MAX_FITTED_VALUES: usize = 1 << 26;
/// Maximum number of values of the directions that principal components are computed from: 256 MiB
/// in each of their copies.
pub(super) const MAX_BASIS_VALUES: usize = 1 << 26;
/// Bytes of the block of records that is read at a time.
const PCA_BLOCK_BYTES: u64 = 32 << 20;

/// Fits principal components to the training part, with the code size of the model. Returns them
/// with the number of records that they were fitted to; `None` if the model has no code, or there
/// are fewer than 2 records.
pub(super) fn fit_pca(
    runner: &ModelRunner,
    input: &ModelInput,
    fitted: &Subsample<'_>,
    progress: &mut Progress<'_>,
) -> Result<Option<(Pca, usize)>, StageError> {
    let (Some(size), Some(len)) = (runner.code_size(), runner.record_len()) else {
        return Ok(None);
    };
    let fitted = fitted.at_most((MAX_FITTED_VALUES / len.max(1)).max(2));
    if len == 0 || fitted.len() < 2 || Pca::basis_values(len, size) > MAX_BASIS_VALUES {
        return Ok(None);
    }
    let mut seen = 0;
    let pca = Pca::fit(len, size, |work| {
        seen = 0;
        fitted.read(input, &mut |batch| {
            seen += batch.records.len();
            work(&batch.values);
            progress("fitting principal components", seen, fitted.len())
        })
    })?;
    Ok(pca.map(|pca| (pca, seen)))
}

/// Returns the maximum number of bytes that fitting principal components takes for records of `len`
/// values and a code of `size` values.
pub fn max_pca_bytes(len: usize, size: usize) -> u64 {
    match Pca::basis_values(len, size) {
        _ if size == 0 => 0,
        values if values > MAX_BASIS_VALUES => 0,
        _ => Pca::fit_bytes(len, size) + PCA_BLOCK_BYTES,
    }
}
