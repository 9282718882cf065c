//! Rules of the modules: their order, circles between files, and the folders of two libraries.

use std::path::Path;

use super::circles::paths_in;
use super::{code, is_below, sources};

/// Groups of modules from left to right. A module names only modules of its group or of a group
/// further left.
pub(crate) const ORDER: [&[&str]; 21] = [
    &[
        "test_data",
        "error",
        "json",
        "text_escape",
        "text_excerpt",
        "file_descriptors",
        "units",
        "system",
        "batch",
        "columns",
        "coverage",
        "tensor",
        "arrow_size",
        "nested_types",
        "schema_display",
        "schema_unification",
        "column_cast",
        "metrics",
        "fs_durable",
        "temporary_folder",
        "storage",
        "shard",
        "server",
    ],
    &["eval_metrics"],
    &["registry"],
    &["config"],
    &["image"],
    &["corruption"],
    &["model"],
    &["plan_context"],
    &["source"],
    &["transform"],
    &["sink"],
    &["plan"],
    &["topology"],
    &["embed"],
    &["admin"],
    &["daemon"],
    &["data"],
    &["evaluate"],
    &["search"],
    &["report"],
    &["train"],
];

pub(crate) fn module(path: &Path) -> String {
    let inside = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn onnx_runtime_is_named_in_one_folder() {
    let naming: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| names(&code(text), "ort"))
        .map(|(path, _)| path)
        .collect();
    assert!(
        !naming.is_empty()
            && naming
                .iter()
                .all(|path| is_below(path, "src/model/ort_backend")),
        "`ort` is named in {naming:?}"
    );
}

#[test]
fn object_stores_are_named_in_one_folder() {
    for (path, text) in sources() {
        let is_store = is_below(&path, "src/storage");
        for name in ["object_store", "reqwest"] {
            assert!(
                is_store || !names(&code(&text), name),
                "`{name}` is named in {}",
                path.display()
            );
        }
        for feature in ["_cloud", "azure", "gcs", "s3", "object-store"] {
            assert!(
                is_store || !code(&text).contains(&format!("feature = \"{feature}\"")),
                "{} names the feature `{feature}`",
                path.display()
            );
        }
    }
}

/// A text has no code and no cause, so functions that other modules call return typed errors.
#[test]
fn errors_of_functions_for_other_modules_are_typed() {
    let mut untyped = Vec::new();
    for (path, text) in sources() {
        let visible = ["pub fn ", "pub(crate) fn "];
        let code = code(&text);
        for (at, _) in visible.iter().flat_map(|start| code.match_indices(start)) {
            let signature = code[at..].split('{').next().unwrap_or_default();
            let signature = signature.split_whitespace().collect::<Vec<_>>().join(" ");
            if signature.contains("-> Result<") && signature.trim_end().ends_with(", String>") {
                untyped.push(format!("{}: {signature}", path.display()));
            }
        }
    }
    assert!(
        untyped.is_empty(),
        "errors that are only a text:\n{}",
        untyped.join("\n")
    );
}

/// Whether `code` has a path that begins with the crate `name`: `ort::`, but not `port::`.
fn names(code: &str, name: &str) -> bool {
    let starts = |(place, _)| !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(&format!("{name}::")).any(starts)
}

#[test]
fn modules_name_only_modules_further_left() {
    let rank = |name: &str| ORDER.iter().position(|modules| modules.contains(&name));
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        let Some(place) = rank(&own) else {
            assert!(
                ["lib", "main", "cli", "fuzzing"].contains(&own.as_str()),
                "`{own}` has no place in the order of modules"
            );
            continue;
        };
        let code = code(&text);
        for used in paths_in(&code) {
            let [first, used, ..] = used.as_slice() else {
                continue;
            };
            if first == "crate" && rank(used).is_none_or(|rank| rank > place) {
                wrong.push(format!("{} names crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
