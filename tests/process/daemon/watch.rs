//! Tests of watched folders: each complete file becomes a record once, also after kills.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::inputs::{image_name, images, is_broken};
use crate::common::outputs::{ids, records};

pub const PIPELINE: &str = r#"
[stages.in]
kind = "images"
path = "in"
watch = true
rescan = "1s"
batch = { records = 4, delay = "10ms" }

[stages.pixels]
kind = "pixels"
inputs = ["in"]
size = [4, 4]
channels = "gray"

[stages.out]
kind = "parquet"
inputs = ["pixels"]
path = "out"
columns = ["source", "row"]

[commit]
age = "100ms"
"#;

pub fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::create_dir(folder.path().join("made")).unwrap();
    fs::write(folder.path().join("p.toml"), PIPELINE).unwrap();
    images(&folder.path().join("made"), 60);
    folder
}

/// The sources of the committed records and of the rejects.
pub fn outcomes(folder: &Path) -> (Vec<String>, Vec<String>) {
    let names = |dataset: &Path| {
        let records = records(dataset, &["source"]);
        ids(&records)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    (
        names(&folder.join("out")),
        names(&folder.join("out/_latentflow/rejects")),
    )
}

/// The sources of records and rejects that the images with these numbers and names result in.
pub fn expected(named: impl Iterator<Item = (usize, String)>) -> (Vec<String>, Vec<String>) {
    let (mut sound, mut broken) = (Vec::new(), Vec::new());
    named.for_each(|(number, name)| {
        if is_broken(number) {
            &mut broken
        } else {
            &mut sound
        }
        .push(name)
    });
    sound.sort();
    broken.sort();
    (sound, broken)
}

/// Waits until `records` records are committed, rejects included.
pub fn wait_for_records(daemon: &Daemon, folder: &Path, records: usize) {
    daemon.wait("all records", || {
        let (sound, broken) = outcomes(folder);
        (sound.len() + broken.len() >= records).then_some(())
    });
}

#[test]
fn files_are_read_once_however_they_arrive() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let copy = |number: usize, to: &Path| {
        fs::copy(made.join(image_name(number)), to).unwrap();
    };
    (0..10).for_each(|number| copy(number, &watched.join(image_name(number))));
    let daemon = Daemon::start(site.path());
    // Files written in place, renamed, in a folder that is created, in one that is moved here.
    (10..20).for_each(|number| copy(number, &watched.join(image_name(number))));
    for number in 20..30 {
        let hidden = watched.join(format!(".{}", image_name(number)));
        copy(number, &hidden);
        fs::rename(&hidden, watched.join(image_name(number))).unwrap();
    }
    fs::create_dir_all(watched.join("made/deeper")).unwrap();
    (30..40).for_each(|number| {
        copy(
            number,
            &watched.join("made/deeper").join(image_name(number)),
        )
    });
    fs::create_dir(site.path().join("moved")).unwrap();
    (40..50).for_each(|number| copy(number, &site.path().join("moved").join(image_name(number))));
    fs::rename(site.path().join("moved"), watched.join("moved")).unwrap();
    fs::write(watched.join("notes.txt"), "no image").unwrap();
    wait_for_records(&daemon, site.path(), 50);
    // Files that were read are not read again, and a removed file has no effect.
    fs::remove_file(watched.join(image_name(0))).unwrap();
    copy(50, &watched.join(image_name(50)));
    wait_for_records(&daemon, site.path(), 51);
    let log = daemon.stop();
    assert!(
        log.contains("the run ends: a shutdown was requested"),
        "{log}"
    );
    let name = |number: usize| match number {
        30..40 => format!("made/deeper/{}", image_name(number)),
        40..50 => format!("moved/{}", image_name(number)),
        _ => image_name(number),
    };
    let all = || (0..51).map(|number| (number, name(number)));
    assert_eq!(outcomes(site.path()), expected(all()));
    // A restart reads only the new file; a bounded run over the same folder reads none.
    let restarted = Daemon::start(site.path());
    copy(51, &watched.join(image_name(51)));
    wait_for_records(&restarted, site.path(), 52);
    restarted.stop();
    let batch = PIPELINE.replace("watch = true\nrescan = \"1s\"\n", "");
    let (output, summary) = crate::common::runs::run(site.path(), &batch, &[]);
    assert_eq!(
        (output.status.code(), &summary["records"]),
        (Some(0), &0.into()),
        "{output:?}"
    );
    assert_eq!(
        outcomes(site.path()),
        expected(all().chain([(51, image_name(51))]))
    );
}

