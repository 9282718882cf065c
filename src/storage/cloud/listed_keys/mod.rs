//! The filter for the keys of a listing, which removes keys that the library cannot request.

use bytes::Bytes;
use object_store::path::Path;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;

use crate::storage::listing::UnusableKeys;

/// A listing of usable keys, and a count of the removed ones.
pub(crate) struct FilteredListing {
    pub(crate) listing: Bytes,
    pub(crate) unusable: UnusableKeys,
}

/// The byte order mark of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The names of the elements of a listing.
struct Dialect {
    /// The root element.
    root: &'static str,
    /// Depth of an object or a prefix below the root element.
    item_depth: u32,
    object: &'static str,
    prefix: &'static str,
    /// The key of an object and that of a prefix, directly below it.
    keys: [&'static str; 2],
    /// The size of an object, at any depth below it.
    size: &'static str,
}

/// S3, and the XML interface of GCS.
const S3: Dialect = Dialect {
    root: "ListBucketResult",
    item_depth: 1,
    object: "Contents",
    prefix: "CommonPrefixes",
    keys: ["Key", "Prefix"],
    size: "Size",
};

const AZURE: Dialect = Dialect {
    root: "EnumerationResults",
    item_depth: 2,
    object: "Blob",
    prefix: "BlobPrefix",
    keys: ["Name", "Name"],
    size: "Content-Length",
};

impl Dialect {
    /// The dialect with this root element.
    ///
    /// # Errors
    /// If none has it.
    fn of_root(name: &[u8]) -> Result<&'static Self, ListingError> {
        [&S3, &AZURE]
            .into_iter()
            .find(|dialect| dialect.root.as_bytes() == name)
            .ok_or_else(|| {
                damaged(&format!(
                    "has the root element `{}`; expected `{}` or `{}`",
                    String::from_utf8_lossy(name),
                    S3.root,
                    AZURE.root
                ))
            })
    }
}

/// The text is not a complete page of a listing.
#[derive(Debug, thiserror::Error)]
#[error("the store returned a listing that {0}")]
pub(crate) struct ListingError(String);

fn damaged(what: &str) -> ListingError {
    ListingError(what.to_owned())
}

/// Removes objects and prefixes with unusable keys from the XML text of a listing. Folder markers
/// are removed but not counted.
///
/// # Errors
/// If the text is not a complete page of a listing.
pub(crate) fn separate(listing: &Bytes) -> Result<FilteredListing, ListingError> {
    // The positions of the parser do not count a byte order mark.
    let mark = if listing.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
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
    let mut dialect = &S3;
    loop {
        let start = mark + offset(reader.buffer_position());
        let event = reader
            .read_event()
            .map_err(|error| damaged(&format!("cannot be parsed: {error}")))?;
        let end = mark + offset(reader.buffer_position());
        match event {
            Event::Start(tag) => {
                let element = tag.local_name();
                let element = element.as_ref();
                let is = |name: &str| name.as_bytes() == element;
                let depth_in_item = depth.checked_sub(dialect.item_depth);
                match (depth, depth_in_item) {
                    (0, _) => dialect = Dialect::of_root(element)?,
                    (_, Some(0)) if is(dialect.object) => scan.begin_item(start, false),
                    (_, Some(0)) if is(dialect.prefix) => scan.begin_item(start, true),
                    (_, Some(1)) if dialect.keys.into_iter().any(is) => {
                        // A key with an attribute is encoded, since XML cannot represent it.
                        let is_encoded = tag.attributes().next().is_some();
                        scan.begin_key(end, is_encoded);
                    }
                    (_, Some(1..)) if is(dialect.size) => scan.size(end),
                    (1, _) if is("IsTruncated") => {
                        is_truncated = listing[end..].starts_with(b"true");
                    }
                    (1, _) if is("NextContinuationToken") => has_token = true,
                    _ => {}
                }
                depth += 1;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                match depth.checked_sub(dialect.item_depth) {
                    _ if depth == 0 => is_complete = true,
                    Some(0) => scan.end_item(end),
                    Some(1) => scan.end_key(start),
                    _ => {}
                }
            }
            Event::Empty(tag) if depth == 0 => {
                dialect = Dialect::of_root(tag.local_name().as_ref())?;
                is_complete = true;
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
    is_prefix: bool,
    key_start: Option<usize>,
    key: Option<std::ops::Range<usize>>,
    /// Whether the key is not written as it is.
    is_encoded: bool,
    is_empty: bool,
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
    fn begin_item(&mut self, start: usize, is_prefix: bool) {
        self.item = Some(ListingItem {
            start,
            is_prefix,
            key_start: None,
            key: None,
            is_encoded: false,
            is_empty: false,
        });
    }

    fn begin_key(&mut self, start: usize, is_encoded: bool) {
        self.item.iter_mut().for_each(|item| {
            item.key_start = Some(start);
            item.is_encoded = is_encoded;
        });
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
            is_prefix,
            key: Some(key_range),
            is_encoded,
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
        let named = key.as_deref().map(|key| {
            if is_prefix {
                key.strip_suffix('/').unwrap_or(key)
            } else {
                key
            }
        });
        if !is_encoded && named.is_some_and(is_usable) {
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
mod tests;
