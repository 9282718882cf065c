//! The XML interface of Google Cloud Storage.

use std::fmt::Write as _;

use axum::http::{Method, StatusCode};
use axum::response::Response;

use super::{Call, Content, element, empty, error, escaped, object, written, xml};

pub(super) fn is_completion(call: &Call) -> bool {
    call.method == Method::POST && call.has("uploadId")
}

pub(super) fn respond(content: &mut Content, call: &Call) -> Response {
    match call.method {
        Method::GET if call.key.is_empty() => list(content, call),
        Method::GET | Method::HEAD => object(content, call, call.header("range")),
        Method::PUT if call.has("uploadId") => {
            let part = content.next_tag();
            let Some(parts) = content.parts.get_mut(call.query("uploadId")) else {
                return error(StatusCode::NOT_FOUND, "NoSuchUpload");
            };
            parts.insert(format!("\"{part}\""), call.body.clone());
            written(StatusCode::OK, &part)
        }
        Method::PUT => {
            let is_new = call.header("x-goog-if-generation-match") == Some("0");
            match content.put(&call.key, call.body.clone(), is_new) {
                Some(tag) => written(StatusCode::OK, &tag),
                None => error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            }
        }
        Method::POST if call.has("uploads") => {
            let id = content.next_tag();
            content.parts.insert(id.clone(), Default::default());
            xml(format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>"
            ))
        }
        Method::POST => complete(content, call),
        Method::DELETE if call.has("uploadId") => {
            match content.parts.remove(call.query("uploadId")) {
                Some(_) => empty(StatusCode::NO_CONTENT),
                None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
            }
        }
        Method::DELETE => match content.objects.remove(&call.key) {
            Some(_) => empty(StatusCode::NO_CONTENT),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn complete(content: &mut Content, call: &Call) -> Response {
    let Some(parts) = content.parts.remove(call.query("uploadId")) else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let mut rest = std::str::from_utf8(&call.body).unwrap();
    let mut bytes = Vec::new();
    while let Some((tag, after)) = element(rest, "ETag") {
        let Some(part) = parts.get(&tag.replace("&quot;", "\"")) else {
            return error(StatusCode::BAD_REQUEST, "InvalidPart");
        };
        bytes.extend_from_slice(part);
        rest = after;
    }
    let tag = content.put(&call.key, bytes.into(), false).unwrap();
    xml(format!(
        "<CompleteMultipartUploadResult><ETag>\"{tag}\"</ETag></CompleteMultipartUploadResult>"
    ))
}

fn list(content: &Content, call: &Call) -> Response {
    let delimiter = call.has("delimiter").then(|| call.query("delimiter"));
    let (items, token) = content.page(
        call.query("prefix"),
        delimiter,
        call.query("continuation-token"),
    );
    let mut text = String::new();
    for item in items {
        let key = escaped(item.key);
        match item.object {
            None => write!(
                text,
                "<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
            ),
            Some((size, tag)) => write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>2026-11-02T10:00:00.000Z</LastModified>\
                 <ETag>\"{tag}\"</ETag><Size>{size}</Size></Contents>"
            ),
        }
        .unwrap();
    }
    let token = match token {
        None => "<IsTruncated>false</IsTruncated>".to_owned(),
        Some(token) => format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            escaped(&token)
        ),
    };
    xml(format!(
        "<ListBucketResult xmlns=\"http://doc.s3.amazonaws.com/2006-03-01\">{text}{token}\
         </ListBucketResult>"
    ))
}
