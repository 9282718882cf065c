//! The pages of `docs/reference` that are generated from the program. A test compares each page with
//! what the program defines. `make reference` writes the pages again.

mod command_line;
mod error_codes;
mod http_api;
mod metric_table;
mod module_map;
mod options;

use std::fmt::Write as _;
use std::path::PathBuf;

/// Set by `make reference`: the pages are written instead of compared.
const UPDATE: &str = "LATENTFLOW_UPDATE_REFERENCE";

/// Compares a page with its file, or writes the file.
fn check_page(name: &str, title: &str, text: &str) {
    let mut page = format!(
        "<!-- Generated from the program by `make reference`. -->\n\n# {title}\n\n{}\n",
        text.trim()
    );
    // Pages end with one line break, and have no space at the end of a line.
    page = page.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{}", line.trim_end());
        all
    });
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("docs/reference")
        .join(name);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = found.lines();
    let different = page
        .lines()
        .map(|expected| (expected, lines.next().unwrap_or_default()))
        .find(|(expected, line)| expected != line);
    assert!(
        found == page,
        "docs/reference/{name} is not current; run `make reference`. First difference: {different:?}"
    );
}

/// Text for a cell of a table: one line, without bars.
fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

/// A table of Markdown.
fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&heads.map(str::to_owned));
    text += &line(&heads.map(|_| "---".to_owned()));
    for row in rows {
        text += &line(&row.map(|content| cell(&content)));
    }
    text
}
