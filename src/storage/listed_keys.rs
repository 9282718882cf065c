//! The filter for the keys of a listing, which removes keys that the S3 library cannot request.

use bytes::Bytes;
use object_store::path::Path;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;

use super::UnusableKeys;

/// A listing of usable keys, and a count of the removed ones.
pub(super) struct FilteredListing {
    pub(super) listing: Bytes,
    pub(super) unusable: UnusableKeys,
}

/// Removes objects and prefixes with unusable keys from the XML text of a listing. Folder markers
/// are removed but not counted.
///
/// # Errors
/// A message, if the text is not a complete page of a listing.
pub(super) fn separate(listing: &Bytes) -> Result<FilteredListing, String> {
    let mut scan = ListingScan {
        text: listing,
        kept_to: 0,
        kept: Vec::new(),
        unusable: UnusableKeys::default(),
        item: None,
    };
    let mut reader = Reader::from_reader(&listing[..]);
    let (mut depth, mut is_complete, mut is_truncated, mut has_token) =
        (0_u32, false, false, false);
    let damaged = |what: &str| format!("the store returned a listing that {what}");
    loop {
        let start = offset(reader.buffer_position());
        let event = reader
            .read_event()
            .map_err(|error| damaged(&format!("cannot be parsed: {error}")))?;
        let end = offset(reader.buffer_position());
        match event {
            Event::Start(tag) => {
                match (depth, tag.local_name().as_ref()) {
                    (0, b"ListBucketResult") => {}
                    (0, name) => {
                        return Err(damaged(&format!(
                            "has the root element `{}`; expected `ListBucketResult`",
                            String::from_utf8_lossy(name)
                        )));
                    }
                    (1, b"Contents" | b"CommonPrefixes") => {
                        scan.item = Some(ListingItem::at(start))
                    }
                    (1, b"IsTruncated") => is_truncated = listing[end..].starts_with(b"true"),
                    (1, b"NextContinuationToken") => has_token = true,
                    (2, b"Key" | b"Prefix") => scan.begin_key(end),
                    (2, b"Size") => scan.size(end),
                    _ => {}
                }
                depth += 1;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                match depth {
                    0 => is_complete = true,
                    1 => scan.end_item(end),
                    2 => scan.end_key(start),
                    _ => {}
                }
            }
            Event::Empty(tag) if depth == 0 => {
                is_complete = tag.local_name().as_ref() == b"ListBucketResult"
            }
            Event::Eof if !is_complete => return Err(damaged("ends too early")),
            Event::Eof if is_truncated && !has_token => {
                return Err(damaged("is truncated, but has no continuation token"));
            }
            Event::Eof => return Ok(scan.finish()),
            _ => {}
        }
    }
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// An object or a prefix of the listing.
struct ListingItem {
    start: usize,
    key_start: Option<usize>,
    key: Option<std::ops::Range<usize>>,
    is_empty: bool,
}

impl ListingItem {
    fn at(start: usize) -> Self {
        Self {
            start,
            key_start: None,
            key: None,
            is_empty: false,
        }
    }
}

struct ListingScan<'a> {
    text: &'a Bytes,
    /// End of the part of `text` that was copied or removed.
    kept_to: usize,
    kept: Vec<u8>,
    unusable: UnusableKeys,
    item: Option<ListingItem>,
}

impl ListingScan<'_> {
    fn begin_key(&mut self, start: usize) {
        self.item
            .iter_mut()
            .for_each(|item| item.key_start = Some(start));
    }

    fn end_key(&mut self, end: usize) {
        self.item.iter_mut().for_each(|item| {
            if let Some(start) = item.key_start.take() {
                item.key = Some(start..end);
            }
        });
    }

    fn size(&mut self, start: usize) {
        let is_empty = self.text[start..].starts_with(b"0<");
        self.item
            .iter_mut()
            .for_each(|item| item.is_empty = is_empty);
    }

    fn end_item(&mut self, end: usize) {
        let Some(ListingItem {
            start,
            key: Some(key_range),
            is_empty,
            ..
        }) = self.item.take()
        else {
            return;
        };
        let raw = &self.text[key_range];
        let key = std::str::from_utf8(raw)
            .ok()
            .and_then(|text| unescape(text).ok());
        let is_prefix = self.text[start..].starts_with(b"<CommonPrefixes");
        let named = key.as_deref().map(|key| {
            if is_prefix {
                key.strip_suffix('/').unwrap_or(key)
            } else {
                key
            }
        });
        if named.is_some_and(is_usable) {
            return;
        }
        self.kept.extend_from_slice(&self.text[self.kept_to..start]);
        self.kept_to = end;
        let is_marker = is_empty && key.as_deref().is_some_and(|key| key.ends_with('/'));
        if !is_marker && !is_prefix {
            let example =
                key.map_or_else(|| String::from_utf8_lossy(raw).into_owned(), String::from);
            self.unusable.append(UnusableKeys {
                count: 1,
                example: Some(example),
            });
        }
    }

    fn finish(mut self) -> FilteredListing {
        let listing = if self.kept_to == 0 {
            self.text.clone()
        } else {
            self.kept.extend_from_slice(&self.text[self.kept_to..]);
            Bytes::from(self.kept)
        };
        FilteredListing {
            listing,
            unusable: self.unusable,
        }
    }
}

