//! Output folders that cannot be written, vanish, are not ours, or are another's at this moment.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use expect_test::expect;

use super::blocked_sink::BlockedRun;
use super::{COPY, assert_all_rows, assert_failed, assert_goes_on, folder_with_rows};
use crate::common::inputs;
use crate::common::outputs::{data_files, ids, records};
use crate::common::runs::{errors, latentflow, latentflow_by, run};

#[test]
fn a_folder_that_may_not_be_written_is_named() {
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
        // Root may write anywhere: somebody else has to try.
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
                "skipped: this runs as root, and setpriv is not there to run as somebody else"
            );
            return;
        }
        false => latentflow(folder.path(), &arguments),
    };
    assert_failed(
        folder.path(),
        &command.output().unwrap(),
        &expect![
            "latentflow: out: out/_latentflow: Permission denied (os error 13); allow it to the user that latentflow runs as, or name another path"
        ],
    );
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        0,
        "nothing was started"
    );
}

#[test]
fn a_file_in_the_way_of_a_folder_is_named() {
    let folder = folder_with_rows();
    fs::write(folder.path().join("out"), "mine").unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: out: out: File exists (os error 17); a file is in the way of a folder: move it away, or name another path"
        ],
    );
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), b"mine");
}

#[test]
fn a_folder_that_is_taken_away_ends_the_run_and_the_next_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 400);
    let pipeline = format!("{}\n[rejects]\npath = \"bad\"\n", BlockedRun::PIPELINE);
    let held = BlockedRun::start(folder.path(), &pipeline);
    fs::rename(folder.path().join("out"), folder.path().join("moved")).unwrap();
    let mut output = held.release();
    // How far it had come by then is not known: the folder is missed, or a file in it.
    let text = errors(&output);
    let path = text
        .split("latentflow: out: ")
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
            "latentflow: out: PATH: No such file or directory (os error 2); it, or a folder above it, was moved or removed: put it back, then run again"
        ],
    );
    let (output, _) = run(folder.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(
        records(&folder.path().join("out"), &["source"]).len(),
        400 - (0..400).filter(|&n| inputs::is_broken(n)).count()
    );
}

#[test]
fn a_folder_with_another_s_parquet_file_is_left_alone() {
    let folder = folder_with_rows();
    let foreign = folder.path().join("out/theirs.parquet");
    inputs::table(&foreign, 0..5, 5);
    let before = fs::read(&foreign).unwrap();
    let (output, _) = run(folder.path(), COPY, &[]);
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: out: out/theirs.parquet: this file was not written by latentflow; write to a folder of its own, or move the file away"
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
    assert_goes_on(folder.path(), COPY);
    assert_all_rows(folder.path());
}

#[test]
fn a_second_process_on_the_same_output_is_refused_while_the_first_runs() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 400);
    let held = BlockedRun::start(folder.path(), BlockedRun::PIPELINE);
    let second = latentflow(folder.path(), &["run", "held.toml"])
        .output()
        .unwrap();
    assert_failed(
        folder.path(),
        &second,
        &expect![
            "latentflow: out: out: another sink is writing here, of this pipeline or of one that runs at this moment; wait for it to end, or write to another path"
        ],
    );
    let output = held.release();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let found = records(&folder.path().join("out"), &["source"]);
    let mut wanted: Vec<String> = (0..400)
        .filter(|&n| !inputs::is_broken(n))
        .map(inputs::image_name)
        .collect();
    wanted.sort();
    assert_eq!(ids(&found), wanted);
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_started() {
    let folder = folder_with_rows();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mut output, _) = run(folder.path(), COPY, &["--metrics", &address]);
    output.stderr = errors(&output).replace(&address, "ADDRESS").into_bytes();
    assert_failed(
        folder.path(),
        &output,
        &expect![
            "latentflow: admin: cannot listen on ADDRESS: Address already in use (os error 98); name another address, or port 0 for one that is free"
        ],
    );
    assert!(!folder.path().join("out").exists(), "nothing was started");
}