#[test]
fn file_reported_by_event_and_by_rescan_is_read_once() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    fs::write(
        site.path().join("p.toml"),
        PIPELINE.replace("rescan = \"1s\"", "rescan = \"100ms\""),
    )
    .unwrap();
    let daemon = Daemon::start(site.path());
    // The loop takes longer than the time after which a found file counts as stable.
    for number in 0..60 {
        fs::copy(
            made.join(image_name(number)),
            watched.join(image_name(number)),
        )
        .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    wait_for_records(&daemon, site.path(), 60);
    daemon.stop();
    assert_eq!(
        outcomes(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
}

#[test]
fn rewritten_file_is_another_record() {
    let site = site();
    let watched = site.path().join("in");
    let daemon = Daemon::start(site.path());
    for number in [1, 2] {
        fs::copy(
            site.path().join("made").join(image_name(number)),
            watched.join("one.pgm"),
        )
        .unwrap();
        wait_for_records(&daemon, site.path(), number);
    }
    daemon.stop();
    assert_eq!(outcomes(site.path()).0, ["one.pgm", "one.pgm"]);
}

#[test]
fn kills_lose_no_record_and_duplicate_none() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let mut next = 0;
    for round in 0..6 {
        let daemon = Daemon::start(site.path());
        for _ in 0..10 {
            fs::copy(made.join(image_name(next)), watched.join(image_name(next))).unwrap();
            next += 1;
            std::thread::sleep(std::time::Duration::from_millis(5 + 7 * round));
        }
        if round < 5 {
            daemon.kill()
        } else {
            wait_for_records(&daemon, site.path(), 60)
        }
    }
    assert_eq!(
        outcomes(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
}

#[test]
fn rows_are_not_reused_after_the_journal_is_deleted() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    for number in [0, 1] {
        let daemon = Daemon::start(site.path());
        fs::copy(
            made.join(image_name(number)),
            watched.join(image_name(number)),
        )
        .unwrap();
        wait_for_records(&daemon, site.path(), number + 1);
        daemon.stop();
        fs::remove_file(watched.join(image_name(number))).unwrap();
        fs::remove_dir_all(site.path().join("out/_latentflow/watched")).unwrap();
    }
    assert_eq!(
        outcomes(site.path()),
        expected(
            [0, 1]
                .map(|number| (number, image_name(number)))
                .into_iter()
        )
    );
}

#[test]
fn file_that_returns_with_same_content_is_not_read_again() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let copy = |number: usize, name: &str| {
        fs::copy(made.join(image_name(number)), watched.join(name)).unwrap();
    };
    let daemon = Daemon::start(site.path());
    copy(1, "one.pgm");
    wait_for_records(&daemon, site.path(), 1);
    fs::remove_file(watched.join("one.pgm")).unwrap();
    copy(2, "two.pgm");
    wait_for_records(&daemon, site.path(), 2);
    daemon.stop();
    copy(1, "one.pgm");
    let restarted = Daemon::start(site.path());
    copy(5, "three.pgm");
    wait_for_records(&restarted, site.path(), 3);
    // Another content under a known name is another file.
    copy(4, "one.pgm");
    wait_for_records(&restarted, site.path(), 4);
    restarted.stop();
    assert_eq!(
        outcomes(site.path()).0,
        ["one.pgm", "one.pgm", "three.pgm", "two.pgm"]
    );
}

#[test]
fn shards_of_a_watched_folder_read_each_file_once() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let copy = |numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| {
            let name = image_name(number);
            fs::copy(made.join(&name), watched.join(&name)).unwrap();
        });
    };
    let outcomes = || {
        let mut all = (Vec::new(), Vec::new());
        for index in 0..2 {
            let out = site.path().join(format!("out/shard-{index}-of-2"));
            let found = |dataset: &Path| {
                let found = records(dataset, &["source"]);
                ids(&found)
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            all.0.extend(found(&out));
            all.1.extend(found(&out.join("_latentflow/rejects")));
        }
        all.0.sort();
        all.1.sort();
        all
    };
    let named = |count: usize| expected((0..count).map(|number| (number, image_name(number))));
    // The first files are listed by runs that end; the others arrive while both shards watch.
    copy(0..20);
    let batch = PIPELINE.replace("watch = true\nrescan = \"1s\"\n", "");
    for shard in ["0/2", "1/2"] {
        let (output, _) = crate::common::runs::run(site.path(), &batch, &["--shard", shard]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(outcomes(), named(20));
    fs::write(site.path().join("p.toml"), PIPELINE).unwrap();
    let daemons = ["0/2", "1/2"].map(|shard| Daemon::start_shard(site.path(), shard));
    copy(20..50);
    daemons[0].wait("the records of both shards", || {
        let (sound, broken) = outcomes();
        (sound.len() + broken.len() >= 50).then_some(())
    });
    daemons.into_iter().for_each(|daemon| {
        daemon.stop();
    });
    assert_eq!(outcomes(), named(50));
    for shard in ["0/2", "1/2"] {
        let (output, summary) = crate::common::runs::run(site.path(), &batch, &["--shard", shard]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(summary["records"], 0);
    }
    // A share without files is not mistaken for a disk that is not mounted.
    let share = site.path().join("out/shard-0-of-2");
    for dataset in [share.clone(), share.join("_latentflow/rejects")] {
        for name in ids(&records(&dataset, &["source"])) {
            fs::remove_file(watched.join(name)).unwrap();
        }
    }
    fs::write(site.path().join("p.toml"), PIPELINE).unwrap();
    let log = Daemon::start_shard(site.path(), "0/2").stop();
    assert!(!log.contains("waiting for the watched folder"), "{log}");
}
