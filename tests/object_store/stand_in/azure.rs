//! The interface of Azure Blob Storage.

use std::fmt::Write as _;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::{Call, Content, MODIFIED, element, empty, error, escaped, object, written, xml};

pub(super) fn is_completion(call: &Call) -> bool {
    call.method == Method::PUT && call.query("comp") == "blocklist"
}

pub(super) fn respond(content: &mut Content, call: &Call) -> Response {
    let range = call.header("x-ms-range").or(call.header("range"));
    match (&call.method, call.query("comp")) {
        (&Method::GET, "list") => list(content, call),
        (&Method::GET | &Method::HEAD, "") => object(content, call, range),
        (&Method::PUT, "block") => {
            let parts = content.parts.entry(call.key.clone()).or_default();
            parts.insert(call.query("blockid").to_owned(), call.body.clone());
            empty(StatusCode::CREATED)
        }
        (&Method::PUT, "blocklist") => complete(content, call),
        (&Method::PUT, "") => {
            let is_new = call.header("if-none-match") == Some("*");
            match content.put(&call.key, call.body.clone(), is_new) {
                Some(tag) => {
                    // A whole blob discards uncommitted blocks.
                    content.parts.remove(&call.key);
                    written(StatusCode::CREATED, &tag)
                }
                None => error(StatusCode::CONFLICT, "BlobAlreadyExists"),
            }
        }
        (&Method::POST, "batch") => delete_batch(content, call),
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// Executes the requests `DELETE /container/key HTTP/1.1` of a batch.
fn delete_batch(content: &mut Content, call: &Call) -> Response {
    let requests = std::str::from_utf8(&call.body).unwrap();
    let mut parts = String::new();
    for (number, request) in requests.split("\r\nDELETE /").skip(1).enumerate() {
        let path = request.split(' ').next().unwrap();
        let (_, key) = path.split_once('/').unwrap();
        let key = percent_decode_str(key).decode_utf8().unwrap();
        let status = match content.objects.remove(key.as_ref()) {
            Some(_) => "202 Accepted",
            None => "404 Not Found",
        };
        write!(
            parts,
            "--part\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n\
             HTTP/1.1 {status}\r\nServer: stand-in\r\n\r\n\r\n"
        )
        .unwrap();
    }
    Response::builder()
        .status(StatusCode::ACCEPTED)
        .header("content-type", "multipart/mixed; boundary=part")
        .body(format!("{parts}--part--\r\n").into())
        .unwrap()
}

/// Commits blocks. Every block of the list must be uncommitted.
fn complete(content: &mut Content, call: &Call) -> Response {
    let blocks = content.parts.get(&call.key).cloned().unwrap_or_default();
    let mut rest = std::str::from_utf8(&call.body).unwrap();
    let mut bytes = Vec::new();
    while let Some((id, after)) = element(rest, "Uncommitted") {
        let Some(block) = blocks.get(id) else {
            return error(StatusCode::BAD_REQUEST, "InvalidBlockList");
        };
        bytes.extend_from_slice(block);
        rest = after;
    }
    content.parts.remove(&call.key);
    let tag = content.put(&call.key, bytes.into(), false).unwrap();
    written(StatusCode::CREATED, &tag)
}

fn list(content: &Content, call: &Call) -> Response {
    let delimiter = call.has("delimiter").then(|| call.query("delimiter"));
    let (items, token) = content.page(call.query("prefix"), delimiter, call.query("marker"));
    let mut text = String::new();
    for item in items {
        let key = escaped(item.key);
        match item.object {
            None => write!(text, "<BlobPrefix><Name>{key}</Name></BlobPrefix>"),
            Some((size, tag)) => write!(
                text,
                "<Blob><Name>{key}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified>\
                 <Etag>{tag}</Etag><Content-Length>{size}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            ),
        }
        .unwrap();
    }
    let blobs = if text.is_empty() {
        "<Blobs />".to_owned()
    } else {
        format!("<Blobs>{text}</Blobs>")
    };
    let marker = token.map_or_else(
        || "<NextMarker />".to_owned(),
        |token| format!("<NextMarker>{}</NextMarker>", escaped(&token)),
    );
    // Azure begins listings with a byte order mark, and writes empty elements without an end tag.
    xml(format!(
        "\u{feff}<?xml version=\"1.0\"?><EnumerationResults>{blobs}{marker}</EnumerationResults>"
    ))
}
