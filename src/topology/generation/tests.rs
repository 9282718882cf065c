//! Unit tests of the module `generation`.

#![allow(clippy::unwrap_used)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::error::code::ErrorCode;

/// A plan that can be built once, as if its files were replaced afterwards.
#[derive(Default)]
struct Once(AtomicBool);

struct Nothing;

impl TransformPlan for Once {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        match self.0.swap(true, Relaxed) {
            false => Ok(Box::new(Nothing)),
            true => Err(StageError::new(
                ErrorCode::Internal,
                "the files were replaced",
            )),
        }
    }
}

impl Transform for Nothing {
    fn apply(&mut self, batch: Batch, _: &mut RejectCollector) -> Result<Batch, StageError> {
        Ok(batch)
    }
}

fn generation(number: u64) -> Arc<Generation> {
    let kind = NodeKind::Transform(Arc::new(Once::default()));
    let nodes = vec![GraphNode {
        name: Arc::from("codes"),
        inputs: vec![],
        kind,
    }];
    let already_committed = vec![Coverage::default()];
    let graph = TransformGraph {
        nodes,
        consumers: vec![0],
        keeps_rejects: None,
        rejected: already_committed.clone(),
        already_committed,
    };
    Arc::new(Generation::new(number, graph, vec![]))
}

#[test]
fn old_generation_runs_after_newer_one_without_its_files() {
    let (old, new) = (generation(0), generation(1));
    let mut worker = WorkerGraph::new(&old).unwrap();
    for to in [&new, &old, &old, &new] {
        worker.change(to).unwrap();
        assert_eq!(worker.generation.number, to.number);
        assert!(worker.transforms[0].is_some());
    }
}

#[test]
fn generation_without_users_is_dropped() {
    let (old, new) = (generation(0), generation(1));
    let gone = Arc::downgrade(&old);
    let mut worker = WorkerGraph::new(&old).unwrap();
    worker.change(&new).unwrap();
    drop(old);
    assert!(gone.upgrade().is_none());
}
