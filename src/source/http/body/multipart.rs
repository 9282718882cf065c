//! Bodies of the type `multipart/form-data`: the files of a form with their names.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::source::http::error_response::ErrorResponse;

/// Maximum size of the header of a part in bytes.
const HEAD: usize = 8 << 10;

/// A part of a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FormPart {
    /// The name of its field.
    pub(crate) field: String,
    /// The name of its file; `None` if the part is not a file.
    pub(crate) file: Option<String>,
    /// The position of its content in the body.
    pub(crate) content: Range<usize>,
}

/// An iterator over the parts of a body.
pub(crate) struct FormParts<'a> {
    body: &'a [u8],
    delimiter: Finder<'static>,
    /// The end of the last delimiter that was found; `None` after the last part.
    at: Option<usize>,
}

impl<'a> FormParts<'a> {
    /// The parts that `boundary` separates.
    ///
    /// # Errors
    /// Returns 422 if the body does not contain the boundary.
    pub(crate) fn new(body: &'a [u8], boundary: &str) -> Result<Self, ErrorResponse> {
        let delimiter = format!("\r\n--{boundary}");
        // Text before the first delimiter is not part of the form.
        let first = &delimiter.as_bytes()[2..];
        let at = if body.starts_with(first) {
            Some(first.len())
        } else {
            memchr::memmem::find(body, delimiter.as_bytes()).map(|found| found + delimiter.len())
        };
        let at =
            at.ok_or_else(|| malformed("it does not contain the boundary of its Content-Type"))?;
        Ok(Self {
            body,
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            at: Some(at),
        })
    }

    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// Returns 422 if the part is malformed, or the body ends before the form does.
    pub(crate) fn next(&mut self) -> Result<Option<FormPart>, ErrorResponse> {
        let Some(at) = self.at else { return Ok(None) };
        let rest = &self.body[at..];
        if rest.starts_with(b"--") {
            self.at = None;
            return Ok(None);
        }
        let padding = rest
            .iter()
            .take_while(|&&byte| byte == b' ' || byte == b'\t')
            .count();
        if !rest[padding..].starts_with(b"\r\n") {
            return Err(malformed("a boundary is not followed by a line break"));
        }
        // The line break after the boundary is also the one before an empty header.
        let head_at = at + padding;
        let within = &self.body[head_at..self.body.len().min(head_at + HEAD)];
        let head = memchr::memmem::find(within, b"\r\n\r\n");
        let head =
            head.ok_or_else(|| malformed("a part has no header, or a header of more than 8 KiB"))?;
        let content = head_at + head + 4;
        // An empty content shares its line break with the header.
        let end = self
            .delimiter
            .find(&self.body[content - 2..])
            .map(|found| content - 2 + found);
        let end = end.ok_or_else(|| malformed("it ends before its last boundary"))?;
        self.at = Some(end + self.delimiter.needle().len());
        let (field, file) = names(&within[..head])?;
        Ok(Some(FormPart {
            field,
            file,
            content: content..end.max(content),
        }))
    }
}

fn malformed(what: &str) -> ErrorResponse {
    ErrorResponse::unprocessable(format!("the body is not valid multipart/form-data: {what}"))
}

/// The names of a part's field and file.
fn names(head: &[u8]) -> Result<(String, Option<String>), ErrorResponse> {
    let head = std::str::from_utf8(head)
        .map_err(|_| malformed("the header of a part is not valid UTF-8"))?;
    let mut field = None;
    let mut file = None;
    for line in head.split("\r\n") {
        let Some((header_name, header_value)) = line.split_once(':') else {
            continue;
        };
        if !header_name
            .trim()
            .eq_ignore_ascii_case("content-disposition")
        {
            continue;
        }
        for (name, value) in parameters(header_value) {
            match name.to_ascii_lowercase().as_str() {
                "name" => field = Some(value),
                "filename" => file = Some(value),
                _ => {}
            }
        }
    }
    Ok((field.ok_or_else(|| malformed("a part has no name"))?, file))
}

/// The parameters `name="value"` of a header. In a quoted value, a backslash escapes a quote or a
/// backslash.
fn parameters(header_value: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header_value;
    while let Some((_, after)) = rest.split_once(';') {
        let Some((name, after)) = after.split_once('=') else {
            break;
        };
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = after;
    }
    found
}

/// A quoted value, and the text after it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[offset + 1..]),
            '\\' if characters
                .peek()
                .is_some_and(|(_, next)| matches!(next, '"' | '\\')) =>
            {
                value.extend(characters.next().map(|(_, next)| next));
            }
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parts(body: &str) -> Result<Vec<(String, Option<String>, String)>, ErrorResponse> {
        let mut parts = FormParts::new(body.as_bytes(), "XX")?;
        let mut found = Vec::new();
        while let Some(part) = parts.next()? {
            found.push((part.field, part.file, body[part.content].to_owned()));
        }
        Ok(found)
    }

    fn part(head: &str, content: &str) -> String {
        let head = format!("Content-Disposition: form-data; {head}\r\nContent-Type: image/jpeg");
        format!("--XX\r\n{head}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn parts_of_a_form_are_found_with_their_names() {
        let body = [
            part("name=\"image\"; filename=\"a.jpg\"", "one\r\n--X\r\n"),
            part("name=image; filename=\"b\\\"; \\\\.jpg\"", ""),
            part("name=\"text\"", "plain"),
            "--XX--\r\n".to_owned(),
        ];
        let found = parts(&body.concat()).unwrap();
        let expected = [
            ("image", Some("a.jpg"), "one\r\n--X\r\n"),
            ("image", Some("b\"; \\.jpg"), ""),
            ("text", None, "plain"),
        ];
        let owned = |(field, file, content): (&str, Option<&str>, &str)| {
            (
                field.to_owned(),
                file.map(str::to_owned),
                content.to_owned(),
            )
        };
        assert_eq!(found, expected.map(owned));
        assert_eq!(
            parts(&format!("preamble\r\n{}", body.concat()))
                .unwrap()
                .len(),
            3
        );
    }

    #[test]
    fn truncated_form_is_refused() {
        let body = format!(
            "{}--XX--",
            part("name=\"image\"; filename=\"a.jpg\"", "content")
        );
        assert_eq!(parts(&body).unwrap().len(), 1);
        for len in 0..body.len() {
            assert!(parts(&body[..len]).is_err(), "cut to {len}");
        }
    }
}
