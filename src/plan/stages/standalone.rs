//! Plans single stages, and the stages of which only stored values are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use crate::config::settings::StageTable;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::plan::stage_identity::ResolveOptions;
use crate::plan::stages::kind_lookup::AnyKind;
use crate::plan_context::PlanContext;
use crate::registry::{self, ComponentKind, OptionAttributes, RenamedKeys, ResolvedStage};
use crate::shard::Shard;
use crate::sink::Sink;
use crate::source::Source;
use crate::source::batch_size::{BatchCap, BatchSize};
use crate::source::discovery::share::SourceShare;
use crate::transform::TransformPlan;

/// Returns the attributes of the options of a kind, by their stored names.
pub(crate) fn stored_attributes(
    kind: &AnyKind<'_>,
    renamed: &RenamedKeys,
) -> BTreeMap<String, OptionAttributes> {
    let declared = registry::option_attributes(kind.schema()).into_iter();
    let stored = |(key, option): (String, OptionAttributes)| {
        let former = option.former_default.unwrap_or_default();
        let (name, former) = renamed.stored_option(key, former);
        let former_default = Some(former).filter(|former| !former.is_null());
        (
            name,
            OptionAttributes {
                former_default,
                ..option
            },
        )
    };
    declared.map(stored).collect()
}

/// Converts options from their stored names, resolves them, and returns them under their stored
/// names.
pub(crate) fn resolve_stored(renamed: RenamedKeys, resolve: ResolveOptions) -> ResolveOptions {
    Box::new(move |options| {
        let resolved = (resolve)(renamed.current(options))?;
        Some(renamed.stored(resolved))
    })
}

/// A planned stage without the stages upstream of it.
pub(crate) struct StandaloneStage {
    pub(crate) part: StageComponent,
    /// The resolved options.
    pub(crate) options: Map<String, Value>,
    /// The options as written, without the `batch` of a source.
    pub(crate) written: Map<String, Value>,
    pub(crate) resolve: ResolveOptions,
    /// Facts on which the rows depend in addition to the options.
    pub(crate) dependency: Option<String>,
}

/// The name under which the number of shards is recorded with the options of a source, which have
/// no such key. Its presence makes the output of another number of shards another output.
const SHARDS: &str = "shards";

impl StandaloneStage {
    /// Adds the number of shards to the options of a source.
    ///
    /// # Errors
    /// A fault if the inputs of the source cannot be divided.
    fn of_shard(self, kind: &str, shard: Option<Shard>) -> Result<Self, Vec<ConfigError>> {
        let StageComponent::Source(source, _) = &self.part else {
            return Ok(self);
        };
        if let Some(shard) = shard
            && source.share().and_then(SourceShare::shard) != Some(shard)
        {
            let message = format!(
                "the inputs of a source `{kind}` cannot be listed and divided into shards; run the \
                 pipeline without --shard, or use a source that reads files"
            );
            return Err(vec![ConfigError::new("kind", message)]);
        }
        let Self {
            mut options,
            mut written,
            resolve,
            ..
        } = self;
        if let Some(shard) = shard {
            for recorded in [&mut options, &mut written] {
                recorded.insert(SHARDS.to_owned(), shard.count().into());
            }
        }
        // The kind resolves the recorded options without the number of shards.
        let resolve: ResolveOptions = Box::new(move |mut recorded| {
            let shards = recorded.remove(SHARDS);
            let mut resolved = (resolve)(recorded)?;
            resolved.extend(shards.map(|shards| (SHARDS.to_owned(), shards)));
            Some(resolved)
        });
        Ok(Self {
            options,
            written,
            resolve,
            ..self
        })
    }
}

/// A planned source, transform or sink.
pub(crate) enum StageComponent {
    Source(Box<dyn Source>, BatchSize),
    Transform(Arc<dyn TransformPlan>),
    Sink(Box<dyn Sink>),
}

impl StageComponent {
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Source(source, _) => Some(source.schema()),
            Self::Transform(transform) => Some(transform.schema()),
            Self::Sink(_) => None,
        }
    }
}

pub(crate) fn plan_alone(
    found: &AnyKind<'_>,
    table: &StageTable,
    input: Option<SchemaRef>,
    context: &Arc<PlanContext>,
    cap: Option<BatchCap>,
) -> Result<StandaloneStage, Vec<ConfigError>> {
    let mut written = table.options.as_object().cloned().unwrap_or_default();
    let shard = context.shard;
    let shared = Arc::clone(context);
    match (found, input) {
        (AnyKind::Source(kind), _) => {
            let (batch, name) = (
                written.remove("batch").unwrap_or(Value::Null),
                table.name.clone(),
            );
            let (batch, faults) = registry::parse_options_lenient::<BatchSize>(batch);
            let batch = BatchSize {
                most: cap,
                ..batch.unwrap_or_default()
            };
            let plan = kind.plan;
            let planned = (plan)(&name, Value::Object(written.clone()), batch, context);
            let mut faults: Vec<ConfigError> = faults
                .into_iter()
                .map(|fault| fault.within("batch"))
                .collect();
            let planned = faults.record_all(planned);
            let (Some(ResolvedStage { stage, options }), true) = (planned, faults.is_empty())
            else {
                return Err(faults);
            };
            let resolve = move |recorded| {
                let again = (plan)(&name, Value::Object(recorded), batch, &shared);
                Some(again.ok()?.options)
            };
            let part = StageComponent::Source(stage, batch);
            let standalone = StandaloneStage {
                part,
                options,
                written,
                resolve: Box::new(resolve),
                dependency: None,
            };
            standalone.of_shard(kind.name, shard)
        }
        (AnyKind::Transform(kind), Some(input)) => {
            let plan = kind.plan;
            let ResolvedStage { stage, options } = (plan)(table.options.clone(), &input, context)?;
            let resolve = move |recorded| {
                let planned = (plan)(Value::Object(recorded), &input, &shared);
                Some(planned.ok()?.options)
            };
            let dependency = stage.depends_on();
            Ok(StandaloneStage {
                part: StageComponent::Transform(Arc::from(stage)),
                options,
                written,
                resolve: Box::new(resolve),
                dependency,
            })
        }
        (AnyKind::Sink(kind), Some(input)) => {
            let plan = kind.plan;
            let ResolvedStage { stage, options } = (plan)(table.options.clone(), &input, context)?;
            let resolve = move |recorded| {
                let planned = (plan)(Value::Object(recorded), &input, &shared);
                Some(planned.ok()?.options)
            };
            Ok(StandaloneStage {
                part: StageComponent::Sink(stage),
                options,
                written,
                resolve: Box::new(resolve),
                dependency: None,
            })
        }
        (AnyKind::Transform(ComponentKind { check, .. }), None)
        | (AnyKind::Sink(ComponentKind { check, .. }), None) => Err((check)(table.options.clone())),
    }
}
