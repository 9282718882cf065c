//! Tests of pipeline files that are huge or deeply nested.

use std::fs;

use super::run::watch;

/// Runs `check` on a text and asserts exit code 2 and messages of less than 100,000 bytes. Returns
/// the messages and the maximum resident memory in MiB.
fn assert_refused(text: &[u8]) -> (String, u64) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), text).unwrap();
    let (status, log, peak) = watch(folder.path(), &["check", "p.toml"]);
    let start: String = log.chars().take(300).collect();
    assert_eq!(status.code(), Some(2), "{start}");
    assert!(log.starts_with("p.toml"), "{start}");
    assert!(log.len() < 100_000, "{} bytes: {start}", log.len());
    (log, peak >> 20)
}

#[test]
fn too_large_pipeline_file_is_not_read() {
    let (log, peak) = assert_refused(&[b'['; 100 << 20]);
    assert!(
        log.contains("the file is too large; a pipeline file has at most 1048576 bytes"),
        "{log}"
    );
    assert!(peak < 64, "{peak} MiB resident");
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        for depth in [100, 1000, 100_000] {
            assert_refused(
                format!("x = {}1{}", open.repeat(depth), close.repeat(depth)).as_bytes(),
            );
            assert_refused(format!("x = {}", open.repeat(depth)).as_bytes());
        }
    }
    let (log, _) = assert_refused(format!("{} = 1", vec!["a"; 100_000].join(".")).as_bytes());
    assert!(log.starts_with("p.toml: recursion limit"), "{log}");
    assert_refused(format!("[{}]", vec!["a"; 100_000].join(".")).as_bytes());
    assert_refused(
        format!(
            "[stages.s]\nkind = \"csv\"\n{} = 1",
            vec!["a"; 1000].join(".")
        )
        .as_bytes(),
    );
}

#[test]
fn million_keys_give_a_short_message() {
    let oversized: String = (0..1_000_000).map(|n| format!("k{n}=1\n")).collect();
    let (oversized_log, _) = assert_refused(oversized.as_bytes());
    assert!(
        oversized_log.contains("the file is too large"),
        "{oversized_log}"
    );
    let keys: String = (0..50_000).map(|n| format!("k{n}=1\n")).collect();
    let (log, _) = assert_refused(keys.as_bytes());
    assert!(
        log.contains("p.toml:50: k49: unknown key") && log.contains("\nand 49950 more\n"),
        "{log}"
    );
    assert_refused(format!("[stages.s]\nkind = \"csv\"\n{keys}").as_bytes());
    let stages: String = (0..5_000)
        .map(|n| format!("[stages.s{n}]\nkind = \"discard\"\ninputs = [\"none\"]\n"))
        .collect();
    assert_refused(stages.as_bytes());
}

#[test]
fn pipeline_that_is_not_a_text_file_is_refused() {
    assert_refused(b"\xff\xfe\0\0");
    assert_refused(&[0; 1000]);
    let folder = tempfile::tempdir().unwrap();
    let (status, log, _) = watch(folder.path(), &["check", "."]);
    assert_eq!(status.code(), Some(2), "{log}");
    #[cfg(unix)]
    {
        let (device_status, device_log, _) = watch(folder.path(), &["check", "/dev/zero"]);
        assert_eq!(device_status.code(), Some(2), "{device_log}");
    }
}
