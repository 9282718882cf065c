//! Tests of the manual pages and of the completion scripts.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::expect;

use crate::common::runs::latentflow;

fn stdout(folder: &Path, arguments: &[&str]) -> String {
    let output = latentflow(folder, arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` lists.
fn commands(folder: &Path) -> BTreeSet<String> {
    let help = stdout(folder, &["--help"]);
    let (_, rest) = help.split_once("\nCommands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let names = list.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(stdout(folder.path(), &["man", "pages/man1"]), "");
    let pages = folder.path().join("pages/man1");
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let main_page = page("latentflow.1");
    assert_eq!(stdout(folder.path(), &["man"]), main_page);
    let listed = commands(folder.path());
    assert!(
        listed.contains("run") && listed.contains("man"),
        "{listed:?}"
    );
    for command in &listed {
        let name = format!("latentflow-{command}");
        let heading = format!(".TH {name} 1  \"latentflow {}\"", env!("CARGO_PKG_VERSION"));
        assert!(page(&format!("{name}.1")).contains(&heading), "{heading}");
        assert!(main_page.contains(&name.replace('-', "\\-")), "{name}");
    }
    let run = page("latentflow-run.1");
    for text in ["\\-\\-allow\\-change", "\\-\\-set", ".SH OPTIONS"] {
        assert!(run.contains(text), "{text}");
    }
    assert!(page("latentflow-rejects-purge.1").contains("\\-\\-before"));
}

#[test]
fn manual_is_not_written_in_place_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("man1"), "mine").unwrap();
    let output = latentflow(folder.path(), &["man", "man1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    expect![[r#"
        latentflow: error[io]: cannot write manual pages to man1: File exists (os error 17)
    "#]]
    .assert_eq(&String::from_utf8_lossy(&output.stderr));
    let kept = std::fs::read_to_string(folder.path().join("man1")).unwrap();
    assert_eq!(kept, "mine");
}

#[test]
fn completion_scripts_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let listed = commands(folder.path());
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(folder.path(), &["completions", shell]);
        for command in &listed {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
    }
}
