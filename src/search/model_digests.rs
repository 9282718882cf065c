//! The identity of the models that computed latents.

use std::collections::BTreeMap;
use std::fmt;

/// The digests of models, without their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModelDigests(Vec<String>);

impl ModelDigests {
    /// The digests of models by their names.
    pub(super) fn new(models: &BTreeMap<String, String>) -> Self {
        let mut digests: Vec<String> = models.values().cloned().collect();
        digests.sort_unstable();
        digests.dedup();
        Self(digests)
    }
}

impl fmt::Display for ModelDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: Vec<String> = self
            .0
            .iter()
            .map(|digest| format!("{digest:.12}"))
            .collect();
        f.write_str(&short.join(", "))
    }
}
