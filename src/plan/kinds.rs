//! The kinds of stages that a pipeline may name.

use crate::registry::ComponentKind;
use crate::sink::SinkConfig;
use crate::sink::registry::{PlanSink, sink_kind};
use crate::source::SourceConfig;
use crate::source::registry::{PlanSource, source_kind};
use crate::transform::TransformConfig;
use crate::transform::registry::{PlanTransform, transform_kind};
use crate::{sink, source, transform};

/// The kinds of stages that a pipeline may name. A program may add its own kinds to the built-in ones.
///
/// A name may be that of a source and of a sink. The inputs of a stage decide which of them it is.
#[derive(Clone)]
pub struct Kinds {
    pub(super) sources: Vec<ComponentKind<PlanSource>>,
    pub(super) transforms: Vec<ComponentKind<PlanTransform>>,
    pub(super) sinks: Vec<ComponentKind<PlanSink>>,
}

impl Default for Kinds {
    /// The built-in kinds.
    fn default() -> Self {
        Self {
            sources: source::registry::KINDS.to_vec(),
            transforms: transform::registry::KINDS.to_vec(),
            sinks: sink::registry::KINDS.to_vec(),
        }
    }
}

impl Kinds {
    /// Adds a kind of source; `summary` describes it in one line. It replaces a source with the same
    /// name.
    #[must_use]
    pub fn with_source<C: SourceConfig>(
        mut self,
        name: &'static str,
        summary: &'static str,
    ) -> Self {
        add(&mut self.sources, source_kind::<C>(name, summary));
        self
    }

    /// Adds a kind of transform, as [`Self::with_source`].
    #[must_use]
    pub fn with_transform<C: TransformConfig>(
        mut self,
        name: &'static str,
        summary: &'static str,
    ) -> Self {
        add(&mut self.transforms, transform_kind::<C>(name, summary));
        self
    }

    /// Adds a kind of sink, as [`Self::with_source`].
    #[must_use]
    pub fn with_sink<C: SinkConfig>(mut self, name: &'static str, summary: &'static str) -> Self {
        add(&mut self.sinks, sink_kind::<C>(name, summary));
        self
    }
}

fn add<P>(kinds: &mut Vec<ComponentKind<P>>, added: ComponentKind<P>) {
    kinds.retain(|kind| kind.name != added.name);
    kinds.push(added);
}
