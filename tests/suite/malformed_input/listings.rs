//! Tests of folders with devices and pipes, circular links, names that are not text, and thousands
//! of files.
#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::run::{RunResult, run};

const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

fn read(folder: &Path, options: &str) -> RunResult {
    let pipeline = format!(
        "[stages.files]\nkind = \"images\"\npath = \"in\"\n{options}\n\
         [stages.pixels]\nkind = \"pixels\"\ninputs = [\"files\"]\nsize = [1, 1]\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"out\"\n\
         [rejects]\npath = \"bad\"\n"
    );
    run(folder, &pipeline, &[])
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    folder
}

#[test]
fn pipes_devices_and_loops_are_skipped_and_empty_files_rejected() {
    let folder = folder();
    let place = folder.path().join("in");
    fs::write(place.join("valid.ppm"), PIXEL).unwrap();
    fs::write(place.join("empty.jpg"), b"").unwrap();
    fs::create_dir(place.join("folder.jpg")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(place.join("pipe.jpg"))
            .status()
            .unwrap()
            .success()
    );
    symlink("/dev/zero", place.join("zero.jpg")).unwrap();
    symlink("/dev/stdin", place.join("input.jpg")).unwrap();
    symlink(".", place.join("loop")).unwrap();
    symlink("loop.jpg", place.join("loop.jpg")).unwrap();
    symlink("nowhere", place.join("broken.jpg")).unwrap();
    symlink("valid.ppm", place.join("link.ppm")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.join("socket.jpg")).unwrap();
    for (links, written) in [("", 1), ("follow_links = true", 2)] {
        let _ = fs::remove_dir_all(folder.path().join("out"));
        let _ = fs::remove_dir_all(folder.path().join("bad"));
        let result = read(folder.path(), links);
        result.assert_complete();
        assert_eq!(
            (result.written, result.records),
            (written, written + 1),
            "{:?}",
            result.rejects
        );
        let reject = &result.rejects[0];
        assert_eq!(
            (reject.source.as_str(), reject.code.as_str()),
            ("empty.jpg", "truncated")
        );
    }
}

#[test]
fn device_or_pipe_as_path_is_an_error() {
    let folder = folder();
    assert!(
        Command::new("mkfifo")
            .arg(folder.path().join("pipe.jpg"))
            .status()
            .unwrap()
            .success()
    );
    for kind in ["images", "csv", "ndjson", "parquet", "arrow", "tar"] {
        for path in ["/dev/zero", "pipe.jpg", "/dev/null"] {
            let pipeline = format!(
                "[stages.in]\nkind = \"{kind}\"\npath = \"{path}\"\n\
                 [stages.out]\nkind = \"discard\"\ninputs = [\"in\"]\n"
            );
            let result = run(folder.path(), &pipeline, &[]);
            assert!(
                matches!(result.code, Some(1 | 2)),
                "{kind} {path}: {:?} {}",
                result.code,
                result.log
            );
            assert!(result.log.contains(path), "{kind} {path}: {}", result.log);
        }
    }
}

#[test]
fn file_names_of_any_bytes_are_read() {
    let folder = folder();
    let names: [&[u8]; 7] = [
        b"new\nline.ppm",
        b"\x01\x1b[31mred\x7f.ppm",
        b"\xff\xfe.ppm",
        b"a%FF.ppm",
        b"\xc3\xa9.ppm",
        b" .ppm",
        b"'\"\\.ppm",
    ];
    for name in names {
        fs::write(
            folder.path().join("in").join(OsStr::from_bytes(name)),
            PIXEL,
        )
        .unwrap();
        fs::write(
            folder
                .path()
                .join("in")
                .join(OsStr::from_bytes(&[b"bad".as_slice(), name].concat())),
            b"x",
        )
        .unwrap();
    }
    let result = read(folder.path(), "");
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (14, 7),
        "{:?}",
        result.rejects
    );
    assert!(
        result.codes().contains_key("bad%FF%FE.ppm")
            && result.codes().contains_key("badnew\nline.ppm")
    );
    assert!(!result.log.contains('\x1b'), "{:?}", result.log);
    let again = read(folder.path(), "");
    assert_eq!(
        (again.code, again.records),
        (Some(0), 0),
        "a second run recognizes all names"
    );
}

#[test]
fn unreadable_folder_is_reported_and_unreadable_file_rejected() {
    let folder = folder();
    let place = folder.path().join("in");
    fs::create_dir(place.join("closed")).unwrap();
    fs::write(place.join("closed/a.ppm"), PIXEL).unwrap();
    fs::write(place.join("valid.ppm"), PIXEL).unwrap();
    fs::write(place.join("secret.ppm"), PIXEL).unwrap();
    let set_mode = |name: &str, mode: u32| {
        fs::set_permissions(place.join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    set_mode("closed", 0o000);
    set_mode("secret.ppm", 0o000);
    let is_privileged = fs::read_dir(place.join("closed")).is_ok();
    let result = (!is_privileged).then(|| read(folder.path(), ""));
    set_mode("closed", 0o700);
    let Some(result) = result else {
        eprintln!("skipped: this user can read all files");
        return;
    };
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (2, 1),
        "{:?}",
        result.rejects
    );
    let reject = &result.rejects[0];
    assert!(
        reject.code == "unreadable" && reject.reason.starts_with("secret.ppm: "),
        "{reject:?}"
    );
    assert!(
        result.log.contains("cannot list a path") && result.log.contains("closed"),
        "{}",
        result.log
    );
}

#[test]
fn thousands_of_files_in_one_folder_are_all_read() {
    const FILES: u64 = 4000;
    let folder = folder();
    let first = folder.path().join("in/00000.ppm");
    fs::write(&first, PIXEL).unwrap();
    (1..FILES)
        .for_each(|n| fs::hard_link(&first, folder.path().join(format!("in/{n:05}.ppm"))).unwrap());
    let result = read(folder.path(), "");
    result.assert_complete();
    assert_eq!((result.records, result.written), (FILES, FILES));
    result.assert_memory_within(128);
}
