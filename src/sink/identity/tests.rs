//! Unit tests of the module `output_identity`.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::batch::provenance::{Provenance, Split};
use crate::coverage::Coverage;
use crate::sink::identity::history::OutputHistory;
use crate::storage::Location;

/// An identity with stages of the given name, kind, digest and options.
fn identity(digest: &str, stages: &[(&str, &str, &str, Value)]) -> OutputIdentity {
    let stage = |(name, kind, stage_digest, options): &(&str, &str, &str, Value)| {
        let options = options.as_object().unwrap().clone();
        (
            (*name).to_owned(),
            StageIdentity {
                kind: (*kind).to_owned(),
                digest: (*stage_digest).to_owned(),
                options,
                ..StageIdentity::default()
            },
        )
    };
    OutputIdentity {
        pipeline: "photos".into(),
        stage: "out".into(),
        digest: digest.into(),
        stages: stages.iter().map(stage).collect(),
        ..OutputIdentity::default()
    }
}

fn history(writers: &[&OutputIdentity]) -> OutputHistory {
    let mut history = OutputHistory::default();
    for (n, identity) in (0..).zip(writers) {
        let mut coverage = Coverage::default();
        coverage.insert(&Provenance::rows(Split::new("s"), n * 10..n * 10 + 10));
        history.add(identity, &coverage);
    }
    history
}

fn folder() -> Location {
    Location::Local("out".into())
}

fn refusal(history: &OutputHistory, mine: &OutputIdentity, scope: IdentityScope, expected: Expect) {
    let refusal = history
        .check_compatible(&folder(), mine, scope)
        .map_or_else(|error| error.to_string(), |()| "ok".into());
    expected.assert_eq(&refusal);
}

#[test]
fn refusal_lists_changed_options_and_stages() {
    let before = identity(
        "1",
        &[
            ("in", "images", "a", json!({"path": "x"})),
            ("px", "pixels", "b", json!({"size": [64, 64]})),
            ("old", "filter", "c", json!({})),
        ],
    );
    let now = identity(
        "2",
        &[
            ("in", "images", "a", json!({"path": "x"})),
            (
                "px",
                "pixels",
                "d",
                json!({"size": [32, 32], "fit": "crop"}),
            ),
        ],
    );
    refusal(
        &history(&[&before]),
        &before,
        IdentityScope::Sink,
        expect!["ok"],
    );
    refusal(
        &history(&[&before]),
        &now,
        IdentityScope::Sink,
        expect![
            "out: was written with a different configuration (stage `out` of pipeline \
                 `photos`): `fit` of the stage `px` was unset and is \"crop\" now, `size` of the \
                 stage `px` was [64,64] and is [32,32] now, the stage `old` was removed; use \
                 another path, delete the rows with `latentflow reset`, or allow both with \
                 `--allow-change`"
        ],
    );
}

#[test]
fn only_accepted_digests_are_allowed_together() {
    let (one, two, three) = (identity("1", &[]), identity("2", &[]), identity("3", &[]));
    let mut history = history(&[&one]);
    history.allow_mixing(&["1".into(), "2".into()]);
    refusal(&history, &two, IdentityScope::Sink, expect!["ok"]);
    assert!(
        history
            .check_compatible(&folder(), &three, IdentityScope::Sink)
            .is_err()
    );
}

#[test]
fn rejects_are_compared_by_stage() {
    let before = identity(
        "1",
        &[
            ("in", "csv", "a", json!({})),
            ("gone", "filter", "b", json!({})),
        ],
    );
    let more = identity(
        "2",
        &[
            ("in", "csv", "a", json!({})),
            ("new", "filter", "c", json!({})),
        ],
    );
    let history = history(&[&before, &more]);
    refusal(&history, &more, IdentityScope::Rejects, expect!["ok"]);
    let other = identity("3", &[("in", "csv", "z", json!({"path": 1}))]);
    assert!(
        history
            .check_compatible(&folder(), &other, IdentityScope::Rejects)
            .is_err()
    );
    let done = |name: &str, stage: &str| history.coverage_of(name, &more.stages[stage]).len();
    assert_eq!(
        [done("in", "in"), done("new", "new"), done("renamed", "new")],
        [20, 10, 10]
    );
    let never = StageIdentity {
        digest: "never".into(),
        ..StageIdentity::default()
    };
    assert_eq!(history.coverage_of("never", &never).len(), 0);
}

#[test]
fn rejects_of_sink_are_identified_by_kind_and_options() {
    let sink = |digest: &str, options: Value| {
        let options = options.as_object().unwrap().clone();
        StageIdentity {
            kind: "images".into(),
            digest: digest.into(),
            options,
            ..StageIdentity::default()
        }
    };
    let jpegs = sink("a", json!({"format": "jpeg"}));
    // Rows 0..10 are of a version whose sinks did not reject records, rows 10..20 of a later
    // one.
    let before = identity("1", &[]);
    let now = OutputIdentity {
        sinks: BTreeMap::from([("out".into(), jpegs.clone())]),
        ..identity("2", &[])
    };
    let history = history(&[&before, &now]);
    let mut held = Coverage::default();
    held.insert(&Provenance::rows(Split::new("s"), 5..30));
    let covered = |stage: &StageIdentity, coverage: &Coverage| {
        let covered = history.coverage_of_sink(stage, coverage);
        covered
            .splits()
            .get("s")
            .map(|rows| rows.ranges().cloned().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    assert_eq!(covered(&jpegs, &held), vec![5..20]);
    assert_eq!(
        covered(
            &sink("other models", json!({"format": "jpeg"})),
            &Coverage::default()
        ),
        vec![10..20]
    );
    assert_eq!(
        covered(&sink("a", json!({"format": "webp"})), &Coverage::default()),
        vec![]
    );
}
