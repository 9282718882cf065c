//! Tests of a process without free file descriptors: an unbounded run waits for one and continues.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::io::Errno;

use super::reads::SHIM;
use crate::common::inputs::images;
use crate::common::outputs::{ids, records};
use crate::common::runs::latentflow;

const WATCH: &str = r#"
[stages.in]
kind = "images"
path = "in"
watch = true

[stages.pixels]
kind = "pixels"
inputs = ["in"]
size = [4, 4]

[stages.out]
kind = "parquet"
inputs = ["pixels"]
path = "out"
columns = ["source", "row"]

[commit]
age = "100ms"
"#;

#[test]
fn daemon_without_descriptors_waits_and_continues() {
    // Paths that the sink of the data, the sink of the rejects and the journal open.
    for part in [
        "out/.latentflow-part",
        "rejects/.latentflow-part",
        "watched/in/0000",
    ] {
        let folder = tempfile::tempdir().unwrap();
        images(&folder.path().join("in"), 5);
        let flag = folder.path().join("flag");
        fs::write(&flag, "").unwrap();
        fs::write(folder.path().join("p.toml"), WATCH).unwrap();
        let mut command = latentflow(folder.path(), &["run", "p.toml", "--summary", "none"]);
        command
            .env("LD_PRELOAD", &SHIM.1)
            .env("FAULT_PATH", part)
            .env("FAULT_AT", "open");
        command
            .env("FAULT_ERRNO", Errno::MFILE.raw_os_error().to_string())
            .env("FAULT_WHILE", &flag);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let warning = lines.find(|line| line.contains("Too many open files"));
        assert!(
            warning.is_some(),
            "{part}: the run ended: {:?}",
            child.wait()
        );
        fs::remove_file(&flag).unwrap();
        let found = |name: &str| ids(&records(&folder.path().join(name), &["source"])).len();
        while (found("out"), found("out/_latentflow/rejects")) != (4, 1) {
            assert!(child.try_wait().unwrap().is_none(), "{part}: the run ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{part}");
    }
}
