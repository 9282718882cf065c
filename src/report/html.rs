//! HTML elements with automatic escaping, so that data cannot become markup.

use std::fmt::{self, Display, Write as _};

use crate::text_escape::is_unprintable;

/// A fragment of a page.
#[derive(Debug, Clone, Default)]
pub(super) struct Html(String);

/// A builder of an element.
#[derive(Debug, Clone)]
pub(super) struct HtmlElement {
    tag: &'static str,
    attributes: String,
    inside: String,
}

/// Elements without an end tag.
const VOID: [&str; 3] = ["img", "meta", "br"];

/// Returns an element without attributes and children.
pub(super) fn element(tag: &'static str) -> HtmlElement {
    HtmlElement {
        tag,
        attributes: String::new(),
        inside: String::new(),
    }
}

/// Returns escaped text.
pub(super) fn text(content: impl Display) -> Html {
    let mut html = Html::default();
    // Writing to a string cannot fail.
    let _ = write!(HtmlEscaper(&mut html.0), "{content}");
    html
}

/// Returns unescaped content of the program itself, such as a style sheet.
pub(super) fn verbatim(content: &'static str) -> Html {
    Html(content.to_owned())
}

impl Html {
    /// Appends a fragment.
    pub(super) fn push(&mut self, next: impl Into<Self>) {
        self.0.push_str(&next.into().0);
    }

    /// Whether the fragment is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Into<Html>> FromIterator<T> for Html {
    fn from_iter<I: IntoIterator<Item = T>>(pieces: I) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|piece| all.push(piece));
        all
    }
}

impl HtmlElement {
    /// Adds an attribute.
    pub(super) fn attribute(mut self, name: &'static str, value: impl Display) -> Self {
        let _ = write!(self.attributes, " {name}=\"");
        let _ = write!(HtmlEscaper(&mut self.attributes), "{value}");
        self.attributes.push('"');
        self
    }

    /// Adds a class attribute.
    pub(super) fn class(self, name: &'static str) -> Self {
        self.attribute("class", name)
    }

    /// Appends a child.
    pub(super) fn with(mut self, child: impl Into<Html>) -> Self {
        self.inside.push_str(&child.into().0);
        self
    }

    /// Appends text.
    pub(super) fn text(self, content: impl Display) -> Self {
        self.with(text(content))
    }

    /// Appends children.
    pub(super) fn all<T: Into<Html>>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::with)
    }
}

impl From<HtmlElement> for Html {
    fn from(
        HtmlElement {
            tag,
            attributes,
            inside,
        }: HtmlElement,
    ) -> Self {
        if VOID.contains(&tag) {
            return Self(format!("<{tag}{attributes}>"));
        }
        Self(format!("<{tag}{attributes}>{inside}</{tag}>"))
    }
}

/// Escapes text for elements and quoted attributes.
struct HtmlEscaper<'a>(&'a mut String);

impl fmt::Write for HtmlEscaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                // Control characters are not allowed in HTML, and characters that change the
                // direction of text could hide content.
                c if is_unprintable(c) => self.0.push(char::REPLACEMENT_CHARACTER),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_in_data_are_escaped() {
        let hostile = "</p><script>alert('&')</script>\u{0}\u{202e}\"";
        let html: Html = element("p")
            .attribute("title", hostile)
            .text(hostile)
            .into();
        let escaped = "&lt;/p&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;��&quot;";
        assert_eq!(
            html.to_string(),
            format!("<p title=\"{escaped}\">{escaped}</p>")
        );
    }

    #[test]
    fn elements_hold_their_children_in_order() {
        let list = element("ul")
            .class("x")
            .all((1..3).map(|n| element("li").text(n)))
            .with(element("br"));
        expect_test::expect![[r#"<ul class="x"><li>1</li><li>2</li><br></ul>"#]]
            .assert_eq(&Html::from(list).to_string());
    }
}
