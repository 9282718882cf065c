//! Unit tests of the module `response`.

use super::*;

#[test]
fn accept_selects_the_response_format() {
    let png = ResponseFormat::Picture(OutputFormat::Png);
    for (accept, format) in [
        ("", ResponseFormat::Json),
        ("*/*", ResponseFormat::Json),
        (
            "text/html, application/json;q=0.9, image/png",
            ResponseFormat::Json,
        ),
        ("image/png", png),
        (
            "Image/JPEG; q=1, */*",
            ResponseFormat::Picture(OutputFormat::Jpeg(JPEG)),
        ),
        ("image/webp, image/*", png),
        ("application/vnd.apache.arrow.stream", ResponseFormat::Arrow),
    ] {
        assert_eq!(ResponseFormat::parse(accept), format, "{accept}");
    }
}
