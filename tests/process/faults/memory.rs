//! A test that backpressure from a blocked sink keeps memory within the predicted bound.

use std::fs;
use std::time::Duration;

use bytesize::ByteSize;

use super::blocked_sink::BlockedRun;
use crate::common::runs::latentflow;

/// Features of half a gigabyte in all, which exceeds the memory limit.
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
fn blocked_sink_keeps_memory_within_the_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let mut blocked = BlockedRun::start(folder.path(), PIPELINE);
    let check = latentflow(folder.path(), &["check", "blocked.toml"])
        .output()
        .unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    let predicted = check
        .split("at most ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let predicted: ByteSize = predicted.parse().unwrap();
    let proc = format!("/proc/{}", blocked.child.id());
    let read = |name: &str| fs::read_to_string(format!("{proc}/{name}")).unwrap();
    // Time in user and system mode, in ticks, which is constant once every thread waits.
    let cpu_ticks = || {
        read("stat")
            .split(' ')
            .skip(13)
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (mut before, mut unchanged) = (cpu_ticks(), 0);
    while unchanged < 10 {
        std::thread::sleep(Duration::from_millis(50));
        let now = cpu_ticks();
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
    }
    let peak = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned))
        .unwrap();
    let peak: ByteSize = peak.trim().parse().unwrap();
    assert!(
        blocked.child.try_wait().unwrap().is_none(),
        "the run must still be blocked"
    );
    blocked.child.kill().unwrap();
    blocked.child.wait().unwrap();
    assert!(peak <= predicted, "{peak} at most, {predicted} predicted");
    assert!(
        predicted < ByteSize::mib(256),
        "the prediction is too large for this test: {predicted}"
    );
}
