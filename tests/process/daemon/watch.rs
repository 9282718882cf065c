//! Folders that are watched: what comes is taken once it is complete, whatever happens to the
//! process.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::process::Daemon;
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

/// The names of what came through, and of what was refused.
pub fn kept(folder: &Path) -> (Vec<String>, Vec<String>) {
    let names = |folder: &Path| {
        let records = records(folder, &["source"]);
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

/// What is to come of the images with these numbers, under a name for each.
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

pub fn done(daemon: &Daemon, folder: &Path, records: usize) {
    daemon.wait("all records", || {
        let (sound, broken) = kept(folder);
        (sound.len() + broken.len() >= records).then_some(())
    });
}

#[test]
fn files_are_taken_once_however_they_come() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let copy = |number: usize, to: &Path| {
        fs::copy(made.join(image_name(number)), to).unwrap();
    };
    (0..10).for_each(|number| copy(number, &watched.join(image_name(number))));
    let daemon = Daemon::start(site.path());
    // Written in place, renamed in, in a folder that is made, in one that is moved in.
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
    done(&daemon, site.path(), 50);
    // What is there already is not taken again, and what is removed is not missed.
    fs::remove_file(watched.join(image_name(0))).unwrap();
    copy(50, &watched.join(image_name(50)));
    done(&daemon, site.path(), 51);
    let log = daemon.stop();
    assert!(log.contains("committed"), "{log}");
    let name = |number: usize| match number {
        30..40 => format!("made/deeper/{}", image_name(number)),
        40..50 => format!("moved/{}", image_name(number)),
        _ => image_name(number),
    };
    let all = || (0..51).map(|number| (number, name(number)));
    assert_eq!(kept(site.path()), expected(all()));
    // A restart finds nothing new; a batch run over the same folder neither.
    let daemon = Daemon::start(site.path());
    copy(51, &watched.join(image_name(51)));
    done(&daemon, site.path(), 52);
    daemon.stop();
    let batch = PIPELINE.replace("watch = true\nrescan = \"1s\"\n", "");
    let (output, summary) = crate::common::runs::run(site.path(), &batch, &[]);
    assert_eq!(
        (output.status.code(), &summary["records"]),
        (Some(0), &0.into()),
        "{output:?}"
    );
    assert_eq!(
        kept(site.path()),
        expected(all().chain([(51, image_name(51))]))
    );
}

#[test]
fn a_file_that_is_told_of_and_found_at_once_is_taken_once() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    fs::write(
        site.path().join("p.toml"),
        PIPELINE.replace("rescan = \"1s\"", "rescan = \"100ms\""),
    )
    .unwrap();
    let daemon = Daemon::start(site.path());
    // For longer than a file is waited for that was found.
    for number in 0..60 {
        fs::copy(
            made.join(image_name(number)),
            watched.join(image_name(number)),
        )
        .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    done(&daemon, site.path(), 60);
    daemon.stop();
    assert_eq!(
        kept(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
}

#[test]
fn a_file_that_is_written_anew_is_another() {
    let site = site();
    let watched = site.path().join("in");
    let daemon = Daemon::start(site.path());
    for number in [1, 2] {
        fs::copy(
            site.path().join("made").join(image_name(number)),
            watched.join("one.pgm"),
        )
        .unwrap();
        done(&daemon, site.path(), number);
    }
    daemon.stop();
    assert_eq!(kept(site.path()).0, ["one.pgm", "one.pgm"]);
}

#[test]
fn kills_lose_nothing_and_take_nothing_twice() {
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
            done(&daemon, site.path(), 60)
        }
    }
    assert_eq!(
        kept(site.path()),
        expected((0..60).map(|number| (number, image_name(number))))
    );
}

#[test]
fn rows_are_not_given_out_again_when_the_journal_has_forgotten_them() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    for number in [0, 1] {
        let daemon = Daemon::start(site.path());
        fs::copy(
            made.join(image_name(number)),
            watched.join(image_name(number)),
        )
        .unwrap();
        done(&daemon, site.path(), number + 1);
        daemon.stop();
        fs::remove_file(watched.join(image_name(number))).unwrap();
        fs::remove_dir_all(site.path().join("out/_latentflow/watched")).unwrap();
    }
    assert_eq!(
        kept(site.path()),
        expected(
            [0, 1]
                .map(|number| (number, image_name(number)))
                .into_iter()
        )
    );
}

#[test]
fn file_that_returns_with_its_content_is_the_same() {
    let site = site();
    let (made, watched) = (site.path().join("made"), site.path().join("in"));
    let copy = |number: usize, name: &str| {
        fs::copy(made.join(image_name(number)), watched.join(name)).unwrap();
    };
    let daemon = Daemon::start(site.path());
    copy(1, "one.pgm");
    done(&daemon, site.path(), 1);
    fs::remove_file(watched.join("one.pgm")).unwrap();
    copy(2, "two.pgm");
    done(&daemon, site.path(), 2);
    daemon.stop();
    copy(1, "one.pgm");
    let daemon = Daemon::start(site.path());
    copy(5, "three.pgm");
    done(&daemon, site.path(), 3);
    // Another content under a known name is another file.
    copy(4, "one.pgm");
    done(&daemon, site.path(), 4);
    daemon.stop();
    assert_eq!(
        kept(site.path()).0,
        ["one.pgm", "one.pgm", "three.pgm", "two.pgm"]
    );
}
