//! Unit tests of the module `file_set`.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::testing::folder;
use super::*;

fn set(folder: &Path, path: &str) -> FileSet {
    FileSet::new(
        folder.join(path).to_str().unwrap().to_owned(),
        false,
        &["jpg", "png"],
    )
    .unwrap()
}

fn names(set: &FileSet) -> Vec<String> {
    set.list().unwrap().files.into_keys().collect()
}

#[test]
fn folder_selects_images_in_bytewise_order_and_any_case() {
    let folder = folder(&[
        "b.jpg",
        "a/z.PNG",
        "a-b.jpg",
        "a.jpg",
        "Z.jpg",
        "notes.txt",
        "jpg",
    ]);
    let found = names(&set(folder.path(), ""));
    assert_eq!(found, ["Z.jpg", "a-b.jpg", "a.jpg", "a/z.PNG", "b.jpg"]);
}

#[test]
fn glob_selects_its_matches_below_its_literal_folder() {
    let folder = folder(&[
        "p/a.jpg",
        "p/b.JPG",
        "p/c.bin",
        "p/.latentflow-c.bin.tmp",
        "p/s/d.jpg",
        "p/s/t/e.jpg",
        "q/f.jpg",
    ]);
    let found = |glob: &str| names(&set(folder.path(), glob));
    assert_eq!(found("p/*.jpg"), ["a.jpg"]);
    assert_eq!(found("p/*"), ["a.jpg", "b.JPG", "c.bin"]);
    assert_eq!(found("p/?.{bin,JPG}"), ["b.JPG", "c.bin"]);
    assert_eq!(found("p/**/*.jpg"), ["a.jpg", "s/d.jpg", "s/t/e.jpg"]);
    assert_eq!(found("*/[af].jpg"), ["p/a.jpg", "q/f.jpg"]);
    assert_eq!(found("p/{s/t/e,a}.jpg"), ["a.jpg", "s/t/e.jpg"]);
    assert_eq!(
        set(folder.path(), "p/*.jpg").list().unwrap().files_scanned,
        4
    );
}

#[test]
fn names_with_underscore_are_skipped_except_photographs() {
    let folder = folder(&[
        "_DSC1.JPG",
        "a/_MG_2.png",
        "_delta_log/a.jpg",
        "_temporary/0/a.jpg",
        "_latentflow/a.jpg",
        "b/_latentflow/c.jpg",
        ".a.jpg",
        "_SUCCESS",
        "a.heic",
        "b.HEIC",
        ".latentflow-c.jpg.tmp",
    ]);
    let photos = set(folder.path(), "").with_underscore_files();
    assert_eq!(names(&photos), ["_DSC1.JPG", "a/_MG_2.png"]);
    let expected = "2 .heic, 1 hidden (a name begins with `.`), \
             3 not data by convention (a name begins with `_`), 3 internal files of latentflow";
    assert_eq!(photos.skipped_files().get().to_string(), expected);
    let table = set(folder.path(), "");
    assert!(names(&table).is_empty());
    assert!(
        names(&set(folder.path(), "**/*.jpg"))
            .iter()
            .all(|name| !name.contains("_latentflow"))
    );
}

#[test]
fn existing_path_is_not_treated_as_glob() {
    let folder = folder(&["photos [2024]/a.jpg", "x*.dat", "xy.dat"]);
    assert_eq!(names(&set(folder.path(), "photos [2024]")), ["a.jpg"]);
    assert_eq!(names(&set(folder.path(), "x*.dat")), ["x*.dat"]);
}

#[test]
fn error_of_a_wrong_path_states_the_cause() {
    let folder = folder(&["a.txt"]);
    let missing = set(folder.path(), "none").list().unwrap_err().to_string();
    assert!(
        missing.contains("/none` does not exist; expected a folder, a file, or a glob"),
        "{missing}"
    );
    assert!(
        set(folder.path(), "none/*.jpg")
            .list()
            .unwrap_err()
            .to_string()
            .contains("No such file or directory")
    );
    let nothing = set(folder.path(), "*.jpg");
    let nothing = nothing.no_matches(&nothing.list().unwrap()).to_string();
    assert!(
        nothing.ends_with(": skips 1 not matched by the glob; files scanned: 1; none matches"),
        "{nothing}"
    );
    assert_eq!(
        FileSet::new("a/[".into(), false, &[]).unwrap_err().key,
        "path"
    );
    assert_eq!(
        FileSet::new(String::new(), false, &[]).unwrap_err().key,
        "path"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_only_if_configured_and_loops_end() {
    use std::os::unix::fs::symlink;
    let folder = folder(&["a/x.jpg", "b/y.jpg"]);
    symlink("../b", folder.path().join("a/link")).unwrap();
    symlink("..", folder.path().join("a/loop")).unwrap();
    symlink("../b/y.jpg", folder.path().join("a/z.jpg")).unwrap();
    symlink("nowhere", folder.path().join("a/broken.jpg")).unwrap();
    let mut set = set(folder.path(), "a");
    assert_eq!(names(&set), ["x.jpg"]);
    assert_eq!(set.skipped_files().get().links(), 4);
    fs::remove_file(folder.path().join("a/x.jpg")).unwrap();
    let nothing = set.no_matches(&set.list().unwrap()).to_string();
    assert!(nothing.ends_with("; symbolic links skipped: 4 (`follow_links = true` follows them)"));
    fs::write(folder.path().join("a/x.jpg"), "x").unwrap();
    set.follow_links = true;
    let found = names(&set);
    assert!(
        ["link/y.jpg", "x.jpg", "z.jpg"]
            .iter()
            .all(|name| found.contains(&(*name).to_owned())),
        "{found:?}"
    );
}
