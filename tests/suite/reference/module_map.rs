//! The picture of the modules in `ARCHITECTURE.md`, drawn from their order, their first lines and
//! the modules that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use super::UPDATE;
use crate::source_rules::circles::paths_in;
use crate::source_rules::modules::{ORDER, module};
use crate::source_rules::{code, sources};

/// The bands of the picture from top to bottom, with the modules that each begins with in the order
/// of modules.
const BANDS: [(&str, &[&str]); 6] = [
    ("Command line", &["main", "cli"]),
    (
        "Training and evaluation",
        &["data", "evaluate", "search", "report", "train"],
    ),
    ("Running", &["plan", "topology", "embed", "admin", "daemon"]),
    ("Stages", &["plan_context", "source", "transform", "sink"]),
    (
        "Models and images",
        &["eval_metrics", "image", "corruption", "model"],
    ),
    ("Configuration", &["registry", "config"]),
];
const FOUNDATION: &str = "Foundation";

const WIDTH: usize = 960;
const COLUMNS: usize = 5;
const BOX: (usize, usize) = (179, 136);
const GAP: usize = 8;
const MARGIN: usize = 16;
const HEADING: usize = 26;
/// Maximum number of characters of a line in a box.
const LINE: usize = 28;
/// Maximum number of lines of a purpose.
const LINES: usize = 3;
/// Minimum length in characters of the part before a colon that is shown alone.
const SHORT: usize = 24;

const STYLE: &str = "\
text{font:11px system-ui,sans-serif;fill:#1f2328}.name{font-weight:600;font-size:14px}\
.band{font-weight:600;font-size:13px;fill:#57606a}.names{fill:#0969da}\
rect{fill:#f6f8fa;stroke:#d0d7de}.paper{fill:#fff;stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.band{fill:#8b949e}.names{fill:#58a6ff}\
rect{fill:#161b22;stroke:#30363d}.paper{fill:#0d1117}}";

/// The first sentence of the documentation of each module, and the modules that it names outside of
/// the foundation.
fn modules() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let foundation = ORDER[0];
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for (path, text) in sources() {
        let name = module(&path);
        let entry = found.entry(name.clone()).or_default();
        let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
        let is_root =
            path == src.join(format!("{name}.rs")) || path == src.join(&name).join("mod.rs");
        if is_root {
            let doc: Vec<&str> = text
                .lines()
                .map_while(|line| line.strip_prefix("//! "))
                .collect();
            let doc = doc.join(" ");
            let sentence = doc.split(". ").next().unwrap_or_default();
            let head = sentence.split([':', ';']).next().unwrap_or_default();
            let sentence = if head.len() < SHORT { sentence } else { head };
            entry.0 = sentence.trim_end_matches('.').to_owned();
        }
        let named = paths_in(&code(&text)).into_iter().filter_map(|names| {
            let mut parts = names.into_iter();
            (parts.next()? == "crate").then(|| parts.next()).flatten()
        });
        let is_drawn = |used: &String| {
            let is_module = ORDER.iter().any(|group| group.contains(&used.as_str()));
            *used != name && is_module && !foundation.contains(&used.as_str())
        };
        entry.1.extend(named.filter(is_drawn));
    }
    found
}

/// The text in lines of at most [`LINE`] characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('`', "")
}

fn draw() -> String {
    let modules = modules();
    let mut body = String::new();
    let mut top = MARGIN;
    for (band, names) in BANDS {
        heading(&mut body, band, &mut top);
        for (index, name) in names.iter().enumerate() {
            let (purpose, named) = &modules[*name];
            let left = MARGIN + index % COLUMNS * (BOX.0 + GAP);
            let y = top + index / COLUMNS * (BOX.1 + GAP);
            draw_box(&mut body, (left, y), name, purpose, named);
        }
        top += names.len().div_ceil(COLUMNS) * (BOX.1 + GAP);
    }
    heading(&mut body, FOUNDATION, &mut top);
    let names: Vec<&str> = ORDER[0]
        .iter()
        .copied()
        .filter(|name| *name != "test_data")
        .collect();
    let rows: Vec<&[&str]> = names.chunks(7).collect();
    let height = 18 * rows.len() + 14;
    let width = WIDTH - 2 * MARGIN;
    let _ = writeln!(
        body,
        "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
    );
    for (index, row) in rows.iter().enumerate() {
        line(
            &mut body,
            (MARGIN + 10, top + 20 + 18 * index),
            "names",
            &row.join(" · "),
        );
    }
    let height = top + height + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"The modules of latentflow\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n"
    )
}

fn heading(body: &mut String, text: &str, top: &mut usize) {
    line(body, (MARGIN, *top + 16), "band", text);
    *top += HEADING;
}

fn draw_box(
    body: &mut String,
    (left, top): (usize, usize),
    name: &str,
    purpose: &str,
    named: &BTreeSet<String>,
) {
    let (width, height) = BOX;
    let _ = writeln!(
        body,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
    );
    line(body, (left + 10, top + 20), "name", name);
    let mut purpose = wrapped(purpose);
    if purpose.len() > LINES {
        purpose.truncate(LINES);
        purpose[LINES - 1].push_str(" …");
    }
    for (index, text) in purpose.iter().enumerate() {
        line(body, (left + 10, top + 37 + 15 * index), "", text);
    }
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let named = match named.as_slice() {
        [] => return,
        named if name == "main" || name == "cli" => format!("→ {} modules", named.len()),
        named => format!("→ {}", named.join(", ")),
    };
    let start = 40 + 15 * purpose.len();
    for (index, text) in wrapped(&named).iter().enumerate() {
        line(body, (left + 10, top + start + 14 * index), "names", text);
    }
}

fn line(body: &mut String, (x, y): (usize, usize), class: &str, text: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{}</text>",
        escaped(text)
    );
}

#[test]
fn every_module_has_a_place_in_the_picture() {
    let drawn: BTreeSet<&str> = BANDS
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .chain(ORDER[0].iter().copied())
        .collect();
    let ordered = ORDER.iter().flat_map(|group| group.iter().copied());
    let expected: BTreeSet<&str> = ordered.chain(["main", "cli"]).collect();
    assert_eq!(drawn, expected);
}

#[test]
fn picture_of_the_modules_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/development/modules.svg");
    let picture = draw();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, picture).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == picture,
        "docs/development/modules.svg is not current; run `make reference`"
    );
}
