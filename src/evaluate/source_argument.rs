//! The data of an evaluation as an argument: a path, or a source table.

use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::evaluate::options::EvaluateError;
use crate::source::registry::{FOLDER_KIND, KINDS};

/// Maximum number of files of a folder that determine its kind.
const MAX_EXAMINED: usize = 10_000;

/// Returns the source table of an argument: a table, or a path whose extension determines the kind.
///
/// # Errors
/// If the table cannot be parsed, or the path does not determine a kind.
pub(super) fn parse(text: &str) -> Result<Value, EvaluateError> {
    if text.trim_start().starts_with('{') {
        let written = format!("source = {text}");
        let table: toml::Table = toml::from_str(&written).map_err(|error| {
            let position = error.span().map_or(0, |span| span.start);
            let explained = config::explain(&written, position, error.message());
            let message = explained.unwrap_or_else(|| error.message().to_owned());
            EvaluateError::Argument(format!("--source {text}: {message}"))
        })?;
        let table = serde_json::to_value(&table["source"]);
        return table.map_err(|error| {
            StageError::new(ErrorCode::PipelineInvalid, error.to_string()).into()
        });
    }
    let path = Path::new(text);
    let invalid = |fault: &str| Err(EvaluateError::Argument(format!("--source {text}: {fault}")));
    let kind = match kind_of_file(text) {
        _ if path.is_dir() => kind_of_folder(text)?,
        Some(kind) => kind,
        None if !path.exists() => return invalid("no such file or folder"),
        None => {
            return invalid(&format!(
                "unknown extension; expected a folder of images, a file with a known extension, or \
                 a table, such as '{{ kind = \"csv\", path = \"{text}\" }}'"
            ));
        }
    };
    Ok(json!({ "kind": kind, "path": text }))
}

/// Returns the kind of source that reads a file with this name.
fn kind_of_file(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let compressions = [".gz", ".zst"];
    let mut stripped = compressions.iter().filter_map(|end| name.strip_suffix(end));
    let name = stripped.next().unwrap_or(&name);
    let has_ending = |ending: &&str| {
        name.strip_suffix(ending)
            .is_some_and(|rest| ending.starts_with('-') || rest.ends_with('.'))
    };
    let by_name = KINDS
        .iter()
        .find(|kind| kind.facts.file_endings.iter().any(has_ending));
    by_name.map(|kind| kind.name)
}

/// Returns the kind of source that reads the files of a folder: images if there are any, or else the
/// kind of its tables.
///
/// # Errors
/// If the folder has tables of several kinds.
fn kind_of_folder(folder: &str) -> Result<&'static str, EvaluateError> {
    let files = walkdir::WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .take(MAX_EXAMINED);
    let mut kinds: Vec<&'static str> = files
        .filter_map(|entry| kind_of_file(&entry.file_name().to_string_lossy()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    match kinds.as_slice() {
        [] => Ok(FOLDER_KIND),
        all if all.contains(&FOLDER_KIND) => Ok(FOLDER_KIND),
        [kind] => Ok(kind),
        several => Err(EvaluateError::Argument(format!(
            "--source {folder}: the folder has files of the kinds {}; name one of them in a table, \
             such as '{{ kind = \"{}\", path = \"{folder}\" }}'",
            several.join(", "),
            several[0]
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::*;

    fn check(parsed: Result<String, EvaluateError>, expected: Expect) {
        expected.assert_eq(&parsed.unwrap_or_else(|error| error.to_string()));
    }

    #[test]
    fn source_argument_is_parsed_from_extension_or_table() {
        let parse = |text: &str| super::parse(text).map(|table| table.to_string());
        check(
            parse("rows/a.CSV"),
            expect![[r#"{"kind":"csv","path":"rows/a.CSV"}"#]],
        );
        check(
            parse("train.idx3-ubyte.gz"),
            expect![[r#"{"kind":"idx","path":"train.idx3-ubyte.gz"}"#]],
        );
        check(
            parse("rows.csv.zst"),
            expect![[r#"{"kind":"csv","path":"rows.csv.zst"}"#]],
        );
        check(
            parse("shard.TGZ"),
            expect![[r#"{"kind":"tar","path":"shard.TGZ"}"#]],
        );
        check(
            parse("one.jpg"),
            expect![[r#"{"kind":"images","path":"one.jpg"}"#]],
        );
        check(
            parse("{ kind = 'tar', path = 'a' }"),
            expect![[r#"{"kind":"tar","path":"a"}"#]],
        );
        check(
            parse("{ kind = 'tar'"),
            expect!["--source { kind = 'tar': unclosed inline table, expected `}`"],
        );
        check(
            parse("rows.xls"),
            expect!["--source rows.xls: no such file or folder"],
        );
        let folder = env!("CARGO_MANIFEST_DIR");
        let path = format!("{folder}/LICENSE-MIT");
        assert_eq!(
            parse(&path).unwrap_err().to_string(),
            format!(
                "--source {path}: unknown extension; expected a folder of images, a file with a \
                 known extension, or a table, such as '{{ kind = \"csv\", path = \"{path}\" }}'"
            )
        );
    }

    #[test]
    fn folder_is_read_as_images_or_as_its_only_kind_of_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let kind_after = |name: &str| {
            std::fs::create_dir_all(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join("sub").join(name), "").unwrap();
            parse(path).map(|source| source["kind"].clone())
        };
        assert_eq!(kind_after("notes.txt").unwrap(), "images");
        assert_eq!(kind_after("a.parquet").unwrap(), "parquet");
        assert_eq!(kind_after("B.PARQUET").unwrap(), "parquet");
        assert_eq!(
            kind_after("b.csv").unwrap_err().to_string(),
            format!(
                "--source {path}: the folder has files of the kinds csv, parquet; name one of \
                 them in a table, such as '{{ kind = \"csv\", path = \"{path}\" }}'"
            )
        );
        assert_eq!(kind_after("c.jpg").unwrap(), "images");
    }
}
