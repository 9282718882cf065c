//! A server with the interfaces of Google Cloud Storage and of Azure Blob Storage, as far as a
//! bucket needs them: listings by pages, ranges, conditions, and uploads in parts. It holds one
//! bucket in memory.

mod azure;
mod gcs;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::Store;

pub const BUCKET: &str = "stand-in";
/// The credentials that the server requires.
pub const SECRET: &str = "c2VjcmV0LXRoYXQtbXVzdC1ub3QtbGVhaw==";

/// Number of keys of a page, few so that listings have several pages.
const PAGE: usize = 5;
/// Maximum time for which a completion is held back.
const HOLD_TIMEOUT: Duration = Duration::from_secs(60);
const MODIFIED: &str = "Mon, 02 Nov 2026 10:00:00 GMT";

/// The interface of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    Gcs,
    Azure,
}

impl Cloud {
    pub const ALL: [Self; 2] = [Self::Gcs, Self::Azure];
}

/// What happens to the next completions of uploads.
#[derive(Default)]
struct Completions {
    /// Number of completions that wait until they are released.
    to_hold: usize,
    /// Number of completions that wait now.
    held: usize,
    is_released: bool,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    completions: Mutex<Completions>,
    changed: Condvar,
    /// Number of completions that are executed but answered with status 503.
    lost_responses: AtomicUsize,
    /// Statuses of the refused completions.
    refused: Mutex<Vec<StatusCode>>,
}

/// The objects and the unfinished uploads of the bucket.
#[derive(Default)]
struct Content {
    objects: BTreeMap<String, (Bytes, String)>,
    /// The parts of unfinished uploads, by the key or by the upload identifier.
    parts: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// Number of writes, from which entity tags and upload identifiers are made.
    writes: u64,
}

impl Content {
    fn next_tag(&mut self) -> String {
        self.writes += 1;
        format!("0x{:08X}", self.writes)
    }

    /// Writes an object; `None` if it exists and `is_new` is set.
    fn put(&mut self, key: &str, bytes: Bytes, is_new: bool) -> Option<String> {
        if is_new && self.objects.contains_key(key) {
            return None;
        }
        let tag = self.next_tag();
        self.objects.insert(key.to_owned(), (bytes, tag.clone()));
        Some(tag)
    }

    /// The next page of keys and prefixes below `prefix`, and the token of the page after it.
    fn page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        after: &str,
    ) -> (Vec<Item<'_>>, Option<String>) {
        let mut items: Vec<Item<'_>> = Vec::new();
        for (key, (bytes, tag)) in &self.objects {
            let Some(name) = key.strip_prefix(prefix) else {
                continue;
            };
            let common = delimiter.and_then(|delimiter| name.find(delimiter));
            let key = common.map_or(key.as_str(), |end| &key[..=prefix.len() + end]);
            if key <= after || items.last().is_some_and(|last| last.key == key) {
                continue;
            }
            if items.len() == PAGE {
                let token = items.last().map(|last| last.key.to_owned());
                return (items, token);
            }
            items.push(Item {
                key,
                object: common.is_none().then_some((bytes.len(), tag.as_str())),
            });
        }
        (items, None)
    }
}

/// An object or a common prefix of a listing.
struct Item<'a> {
    key: &'a str,
    /// Size and entity tag of an object.
    object: Option<(usize, &'a str)>,
}

/// A request with its decoded path and query.
struct Call {
    method: Method,
    /// The key, empty for the bucket.
    key: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A running server with an empty bucket.
pub struct StandIn {
    cloud: Cloud,
    port: u16,
    shared: Arc<Shared>,
}

impl StandIn {
    pub fn start(cloud: Cloud) -> Self {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let service = axum::Router::new().fallback(move |request: Request| {
                let state = Arc::clone(&state);
                async move { respond(cloud, state, request).await }
            });
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, service).await.unwrap();
            });
        });
        Self {
            cloud,
            port,
            shared,
        }
    }

    /// Holds the next completion of an upload back until [`Self::release`].
    pub fn hold_next_completion(&self) {
        *self.shared.completions.lock().unwrap() = Completions {
            to_hold: 1,
            ..Completions::default()
        };
    }

    pub fn holds_a_completion(&self) -> bool {
        self.shared.completions.lock().unwrap().held > 0
    }

    /// Executes the completions that are held back.
    pub fn release(&self) {
        self.shared.completions.lock().unwrap().is_released = true;
        self.shared.changed.notify_all();
    }

    /// Executes the next `count` completions, and answers them with an error.
    pub fn lose_responses(&self, count: usize) {
        self.shared.lost_responses.store(count, SeqCst);
    }

    /// Number of completions that were refused.
    pub fn refused(&self) -> usize {
        self.shared.refused.lock().unwrap().len()
    }

    /// Number of unfinished uploads that have parts.
    pub fn unfinished(&self) -> usize {
        self.shared.content.lock().unwrap().parts.len()
    }
}

