//! Unit tests of the module `listed_keys`.

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
fn byte_order_mark_does_not_shift_keys() {
    let listing = page(&(object("in/a//b.png") + &object("in/c.png")));
    let marked = [BYTE_ORDER_MARK, &listing].concat();
    let listed = separate(&Bytes::from(marked)).unwrap();
    let kept = [BYTE_ORDER_MARK, &page(&object("in/c.png"))].concat();
    assert_eq!(listed.listing, kept);
    assert_eq!(listed.unusable.example.as_deref(), Some("in/a//b.png"));
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
        fault(error.as_bytes()).unwrap().to_string(),
        "the store returned a listing that has the root element `Error`; expected \
         `ListBucketResult` or `EnumerationResults`"
    );
    let truncated = String::from_utf8(complete.to_vec())
        .unwrap()
        .replace("false", "true");
    assert_eq!(
        fault(truncated.as_bytes()).unwrap().to_string(),
        "the store returned a listing that is truncated, but has no continuation token"
    );
}

#[test]
fn keys_of_an_azure_listing_are_filtered() {
    let blob = |name: &str, size: u64| {
        format!(
            "<Blob>{name}<Properties><Content-Length>{size}</Content-Length></Properties></Blob>"
        )
    };
    let page = |items: &str| {
        Bytes::from(format!(
            "<?xml version=\"1.0\"?><EnumerationResults><Prefix>in/</Prefix><Blobs>{items}\
             </Blobs><NextMarker /></EnumerationResults>"
        ))
    };
    let prefix = "<BlobPrefix><Name>in/a/</Name></BlobPrefix>";
    let good = blob("<Name>in/a.png</Name>", 7) + prefix;
    let bad = blob("<Name>in//x</Name>", 7)
        + &blob("<Name Encoded=\"true\">in/%EF%BF%BE</Name>", 7)
        + &blob("<Name>in/sub/</Name>", 0)
        + "<BlobPrefix><Name>in/a&#9;/</Name></BlobPrefix>";
    let listed = separate(&page(&format!("{bad}{good}"))).unwrap();
    assert_eq!((listed.listing, listed.unusable.count), (page(&good), 2));
    let complete = page(&good);
    for end in 0..complete.len() {
        assert!(separate(&complete.slice(..end)).is_err(), "{end}");
    }
}
