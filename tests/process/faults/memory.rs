//! A sink that cannot go on holds the source back, so that memory stays within what was predicted.

use std::fs;
use std::time::Duration;

use bytesize::ByteSize;

use super::blocked_sink::BlockedRun;
use crate::common::runs::latentflow;

/// Half a gigabyte of features, if all of it were held.
const PIPELINE: &str = r#"
workers = 2

[limits]
memory = "16MiB"

[stages.in]
kind = "synthetic"
content = "features"
records = 2000000
width = 64
batch = { records = 1000 }

[stages.out]
kind = "parquet"
inputs = ["in"]
path = "out"

[stages.shown]
kind = "stdout"
inputs = ["in"]
"#;

#[test]
fn a_blocked_sink_keeps_memory_within_the_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let mut held = BlockedRun::start(folder.path(), PIPELINE);
    let check = latentflow(folder.path(), &["check", "held.toml"])
        .output()
        .unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    let predicted = check
        .split("at most ")
        .nth(1)
        .unwrap()
        .split(':')
        .next()
        .unwrap();
    let predicted: ByteSize = predicted.parse().unwrap();
    let proc = format!("/proc/{}", held.child.id());
    let read = |name: &str| fs::read_to_string(format!("{proc}/{name}")).unwrap();
    // Time in user and system mode, in ticks: it stands still once every thread waits.
    let worked = || {
        read("stat")
            .split(' ')
            .skip(13)
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (mut before, mut still) = (worked(), 0);
    while still < 10 {
        std::thread::sleep(Duration::from_millis(50));
        let now = worked();
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    let peak = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned))
        .unwrap();
    let peak: ByteSize = peak.trim().parse().unwrap();
    assert!(held.child.try_wait().unwrap().is_none(), "it waits");
    held.child.kill().unwrap();
    held.child.wait().unwrap();
    assert!(peak <= predicted, "{peak} at most, {predicted} predicted");
    assert!(
        predicted < ByteSize::mib(256),
        "the prediction is too large to tell anything: {predicted}"
    );
}
