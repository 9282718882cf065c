//! Unit tests of the module `name_log`.

#![allow(clippy::unwrap_used)]

use super::*;

fn append(root: &Path, names: &[&str]) -> u64 {
    let mut log = NameLog::open(root, u64::MAX).unwrap();
    log.append(names.iter().copied()).unwrap();
    log.bytes()
}

#[test]
fn files_of_interrupted_commit_are_removed() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("a")).unwrap();
    for name in [
        "a/done.png",
        "a/given.png",
        "a/foreign.png",
        "a/.latentflow-foreign.png.tmp",
    ] {
        fs::write(root.path().join(name), b"x").unwrap();
    }
    let done = append(root.path(), &["a/done.png"]);
    append(
        root.path(),
        &[
            "a/given.png",
            "a/foreign.png",
            "a/absent.png",
            "b/absent.png",
        ],
    );
    let open = NameLog::open(root.path(), done).unwrap();
    let exists = |name: &str| root.path().join(name).exists();
    assert!(exists("a/done.png") && exists("a/foreign.png") && !exists("a/given.png"));
    assert_eq!(
        (
            open.bytes(),
            fs::read_to_string(log_path(root.path())).unwrap()
        ),
        (done, "a/done.png\n".to_owned())
    );
    assert!(open.contains("a/done.png").unwrap() && !open.contains("a/given.png").unwrap());
}

#[test]
fn names_outside_of_the_folder_are_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let mut names = vec![victim.to_str().unwrap(), "../victim", "", "."];
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        names.push("link/victim");
    }
    append(root.path(), &names);
    // The last line is incomplete.
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(log_path(root.path()))
        .unwrap();
    file.write_all(b"victim").unwrap();
    NameLog::open(root.path(), 0).unwrap();
    NameLog::reset(root.path(), true).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn reset_counts_and_removes_files_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("own.png"), b"123").unwrap();
    fs::write(root.path().join("other.png"), b"123").unwrap();
    append(root.path(), &["own.png", "moved-away.png"]);
    for remove in [false, true] {
        let found = NameLog::reset(root.path(), remove).unwrap();
        assert_eq!((found.files, found.records, found.bytes), (1, 1, 3));
    }
    assert_eq!(
        NameLog::reset(root.path(), false).unwrap(),
        CommitStats::default()
    );
    assert!(!root.path().join("own.png").exists() && root.path().join("other.png").exists());
}

#[test]
fn damaged_lines_are_not_names_of_files() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.png"), b"x").unwrap();
    let long = "b".repeat(300);
    append(root.path(), &["\0\0c.png", &long, "a.png"]);
    assert_eq!(NameLog::open(root.path(), 0).unwrap().bytes(), 0);
    assert!(!root.path().join("a.png").exists());
}
