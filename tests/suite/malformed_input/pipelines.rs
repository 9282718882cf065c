//! Pipeline files that are made to be read for ever, or to overflow the stack.

use std::fs;

use super::run::watch;

/// Runs `check` on a text: it must end with exit code 2 and messages of reasonable length, which
/// are returned with the memory it took in MiB.
fn refused(text: &[u8]) -> (String, u64) {
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
fn what_is_too_long_for_a_pipeline_is_not_read() {
    let (log, peak) = refused(&[b'['; 100 << 20]);
    assert!(log.contains("at most"), "{log}");
    assert!(peak < 64, "took {peak} MiB");
}

#[test]
fn nesting_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        for depth in [100, 1000, 100_000] {
            refused(format!("x = {}1{}", open.repeat(depth), close.repeat(depth)).as_bytes());
            refused(format!("x = {}", open.repeat(depth)).as_bytes());
        }
    }
    let (log, _) = refused(format!("{} = 1", vec!["a"; 100_000].join(".")).as_bytes());
    assert!(log.starts_with("p.toml: recursion limit"), "{log}");
    refused(format!("[{}]", vec!["a"; 100_000].join(".")).as_bytes());
    refused(
        format!(
            "[stages.s]\nkind = \"csv\"\n{} = 1",
            vec!["a"; 1000].join(".")
        )
        .as_bytes(),
    );
}

#[test]
fn a_million_keys_end_with_a_message_that_can_be_read() {
    let keys: String = (0..1_000_000).map(|n| format!("k{n}=1\n")).collect();
    assert!(refused(keys.as_bytes()).0.contains("at most"));
    let keys: String = (0..50_000).map(|n| format!("k{n}=1\n")).collect();
    let (log, _) = refused(keys.as_bytes());
    assert!(
        log.contains("p.toml:50: k49: unknown key") && log.contains("\nand 49950 more\n"),
        "{log}"
    );
    refused(format!("[stages.s]\nkind = \"csv\"\n{keys}").as_bytes());
    let stages: String = (0..5_000)
        .map(|n| format!("[stages.s{n}]\nkind = \"discard\"\ninputs = [\"none\"]\n"))
        .collect();
    refused(stages.as_bytes());
}

#[test]
fn what_is_no_text_or_no_file_is_an_error() {
    refused(b"\xff\xfe\0\0");
    refused(&[0; 1000]);
    let folder = tempfile::tempdir().unwrap();
    let (status, log, _) = watch(folder.path(), &["check", "."]);
    assert_eq!(status.code(), Some(2), "{log}");
    #[cfg(unix)]
    {
        let (status, log, _) = watch(folder.path(), &["check", "/dev/zero"]);
        assert_eq!(status.code(), Some(2), "{log}");
    }
}
