//! Tests of output folders that are read-only, disappear, hold foreign files, or are in use by
//! another process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use expect_test::expect;

use super::blocked_sink::BlockedRun;
use super::{COPY, assert_all_rows, assert_failed, assert_finishes, folder_with_rows};
use crate::common::inputs;
use crate::common::outputs::{data_files, ids, records};
use crate::common::runs::{errors, latentflow, latentflow_by, run};

#[test]
fn read_only_output_folder_is_named() {
    let folder = folder_with_rows();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&out, Permissions::from_mode(0o555)).unwrap();
    fs::write(folder.path().join("p.toml"), COPY).unwrap();
    let arguments = ["run", "p.toml"];
    let drop_rights = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let is_root = fs::write(out.join("root-may"), "").is_ok();
    let mut command = match is_root {
        // Root ignores permissions, so the run needs another user.
        true if Command::new(drop_rights[0])
            .args(&drop_rights[1..])
            .arg("true")
            .status()
            .is_ok_and(|s| s.success()) =>
        {
            fs::remove_file(out.join("root-may")).unwrap();
            latentflow_by(&drop_rights, folder.path(), &arguments)
        }
        true => {
            eprintln!(
                "skipped: this runs as root, and setpriv cannot run a program as another user"
            );
            return;
        }
        false => latentflow(folder.path(), &arguments),
    };
    assert_failed(
        folder.path(),
        &command.output().unwrap(),
        &expect![
            "latentflow: error[permission_denied]: out: out/_latentflow: Permission denied (os error 13); grant access to \
             the user that latentflow runs as, or use another path"
        ],
    );
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        0,
        "the run must not write to its output"
    );
}

#[test]
fn file_in_place_of_output_folder_is_named() {
    let folder = folder_with_rows();
    fs::write(folder.path().join("out"), "mine").unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[io]: out: out: File exists (os error 17); a file exists in place of a folder: \
             move the file away, or use another path"
        ],
    );
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), b"mine");
}

#[test]
fn moved_output_folder_ends_the_run_and_the_next_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 400);
    let pipeline = format!("{}\n[rejects]\npath = \"bad\"\n", BlockedRun::PIPELINE);
    let blocked = BlockedRun::start(folder.path(), &pipeline);
    fs::rename(folder.path().join("out"), folder.path().join("moved")).unwrap();
    let mut output = blocked.release();
    // The step at which the run fails varies: the missing path is the folder or a file in it.
    let text = errors(&output);
    let path = text
        .split("]: out: ")
        .nth(1)
        .unwrap()
        .split(": ")
        .next()
        .unwrap()
        .to_owned();
    output.stderr = text
        .replace(&format!("out: {path}:"), "out: PATH:")
        .into_bytes();
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[not_found]: out: PATH: No such file or directory (os error 2); the path or a folder \
             above it was moved or removed: restore it, then run again"
        ],
    );
    let (resumed, _) = run(folder.path(), &pipeline, &[]);
    assert_eq!(resumed.status.code(), Some(0), "{}", errors(&resumed));
    assert_eq!(
        records(&folder.path().join("out"), &["source"]).len(),
        400 - (0..400).filter(|&n| inputs::is_broken(n)).count()
    );
}

#[test]
fn folder_with_foreign_parquet_file_is_refused() {
    let folder = folder_with_rows();
    let foreign = folder.path().join("out/theirs.parquet");
    inputs::table(&foreign, 0..5, 5);
    let before = fs::read(&foreign).unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[output_foreign]: out: out/theirs.parquet: this file was not written by latentflow; use a \
             separate folder for the output, or move the file away"
        ],
    );
    assert_eq!(
        (
            data_files(&folder.path().join("out")).len(),
            fs::read(&foreign).unwrap()
        ),
        (1, before)
    );
    fs::remove_file(foreign).unwrap();
    assert_finishes(folder.path(), COPY);
    assert_all_rows(folder.path());
}

#[test]
fn second_run_on_same_output_is_refused_during_the_first() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 400);
    let blocked = BlockedRun::start(folder.path(), BlockedRun::PIPELINE);
    let second = latentflow(folder.path(), &["run", "blocked.toml"])
        .output()
        .unwrap();
    assert_failed(
        folder.path(),
        &second,
        &expect![
            "latentflow: error[output_locked]: out: out: another sink of this pipeline or of another running pipeline is \
             writing to this folder; wait until it ends, or use another path"
        ],
    );
    let output = blocked.release();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let found = records(&folder.path().join("out"), &["source"]);
    let mut expected: Vec<String> = (0..400)
        .filter(|&n| !inputs::is_broken(n))
        .map(inputs::image_name)
        .collect();
    expected.sort();
    assert_eq!(ids(&found), expected);
}

#[test]
fn port_in_use_is_named_before_the_run_starts() {
    let folder = folder_with_rows();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mut output, _) = run(folder.path(), COPY, &["--metrics", &address]);
    output.stderr = errors(&output).replace(&address, "ADDRESS").into_bytes();
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: error[listen_failed]: admin: cannot listen on ADDRESS: Address already in use (os error 98); \
             use another address, or port 0 for any free port"
        ],
    );
    assert!(
        !folder.path().join("out").exists(),
        "the run must not write to its output"
    );
}
