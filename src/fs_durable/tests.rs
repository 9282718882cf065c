//! Unit tests of the module `fs_durable`.

#![allow(clippy::unwrap_used)]

use super::*;

#[cfg(unix)]
#[test]
fn files_in_a_private_folder_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let place = folder.path().join("a/private");
    create_private_dir(&place).unwrap();
    write_atomically(&place.join("original"), b"x").unwrap();
    write_atomically(&folder.path().join("a/data"), b"x").unwrap();
    assert_eq!(
        (mode(&place), mode(&place.join("original"))),
        (0o700, 0o600)
    );
    assert_eq!(
        mode(&folder.path().join("a/data")) & 0o066,
        mode(&folder.path().join("a")) & 0o066,
        "the umask decides"
    );
}

#[test]
fn file_is_replaced_and_no_temporary_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file.json");
    write_atomically(&path, b"old").unwrap();
    write_atomically(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn only_temporary_files_of_a_crash_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::create_dir(folder.path().join(".latentflow-folder")).unwrap();
    for name in [
        ".latentflow-a.png.tmp",
        "sub/.latentflow-b.png.tmp",
        "sub/c.png",
        ".hidden",
        "_latentflow",
    ] {
        fs::write(folder.path().join(name), b"x").unwrap();
    }
    let left = |name: &str| folder.path().join(name).exists();
    remove_stale_temp_files(folder.path(), 1).unwrap();
    assert!(!left(".latentflow-a.png.tmp") && left("sub/.latentflow-b.png.tmp"));
    remove_stale_temp_files(folder.path(), usize::MAX).unwrap();
    remove_stale_temp_files(&folder.path().join("absent"), usize::MAX).unwrap();
    assert!(!left(".latentflow-a.png.tmp") && !left("sub/.latentflow-b.png.tmp"));
    assert!(
        left("sub/c.png") && left(".hidden") && left("_latentflow") && left(".latentflow-folder")
    );
}

#[cfg(unix)]
#[test]
fn link_under_the_temporary_name_is_replaced_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let path = folder.path().join("file");
    std::os::unix::fs::symlink(&victim, temp_path(&path)).unwrap();
    write_atomically(&path, b"new").unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn file_in_place_of_a_folder_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    let error = write_atomically(&file.join("below"), b"x").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("{}: ", file.display()))
            && text.ends_with("move the file away, or use another path"),
        "{text}"
    );
}
