//! Fingerprints: digests of the stages upstream of a sink that cover exactly the facts that change
//! its rows.

use serde_json::Value;

use super::fingerprint_v0;
use crate::plan::fingerprint_input::{FingerprintInput, of_parts};
use crate::registry::canonical;
use crate::sink::FINGERPRINT_VERSION;

/// Returns the digest of a stage from the digests of its inputs, by the rules of a version; `None`
/// for an unsupported version.
pub(super) fn of_stage(
    version: u32,
    stage: &FingerprintInput<'_>,
    inputs: &[&str],
) -> Option<String> {
    match version {
        0 => Some(fingerprint_v0::digest(stage, inputs)),
        FINGERPRINT_VERSION => {
            let (rules, options) = (
                FINGERPRINT_VERSION.to_string(),
                canonical(&Value::Object(stage.options.clone())),
            );
            let own = [
                &rules,
                stage.name,
                stage.kind,
                &options,
                stage.model,
                stage.dependency.unwrap_or_default(),
            ];
            Some(of_parts(own.into_iter().chain(inputs.iter().copied())))
        }
        _ => None,
    }
}
