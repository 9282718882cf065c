//! The recognition of the writers of an output, whose stages may have the same meaning as those of
//! the plan with other digest rules or another spelling of options.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::sink::identity::OutputIdentity;
use crate::sink::identity::history::OutputHistory;
use crate::sink::identity::stage::StageIdentity;

impl OutputHistory {
    /// Finds the writers that are equal to `mine` with other digests, and adds these digests to
    /// `mine`. The options of the other writers are converted to the form of the plan, so that a
    /// refusal lists only differences in meaning.
    pub fn recognize(&mut self, mine: &mut OutputIdentity) {
        for (found, _) in &mut self.writers {
            if !mine.is_same(found) {
                recognize(mine, found);
            }
        }
    }
}

impl OutputIdentity {
    /// Whether another writer has the same meaning, regardless of the spelling of its options.
    pub(crate) fn has_same_meaning(&self, other: &Self) -> bool {
        let (mut mine, mut other) = (self.clone(), other.clone());
        recognize(&mut mine, &mut other);
        mine.is_same(&other)
    }
}

fn recognize(mine: &mut OutputIdentity, found: &mut OutputIdentity) {
    let understood: BTreeMap<String, Map<String, Value>> = mine
        .stages
        .iter()
        .filter_map(|(name, stage)| {
            let recorded = found
                .stages
                .get(name)
                .filter(|recorded| recorded.kind == stage.kind)?;
            Some((
                name.clone(),
                stage
                    .reader
                    .interpreter
                    .as_ref()?
                    .parse_recorded(recorded)?,
            ))
        })
        .collect();
    for (name, digest) in same_stages(mine, found, &understood) {
        if let Some(stage) = mine.stages.get_mut(&name) {
            stage.add_former(&digest);
        }
    }
    // Transforms and sinks may have been renamed.
    for stage in mine.stages.values_mut() {
        let former = stage
            .reader
            .interpreter
            .as_ref()
            .map(|reading| reading.former().to_owned());
        if let Some(former) = former.filter(|former| {
            found
                .stages
                .values()
                .any(|recorded| recorded.digest == *former)
        }) {
            stage.add_former(&former);
        }
    }
    if mine.is_same(found) && mine.digest != found.digest {
        mine.formers.push(found.digest.clone());
    }
    for (name, options) in understood {
        let reading = mine
            .stages
            .get(&name)
            .and_then(|stage| stage.reader.interpreter.as_ref());
        if let (Some(reading), Some(recorded)) = (reading, found.stages.get_mut(&name)) {
            recorded.options = reading.as_recorded(recorded, options);
        }
    }
}

/// The stages of `mine` that `found` has with the same name and the same meaning, with their
/// digests in `found`. A stage is the same if its recorded digest follows from its recorded options
/// and from inputs that are the same.
fn same_stages(
    mine: &OutputIdentity,
    found: &OutputIdentity,
    understood: &BTreeMap<String, Map<String, Value>>,
) -> BTreeMap<String, String> {
    let mut same: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let known = same.len();
        for (name, stage) in mine
            .stages
            .iter()
            .filter(|(name, _)| understood.contains_key(*name))
        {
            let is_same = |recorded: &StageIdentity| {
                let reading = stage.reader.interpreter.as_ref()?;
                let inputs = reading
                    .inputs()
                    .iter()
                    .map(|input| same.get(input).map(String::as_str));
                let inputs: Option<Vec<&str>> = inputs.collect();
                let digest = reading.digest(recorded.version, &recorded.options, &inputs?)?;
                Some(digest == recorded.digest && reading.is_same(understood.get(name)?))
            };
            let recorded = found.stages.get(name).filter(|_| !same.contains_key(name));
            if let Some(recorded) = recorded.filter(|recorded| is_same(recorded) == Some(true)) {
                same.insert(name.clone(), recorded.digest.clone());
            }
        }
        if same.len() == known {
            return same;
        }
    }
}

#[cfg(test)]
mod tests;
