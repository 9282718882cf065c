//! The page around a report: its head, its style, its sections.

use super::html::{Html, HtmlElement, element, text, verbatim};

/// Fetches nothing and runs nothing, whatever stands in the data.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// A whole document; what is above its first section is `head`.
pub(super) fn document(
    title: &str,
    head: impl Into<Html>,
    sections: impl IntoIterator<Item = Html>,
) -> String {
    let meta = |name: &'static str, value: &'static str| {
        element("meta")
            .attribute("name", name)
            .attribute("content", value)
    };
    let policy = element("meta")
        .attribute("http-equiv", "Content-Security-Policy")
        .attribute("content", POLICY);
    let top = element("head")
        .with(element("meta").attribute("charset", "utf-8"))
        .with(policy)
        .with(meta("viewport", "width=device-width, initial-scale=1"))
        .with(meta("color-scheme", "light dark"))
        .with(element("title").text(title))
        .with(element("style").with(verbatim(include_str!("style.css"))));
    let made = format!("Made by latentflow {}.", env!("CARGO_PKG_VERSION"));
    let main = element("main").all(sections.into_iter().filter(|section| !section.is_empty()));
    let body = element("body")
        .with(element("header").with(head))
        .with(main)
        .with(element("footer").text(made));
    let page: Html = element("html")
        .attribute("lang", "en")
        .with(top)
        .with(body)
        .into();
    format!("<!DOCTYPE html>\n{page}\n")
}

/// A section under a heading; nothing where it has no content.
pub(super) fn section(title: &str, content: impl IntoIterator<Item = Html>) -> Html {
    let content: Html = content.into_iter().collect();
    if content.is_empty() {
        return content;
    }
    element("section")
        .with(element("h2").text(title))
        .with(content)
        .into()
}

/// Charts beside one another where there is room.
pub(super) fn charts(all: impl IntoIterator<Item = Html>) -> Html {
    let all: Html = all.into_iter().collect();
    if all.is_empty() {
        all
    } else {
        element("div").class("charts").with(all).into()
    }
}

/// A key figure: what it is, the figure, and what explains it.
pub(super) struct FigureTile {
    pub(super) name: String,
    pub(super) figure: String,
    pub(super) note: String,
}

impl FigureTile {
    pub(super) fn new(
        name: impl Into<String>,
        figure: impl Into<String>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            figure: figure.into(),
            note: note.into(),
        }
    }
}

/// Key figures side by side.
pub(super) fn tiles(tiles: &[FigureTile]) -> Html {
    let tile = |tile: &FigureTile| {
        let note = if tile.note.is_empty() {
            Html::default()
        } else {
            element("small").text(&tile.note).into()
        };
        element("div")
            .with(element("dt").text(&tile.name))
            .with(element("dd").text(&tile.figure).with(note))
    };
    if tiles.is_empty() {
        return Html::default();
    }
    element("dl")
        .class("tiles")
        .all(tiles.iter().map(tile))
        .into()
}

/// A table of names and texts.
pub(super) fn facts(rows: impl IntoIterator<Item = (String, Html)>) -> Html {
    let row = |(name, value): (String, Html)| {
        element("tr")
            .with(element("th").attribute("scope", "row").text(name))
            .with(element("td").with(value))
    };
    scroll(
        element("table")
            .class("facts")
            .with(element("tbody").all(rows.into_iter().map(row))),
    )
}

/// A table of figures: the heads of its columns, the first of which names the rows.
pub(super) fn figures(
    caption: &str,
    heads: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Html {
    let head = |(place, head): (usize, &&str)| {
        let cell = element("th").attribute("scope", "col");
        (if place > 0 { cell.class("n") } else { cell }).text(head)
    };
    let heads = element("thead").with(element("tr").all(heads.iter().enumerate().map(head)));
    let row = |cells: Vec<String>| {
        let cells = cells
            .into_iter()
            .enumerate()
            .map(|(place, cell)| match place {
                0 => element("th").attribute("scope", "row").text(cell),
                _ => element("td").class("n").text(cell),
            });
        element("tr").all(cells)
    };
    let rows = element("tbody").all(rows.into_iter().map(row));
    captioned(caption, element("table").with(heads).with(rows))
}

/// A table under its title, which stays where it is while the table moves.
fn captioned(caption: &str, table: HtmlElement) -> Html {
    let title = element("figcaption").with(element("h3").text(caption));
    element("figure")
        .with(title)
        .with(scroll(table.attribute("aria-label", caption)))
        .into()
}

/// A row of a table with a bar: its name, the share of the bar that is filled, and texts of further
/// columns.
pub(super) struct BarRow {
    pub(super) name: String,
    pub(super) share: f64,
    pub(super) cells: Vec<String>,
}

/// A table whose rows end in bars; `heads` name the first column, the cells, and the bar.
pub(super) fn bars(caption: &str, heads: &[&str], rows: impl IntoIterator<Item = BarRow>) -> Html {
    let last = heads.len().saturating_sub(1);
    let head = |(place, head): (usize, &&str)| {
        let cell = element("th").attribute("scope", "col");
        (if place > 0 && place < last {
            cell.class("n")
        } else {
            cell
        })
        .text(head)
    };
    let heads = element("thead").with(element("tr").all(heads.iter().enumerate().map(head)));
    let row = |bar: BarRow| {
        let width = format!("width:{:.1}%", bar.share.clamp(0.0, 1.0) * 100.0);
        let drawn = element("td")
            .class("bar tone0")
            .with(element("span").attribute("style", width));
        let cells = bar
            .cells
            .into_iter()
            .map(|cell| element("td").class("n").text(cell));
        element("tr")
            .with(element("th").attribute("scope", "row").text(bar.name))
            .all(cells)
            .with(drawn)
    };
    let rows = element("tbody").all(rows.into_iter().map(row));
    captioned(
        caption,
        element("table").class("bars").with(heads).with(rows),
    )
}

/// What may be wider than the page moves in a frame of its own, also by the keyboard.
pub(super) fn scroll(content: HtmlElement) -> Html {
    element("div")
        .class("scroll")
        .attribute("tabindex", 0)
        .with(content)
        .into()
}

/// Sentences as a list; nothing without any.
pub(super) fn notes(sentences: &[String]) -> Html {
    if sentences.is_empty() {
        return Html::default();
    }
    element("ul")
        .class("notes")
        .all(
            sentences
                .iter()
                .map(|sentence| element("li").text(sentence)),
        )
        .into()
}

/// What is read on request.
pub(super) fn details(summary: &str, content: impl Into<Html>) -> Html {
    element("details")
        .with(element("summary").text(summary))
        .with(content)
        .into()
}

/// A paragraph.
pub(super) fn paragraph(content: impl std::fmt::Display) -> Html {
    element("p").with(text(content)).into()
}
