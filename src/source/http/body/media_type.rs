//! The media type of a request's body, from its `Content-Type`.

use crate::source::http::error_response::ErrorResponse;

/// The media type of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// One encoded image.
    Image,
    /// One JSON object per line.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
    /// A form with files, separated by this boundary.
    Multipart(String),
}

/// The `Content-Type` of an Arrow IPC stream.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// Maximum number of characters of a boundary (RFC 2046).
const BOUNDARY: usize = 70;

impl MediaType {
    /// Parses the header.
    ///
    /// # Errors
    /// Returns 415 for an unsupported type, and 400 for a form without a boundary.
    pub(crate) fn parse(content_type: &str) -> Result<Self, ErrorResponse> {
        match essence(content_type).as_str() {
            ARROW_STREAM => Ok(Self::Arrow),
            "application/x-ndjson" | "application/jsonl" | "application/json" => Ok(Self::Ndjson),
            "multipart/form-data" => boundary(content_type).map(Self::Multipart),
            "application/octet-stream" => Ok(Self::Image),
            image if image.starts_with("image/") => Ok(Self::Image),
            _ => Err(ErrorResponse::unsupported(format!(
                "`Content-Type: {content_type}` is not supported; expected image/*, \
                 multipart/form-data, application/x-ndjson, or {ARROW_STREAM}"
            ))),
        }
    }
}

/// The media type without its parameters, in lower case.
pub(crate) fn essence(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn boundary(content_type: &str) -> Result<String, ErrorResponse> {
    let parameters = content_type
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.trim().split_once('='));
    let mut named = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let value = named
        .next()
        .map(|(_, value)| value.trim().trim_matches('"').to_owned());
    value
        .filter(|value| (1..=BOUNDARY).contains(&value.len()))
        .ok_or_else(|| {
            ErrorResponse::bad(format!(
                "`Content-Type: multipart/form-data` needs a `boundary` of 1 to {BOUNDARY} \
                 characters"
            ))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn content_type_is_parsed_in_any_case_and_with_parameters() {
        assert_eq!(
            MediaType::parse("Image/PNG; q=1").unwrap(),
            MediaType::Image
        );
        assert_eq!(
            MediaType::parse("application/JSON; charset=utf-8").unwrap(),
            MediaType::Ndjson
        );
        let form = MediaType::parse("multipart/form-data; charset=x; Boundary=\"--a b\"").unwrap();
        assert_eq!(form, MediaType::Multipart("--a b".to_owned()));
        let status =
            |content_type: &str| MediaType::parse(content_type).unwrap_err().status.as_u16();
        assert_eq!(
            [
                status("text/html"),
                status(""),
                status("multipart/form-data")
            ],
            [415, 415, 400]
        );
    }
}
