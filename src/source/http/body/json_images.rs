//! Images as JSON: objects whose field `image` holds base64 or a base64 data URL.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch};
use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::batch::reject::RejectCode;
use crate::source::table::json::scan::scan_line;
use crate::source::table::text::{DecodeError, LineAction, TextFormat};

/// The standard alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Parses objects into the column `image`, the only one of the schema.
pub(crate) struct ImageObjects(pub(crate) SchemaRef);

#[derive(Deserialize)]
struct ImageObject<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
}

impl TextFormat for ImageObjects {
    fn check(&self, record: &[u8]) -> LineAction {
        match scan_line(record, &mut ()) {
            Ok(None) => LineAction::Skip,
            Ok(Some(_)) => LineAction::Parse(record.len() as u64),
            Err(reason) => LineAction::Refuse(RejectCode::Malformed, reason),
        }
    }

    fn decode(&self, text: &[u8], count: usize) -> Result<RecordBatch, DecodeError> {
        let mut images = BinaryBuilder::with_capacity(count, text.len() / 4 * 3);
        for line in text
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let object: ImageObject<'_> =
                serde_json::from_slice(line).map_err(|error| error.to_string())?;
            images.append_value(decode(&object.image)?);
        }
        let images: ArrayRef = Arc::new(images.finish());
        RecordBatch::try_new(SchemaRef::clone(&self.0), vec![images])
            .map_err(|error| error.to_string().into())
    }

    fn schema(&self) -> &SchemaRef {
        &self.0
    }
}

/// Decodes the bytes of an image.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let text = match text.strip_prefix("data:").map(|url| url.split_once(',')) {
        None => text,
        Some(Some((media, data))) if media.to_ascii_lowercase().ends_with(";base64") => data,
        Some(_) => return Err("`image` is a data URL without `;base64,`".to_owned()),
    };
    if text.is_empty() {
        return Err("`image` is empty; expected an image as base64".to_owned());
    }
    BASE64
        .decode(text)
        .map_err(|error| format!("`image` is not base64: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn base64_and_data_urls_are_decoded_and_other_text_is_refused() {
        for text in [
            "/9j/AA==",
            "/9j/AA",
            "data:image/jpeg;base64,/9j/AA==",
            "data:;BASE64,/9j/AA==",
        ] {
            assert_eq!(decode(text).unwrap(), [0xff, 0xd8, 0xff, 0], "{text}");
        }
        for text in [
            "",
            "data:image/png;base64,",
            "data:image/png,abc",
            "a b=",
            "/9j/AB==",
            "/9j_AA==",
            "\u{e9}",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
