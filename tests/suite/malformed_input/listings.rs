//! Folders with files that are none, links that lead in circles, names that are no text, and very
//! many files.
#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::run::{Ran, run};

const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

fn read(folder: &Path, options: &str) -> Ran {
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
fn pipes_devices_loops_and_folders_are_passed_over_and_empty_files_are_rejects() {
    let folder = folder();
    let place = folder.path().join("in");
    fs::write(place.join("sound.ppm"), PIXEL).unwrap();
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
    symlink("sound.ppm", place.join("link.ppm")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.join("socket.jpg")).unwrap();
    for (links, kept) in [("", 1), ("follow_links = true", 2)] {
        let _ = fs::remove_dir_all(folder.path().join("out"));
        let _ = fs::remove_dir_all(folder.path().join("bad"));
        let ran = read(folder.path(), links);
        ran.adds_up();
        assert_eq!(
            (ran.kept, ran.records),
            (kept, kept + 1),
            "{:?}",
            ran.rejects
        );
        let reject = &ran.rejects[0];
        assert_eq!(
            (reject.source.as_str(), reject.code.as_str()),
            ("empty.jpg", "truncated")
        );
    }
}

#[test]
fn a_device_or_a_pipe_as_the_path_itself_is_an_error() {
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
            let ran = run(folder.path(), &pipeline, &[]);
            assert!(
                matches!(ran.code, Some(1 | 2)),
                "{kind} {path}: {:?} {}",
                ran.code,
                ran.log
            );
            assert!(ran.log.contains(path), "{kind} {path}: {}", ran.log);
        }
    }
}

#[test]
fn any_bytes_may_be_a_name() {
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
    let ran = read(folder.path(), "");
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (14, 7), "{:?}", ran.rejects);
    assert!(
        ran.codes().contains_key("bad%FF%FE.ppm") && ran.codes().contains_key("badnew\nline.ppm")
    );
    assert!(!ran.log.contains('\x1b'), "{:?}", ran.log);
    let again = read(folder.path(), "");
    assert_eq!(
        (again.code, again.records),
        (Some(0), 0),
        "the same names are met again"
    );
}

#[test]
fn what_may_not_be_read_is_left_out_or_a_reject() {
    let folder = folder();
    let place = folder.path().join("in");
    fs::create_dir(place.join("closed")).unwrap();
    fs::write(place.join("closed/a.ppm"), PIXEL).unwrap();
    fs::write(place.join("sound.ppm"), PIXEL).unwrap();
    fs::write(place.join("secret.ppm"), PIXEL).unwrap();
    let allow = |name: &str, mode: u32| {
        fs::set_permissions(place.join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    allow("closed", 0o000);
    allow("secret.ppm", 0o000);
    let all_may = fs::read_dir(place.join("closed")).is_ok();
    let ran = (!all_may).then(|| read(folder.path(), ""));
    allow("closed", 0o700);
    let Some(ran) = ran else {
        eprintln!("skipped: this user may read everything");
        return;
    };
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (2, 1), "{:?}", ran.rejects);
    let reject = &ran.rejects[0];
    assert!(
        reject.code == "unreadable" && reject.reason.starts_with("secret.ppm: "),
        "{reject:?}"
    );
    assert!(
        ran.log.contains("left out") && ran.log.contains("closed"),
        "{}",
        ran.log
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
    let ran = read(folder.path(), "");
    ran.adds_up();
    assert_eq!((ran.records, ran.kept), (FILES, FILES));
    ran.took_at_most(128);
}