impl Store for StandIn {
    fn url(&self, key: &str) -> String {
        let scheme = match self.cloud {
            Cloud::Gcs => "gs",
            Cloud::Azure => "az",
        };
        format!("{scheme}://{BUCKET}/{key}")
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        match self.cloud {
            Cloud::Gcs => vec![
                ("GOOGLE_BASE_URL", endpoint),
                ("GOOGLE_BEARER_TOKEN", SECRET.to_owned()),
                ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            ],
            Cloud::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", endpoint),
                ("AZURE_STORAGE_ACCOUNT_NAME", "account".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", SECRET.to_owned()),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ],
        }
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let mut content = self.shared.content.lock().unwrap();
        content
            .put(key, Bytes::copy_from_slice(bytes), false)
            .unwrap();
    }

    fn get(&self, key: &str) -> Vec<u8> {
        self.shared.content.lock().unwrap().objects[key].0.to_vec()
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        let content = self.shared.content.lock().unwrap();
        let keys = content.objects.keys();
        keys.filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    fn is_aborted(&self, key: &str) -> bool {
        self.cloud == Cloud::Azure && self.get(key).is_empty()
    }
}

async fn respond(cloud: Cloud, shared: Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let call = Call {
        method: parts.method.clone(),
        key: decode(key),
        query: pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), decode(&value.replace('+', " "))))
            .collect(),
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap(),
    };
    let authorization = call.header("authorization").unwrap_or_default();
    let is_authorized = match cloud {
        Cloud::Gcs => authorization == format!("Bearer {SECRET}"),
        Cloud::Azure => authorization.starts_with("SharedKey account:"),
    };
    if decode(bucket) != BUCKET || !is_authorized {
        return error(StatusCode::FORBIDDEN, "AccessDenied");
    }
    let is_completion = match cloud {
        Cloud::Gcs => gcs::is_completion(&call),
        Cloud::Azure => azure::is_completion(&call),
    };
    if is_completion {
        hold(&shared).await;
    }
    let response = {
        let mut content = shared.content.lock().unwrap();
        match cloud {
            Cloud::Gcs => gcs::respond(&mut content, &call),
            Cloud::Azure => azure::respond(&mut content, &call),
        }
    };
    if is_completion && !response.status().is_success() {
        shared.refused.lock().unwrap().push(response.status());
    }
    let is_lost = is_completion
        && response.status().is_success()
        && shared
            .lost_responses
            .try_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok();
    if is_lost {
        return error(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy");
    }
    response
}

/// Waits while completions are held back.
async fn hold(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let waiting = tokio::task::spawn_blocking(move || {
        let mut completions = shared.completions.lock().unwrap();
        if completions.to_hold == 0 {
            return;
        }
        completions.to_hold -= 1;
        completions.held += 1;
        let (mut completions, _) = shared
            .changed
            .wait_timeout_while(completions, HOLD_TIMEOUT, |held| !held.is_released)
            .unwrap();
        completions.held -= 1;
    });
    waiting.await.unwrap();
}

/// The response to a request for the content or the entry of an object.
fn object(content: &Content, call: &Call, range: Option<&str>) -> Response {
    let Some((bytes, tag)) = content.objects.get(&call.key) else {
        return error(StatusCode::NOT_FOUND, "BlobNotFound");
    };
    let tag = format!("\"{tag}\"");
    if call
        .header("if-match")
        .is_some_and(|expected| expected != tag)
    {
        return error(StatusCode::PRECONDITION_FAILED, "ConditionNotMet");
    }
    let mut response = Response::builder()
        .header(header::ETAG, &tag)
        .header(header::LAST_MODIFIED, MODIFIED)
        .header("x-ms-blob-type", "BlockBlob");
    let size = bytes.len();
    let part = match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        None => bytes.clone(),
        Some((start, end)) => {
            let start: usize = start.parse().unwrap();
            let end = size.min(end.parse::<usize>().unwrap() + 1);
            let shown = format!("bytes {start}-{}/{size}", end - 1);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, shown);
            bytes.slice(start..end)
        }
    };
    response = response.header(header::CONTENT_LENGTH, part.len());
    let body = if call.method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(part)
    };
    response.body(body).unwrap()
}

fn written(status: StatusCode, tag: &str) -> Response {
    let response = Response::builder()
        .status(status)
        .header(header::ETAG, format!("\"{tag}\""))
        .header(header::LAST_MODIFIED, MODIFIED);
    response.body(Body::empty()).unwrap()
}

fn xml(text: String) -> Response {
    Response::new(Body::from(text))
}

fn empty(status: StatusCode) -> Response {
    Response::builder()
        .status(status)
        .body(Body::empty())
        .unwrap()
}

fn error(status: StatusCode, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    Response::builder()
        .status(status)
        .header("x-ms-error-code", code)
        .body(Body::from(text))
        .unwrap()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
}

/// The text between the first `<name>` and its end tag, and the text after it.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>"))
}
