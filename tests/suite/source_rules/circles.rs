//! Circles between files: a file that names another one, directly or through others, is not named by
//! it. Only a `mod.rs` and the files below it name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{code, sources};

/// A path of a module or an item, without `crate`.
pub(crate) type ModulePath = Vec<String>;

/// The path of the module in a file; empty for `lib.rs`.
fn module_path(file: &Path) -> ModulePath {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = file.strip_prefix(src).unwrap().with_extension("");
    let mut segments: ModulePath = inside
        .iter()
        .map(|segment| segment.to_string_lossy().into_owned())
        .collect();
    segments.pop_if(|last| last == "mod" || last == "lib");
    segments
}

/// The parts of the list in braces at `list`, with the list removed: `a, b::{c, d}` has two.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

/// Adds the paths of a `use` declaration, such as `a::{b, c::d}`.
fn add_paths(prefix: &[String], tree: &str, paths: &mut Vec<ModulePath>) {
    for part in split_list(tree)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (path, list) = match part.split_once('{') {
            Some((path, list)) => (path, list.rfind('}').map(|end| &list[..end])),
            None => (part.split(" as ").next().unwrap(), None),
        };
        let mut full = prefix.to_vec();
        let segments = path.split("::").map(str::trim);
        full.extend(
            segments
                .filter(|segment| !segment.is_empty())
                .map(str::to_owned),
        );
        match list {
            Some(list) => add_paths(&full, list, paths),
            None => paths.push(full),
        }
    }
}

/// The paths in code that begin with `crate`, `super` or `self`, or in a `use` with another name.
pub(crate) fn paths_in(code: &str) -> Vec<ModulePath> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    for statement in text.split_inclusive(';') {
        let declared = statement.rsplit_once("use ").filter(|(before, _)| {
            let word = before.trim_end().rsplit(['\n', ' ', '{', '}']).next();
            before.is_empty()
                || before.ends_with(['\n', ' '])
                || word.is_some_and(|word| word.starts_with("pub"))
        });
        match declared {
            Some((before, tree)) => {
                rest += before;
                add_paths(&[], tree.trim_end_matches(';'), &mut paths);
            }
            None => rest += statement,
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for word in rest.split(|c: char| !is_path(c)) {
        let segments: ModulePath = word.split("::").map(str::to_owned).collect();
        if segments.len() > 1 {
            paths.push(segments);
        }
    }
    paths
}

/// The file that a path in the module `own` leads to, with the modules of all files.
fn resolve(own: &[String], path: &[String], modules: &BTreeSet<ModulePath>) -> Option<ModulePath> {
    let mut full = match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => [own, &path[1..]].concat(),
        Some("super") => {
            let ups = path
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            [&own[..own.len().saturating_sub(ups)], &path[ups..]].concat()
        }
        _ => {
            let child = [own, &path[..1.min(path.len())]].concat();
            modules.contains(&child).then(|| [own, path].concat())?
        }
    };
    while !full.is_empty() && !modules.contains(&full) {
        full.pop();
    }
    (!full.is_empty() && full != own).then_some(full)
}

/// The files that each file names, without those below a `mod.rs` that names them.
fn named_files() -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let is_test = |path: &ModulePath| path.iter().any(|name| name == "tests" || name == "testing");
    let files: BTreeMap<ModulePath, String> = sources()
        .into_iter()
        .map(|(file, text)| (module_path(&file), text))
        .filter(|(path, _)| !path.is_empty() && !is_test(path))
        .collect();
    let modules: BTreeSet<ModulePath> = files.keys().cloned().collect();
    let named = |own: &ModulePath, text: &str| {
        paths_in(&code(text))
            .iter()
            .filter_map(|path| resolve(own, path, &modules))
            .filter(|other| !other.starts_with(own))
            .collect()
    };
    files
        .iter()
        .map(|(own, text)| (own.clone(), named(own, text)))
        .collect()
}

/// A circle among the files that are reached from the last one of `way`.
fn find_circle(
    way: &mut Vec<ModulePath>,
    named: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    done: &mut BTreeSet<ModulePath>,
) -> Option<Vec<ModulePath>> {
    let last = way.last().unwrap().clone();
    for other in named.get(&last).into_iter().flatten() {
        if let Some(start) = way.iter().position(|file| file == other) {
            return Some(way[start..].to_vec());
        }
        if !done.contains(other) {
            way.push(other.clone());
            let circle = find_circle(way, named, done);
            way.pop();
            if circle.is_some() {
                return circle;
            }
        }
    }
    done.insert(last);
    None
}

#[test]
fn files_name_each_other_in_one_direction() {
    let named = named_files();
    let names = named.values().map(BTreeSet::len).sum::<usize>();
    assert!(names > 1000, "only {names} names of files were found");
    let mut done = BTreeSet::new();
    for file in named.keys() {
        let circle = find_circle(&mut vec![file.clone()], &named, &mut done);
        let text = circle.map(|files| {
            let paths = files.iter().map(|path| path.join("/"));
            paths.collect::<Vec<_>>().join(" -> ")
        });
        assert_eq!(text, None, "files that name each other");
    }
}

#[test]
fn paths_of_declarations_and_expressions_are_found() {
    let text = "pub use a::{b, c::{self, D as E}};\nuse crate::f;\nfn g() { super::h::i(); crate::j(); }\n// crate::k\n";
    let found: Vec<String> = paths_in(text).iter().map(|path| path.join("::")).collect();
    let expected = [
        "a::b",
        "a::c::self",
        "a::c::D",
        "crate::f",
        "super::h::i",
        "crate::j",
    ];
    assert_eq!(found, expected);
}
