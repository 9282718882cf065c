//! placeholder
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use crate::error::Fault;
use crate::image::PixelFormat;
/// x
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct CorruptionSpec {}
/// x
pub struct Corruption;
impl CorruptionSpec {
    /// x
    pub fn plan(&self, _: Option<&PixelFormat>) -> Result<Corruption, Vec<Fault>> { Ok(Corruption) }
}
impl Corruption {
    /// x
    pub fn apply(&self, _: &mut [f32], _: (usize, usize), _: Option<&PixelFormat>, _: u64) {}
    /// x
    pub fn summary(&self) -> String { String::new() }
}
