//! Unit tests of the module `shard_marker`.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::shard::Shard;
use crate::sink::ownership::file_lock::FileLock;
use crate::sink::ownership::shard_claim::{claim, parent};

fn shard(text: &str) -> Shard {
    text.parse().unwrap()
}

#[test]
fn first_shard_decides_the_number_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    let out = Location::from(folder.path().join("a/out").as_path());
    assert_eq!(shard_count(&out).unwrap(), None);
    claim(&out, shard("1/3")).unwrap();
    claim(&out, shard("2/3")).unwrap();
    assert_eq!(shard_count(&out).unwrap(), Some(3));
    let refused = claim(&out, shard("2/4"));
    assert!(
        matches!(&refused, Err(error) if error.code() == ErrorCode::OutputShards),
        "{refused:?}"
    );
    assert!(matches!(check_undivided(&out), Err(error) if error.code() == ErrorCode::OutputShards));
    let left: Vec<_> = fs::read_dir(out.join(STATE_DIR).to_path())
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "only the marker is left");
}

#[test]
fn threads_that_create_the_marker_agree_on_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = Location::from(folder.path());
    let claimed = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|count| {
                let (out, own) = (&out, shard(&format!("0/{count}")));
                scope.spawn(move || (count, claim(out, own).is_ok()))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined
            .filter(|(_, is_claimed)| *is_claimed)
            .collect::<Vec<_>>()
    });
    let count = shard_count(&out).unwrap().unwrap();
    assert_eq!(claimed, [(count, true)]);
}

#[test]
fn running_writer_without_shards_keeps_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = Location::from(folder.path());
    let lock = FileLock::acquire(folder.path()).unwrap();
    let refused = claim(&out, shard("0/2")).unwrap_err().to_string();
    assert!(refused.contains("a run without `--shard`"), "{refused}");
    assert_eq!(shard_count(&out).unwrap(), None);
    drop(lock);
    claim(&out, shard("0/2")).unwrap();
    let locked = FileLock::acquire(folder.path());
    assert!(
        matches!(&locked, Err(error) if error.code() == ErrorCode::OutputShards),
        "{locked:?}"
    );
}

#[test]
fn incomplete_marker_is_reported_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let out = Location::from(folder.path());
    fs::create_dir(folder.path().join(STATE_DIR)).unwrap();
    fs::write(marker(&out).to_path(), "").unwrap();
    let error = claim(&out, shard("0/2")).unwrap_err().to_string();
    assert!(
        error.contains("_latentflow/_shards.json: invalid record"),
        "{error}"
    );
}

#[test]
fn parent_is_that_of_the_folder_of_the_shard() {
    let own = shard("3/16");
    let parent = |path: &str| parent(&Location::Local(path.into()), own);
    assert_eq!(
        parent("out/shard-03-of-16"),
        Some(Location::Local("out".into()))
    );
    assert_eq!(parent("out/shard-03-of-16/_latentflow/rejects"), None);
    assert_eq!(parent("out/shard-04-of-16"), None);
}