/// Whether the library requests exactly this key. It removes slashes and XML white space from the
/// ends of a key.
fn is_usable(key: &str) -> bool {
    let is_white = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    !key.starts_with(is_white)
        && !key.ends_with(is_white)
        && Path::parse(key).is_ok_and(|path| path.as_ref() == key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn page(items: &str) -> Bytes {
        let text = format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3\"><Prefix>in/</Prefix>\
             {items}<IsTruncated>false</IsTruncated></ListBucketResult>"
        );
        Bytes::from(text)
    }

    fn object(key: &str) -> String {
        format!("<Contents><Key>{key}</Key><Size>7</Size></Contents>")
    }

    #[test]
    fn unusable_keys_are_removed_and_counted() {
        let good = [
            "in/a.png",
            "in/b c&amp;d.png",
            "in/\u{e9}.png",
            "in/...",
            "in/a?b#c%d",
        ];
        let bad = [
            "in/a\tb.png",
            "in/&#9;",
            "in/&#x1;",
            "in/../y",
            "in/.",
            "in//x",
            "in/x/",
            "/in",
            "in/x ",
            "in/a\nb",
            "&no;",
        ];
        let items: String = bad
            .iter()
            .zip(good.iter().cycle())
            .map(|(bad, good)| object(bad) + &object(good))
            .collect();
        let listed = separate(&page(&items)).unwrap();
        let kept: String = (0..bad.len())
            .map(|index| object(good[index % good.len()]))
            .collect();
        assert_eq!(listed.listing, page(&kept));
        assert_eq!(
            listed.unusable,
            UnusableKeys {
                count: 11,
                example: Some("in/a\tb.png".to_owned())
            }
        );
    }

    #[test]
    fn keys_that_are_not_utf8_are_counted() {
        let mut text = page(&object("in/@.png")).to_vec();
        let at = text.iter().position(|&byte| byte == b'@').unwrap();
        text[at] = 0xff;
        let listed = separate(&Bytes::from(text)).unwrap();
        assert_eq!((listed.listing, listed.unusable.count), (page(""), 1));
    }

    #[test]
    fn folder_markers_are_not_counted() {
        let marker = "<Contents><Key>in/sub/</Key><Size>0</Size></Contents>";
        let prefixes = "<CommonPrefixes><Prefix>in/a/</Prefix></CommonPrefixes>";
        let odd = "<CommonPrefixes><Prefix>in/a&#9;/</Prefix></CommonPrefixes>";
        let listed = separate(&page(&format!("{marker}{prefixes}{odd}"))).unwrap();
        assert_eq!((listed.listing, listed.unusable.count), (page(prefixes), 0));
    }

    #[test]
    fn incomplete_listing_is_an_error() {
        let complete = page(&object("in/a.png"));
        let fault = |text: &[u8]| separate(&Bytes::copy_from_slice(text)).err();
        for end in 0..complete.len() {
            assert!(fault(&complete[..end]).is_some(), "{end}");
        }
        let error = "<Error><Code>InternalError</Code></Error>";
        assert_eq!(
            fault(error.as_bytes()).unwrap(),
            "the store returned a listing that has the root element `Error`; expected \
             `ListBucketResult`"
        );
        let truncated = String::from_utf8(complete.to_vec())
            .unwrap()
            .replace("false", "true");
        assert_eq!(
            fault(truncated.as_bytes()).unwrap(),
            "the store returned a listing that is truncated, but has no continuation token"
        );
    }
}
