//! The client of a bucket over the traits of the library.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::list::{PaginatedListOptions, PaginatedListResult};
use object_store::multipart::PartId;
use object_store::path::{DELIMITER, Path};
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStoreExt as _, PutMode, PutPayload,
};

use super::error::{redact, to_io_error};
use super::runtime::spawn;
use super::{CloudStore, Provider};
use crate::storage::listing::{ObjectListing, StoreEntry, UnusableKeys};
use crate::storage::object_client::{ObjectClient, PendingRequest, UploadFence};

/// The client of a bucket.
pub(super) struct StoreClient {
    store: Arc<dyn CloudStore>,
    provider: &'static Provider,
}

impl StoreClient {
    pub(super) fn new(store: Arc<dyn CloudStore>, provider: &'static Provider) -> Self {
        Self { store, provider }
    }

    /// Starts a request for `key`.
    fn request<T, F>(
        &self,
        key: &str,
        work: impl FnOnce(Arc<dyn CloudStore>, Path) -> F + Send + 'static,
    ) -> PendingRequest<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (store, provider) = (Arc::clone(&self.store), self.provider);
        let path = Path::parse(key);
        spawn(async move {
            let path = path
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
            let response = work(store, path).await;
            response.map_err(|error| to_io_error(provider, &error))
        })
    }
}

/// Shows only the name of the store, since its client holds credentials.
impl fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.provider.name)
    }
}

impl ObjectClient for StoreClient {
    fn parse_key(&self, key: &str) -> Result<String, String> {
        Path::parse(key)
            .map(|path| path.to_string())
            .map_err(|error| redact(self.provider, &error.to_string()))
    }

    fn list(&self, prefix: &str, is_recursive: bool) -> PendingRequest<ObjectListing> {
        let delimiter = (!is_recursive).then_some(DELIMITER);
        let name = self.provider.name;
        self.request(prefix, move |store, prefix| {
            pages(store, prefix, delimiter, name)
        })
    }

    fn has_objects(&self, prefix: &str) -> PendingRequest<bool> {
        self.request(prefix, |store, prefix| async move {
            let below = below(&prefix);
            let page = store
                .list_paginated(below.as_deref(), PaginatedListOptions::default())
                .await?;
            Ok(!page.result.objects.is_empty() || page.page_token.is_some())
        })
    }

    fn head(&self, key: &str) -> PendingRequest<Option<StoreEntry>> {
        self.request(key, |store, path| async move {
            let prefix = path.as_ref().rsplit_once(DELIMITER);
            let prefix = Path::parse(prefix.map_or("", |(prefix, _)| prefix))?;
            if path.as_ref().is_empty() {
                return Ok(None);
            }
            match store.head(&path).await {
                Ok(object) => Ok(entry_below(&prefix, &object)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> PendingRequest<Bytes> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            if_match: etag.map(quoted),
            ..GetOptions::default()
        };
        self.request(key, |store, path| async move {
            store.get_opts(&path, options).await?.bytes().await
        })
    }

    fn put(&self, key: &str, bytes: Bytes) -> PendingRequest<()> {
        self.request(key, |store, path| async move {
            store.put(&path, PutPayload::from(bytes)).await.map(drop)
        })
    }

    fn create(&self, key: &str, bytes: Bytes) -> PendingRequest<bool> {
        self.request(key, |store, path| async move {
            create(store.as_ref(), &path, bytes).await
        })
    }

    fn delete(&self, key: &str) -> PendingRequest<()> {
        self.request(key, |store, path| async move {
            ignore_missing(store.delete(&path).await)
        })
    }

    fn upload_fence(&self) -> UploadFence {
        self.provider.upload_fence
    }

    fn start_upload(&self, key: &str) -> PendingRequest<String> {
        self.request(key, |store, path| async move {
            store.create_multipart(&path).await
        })
    }

    fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        part: Bytes,
    ) -> PendingRequest<String> {
        let upload = upload.to_owned();
        self.request(key, move |store, path| async move {
            let payload = PutPayload::from(part);
            let sent = store.put_part(&path, &upload, number, payload).await?;
            Ok(sent.content_id)
        })
    }

    fn complete_upload(&self, key: &str, upload: &str, parts: Vec<String>) -> PendingRequest<()> {
        let upload = upload.to_owned();
        let parts = parts.into_iter().map(|content_id| PartId { content_id });
        let parts: Vec<PartId> = parts.collect();
        self.request(key, |store, path| async move {
            let completed = store.complete_multipart(&path, &upload, parts);
            completed.await.map(drop)
        })
    }

    fn abort_upload(&self, key: &str, upload: &str) -> PendingRequest<()> {
        let upload = upload.to_owned();
        match self.provider.upload_fence {
            UploadFence::Identifier => self.request(key, |store, path| async move {
                ignore_missing(store.abort_multipart(&path, &upload).await)
            }),
            UploadFence::FirstPart => self.request(key, |store, path| async move {
                discard_parts(store.as_ref(), &path).await
            }),
        }
    }
}

/// Discards the parts of an unfinished object. The store discards them when an object is written as
/// a whole, so an empty object is created and removed. A finished object stays.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-block-list>: uncommitted blocks
/// are garbage collected if Put Blob is called on the blob.
async fn discard_parts(store: &dyn CloudStore, path: &Path) -> Result<(), Error> {
    if !create(store, path, Bytes::new()).await? {
        match store.head(path).await {
            // A run that was killed here has left the empty object.
            Ok(object) if object.size == 0 => {}
            Ok(_) | Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    ignore_missing(store.delete(path).await)
}

/// Writes an object if none has this key. Returns `false` if one has.
async fn create(store: &dyn CloudStore, path: &Path, bytes: Bytes) -> Result<bool, Error> {
    let payload = PutPayload::from(bytes);
    match store.put_opts(path, payload, PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound { .. }) => Ok(()),
        result => result,
    }
}

/// The beginning of all keys below a prefix; `None` for the root of a bucket.
fn below(prefix: &Path) -> Option<String> {
    (!prefix.as_ref().is_empty()).then(|| format!("{prefix}/"))
}

/// All pages of a listing below `prefix`.
async fn pages(
    store: Arc<dyn CloudStore>,
    prefix: Path,
    delimiter: Option<&'static str>,
    name: &'static str,
) -> Result<ObjectListing, Error> {
    let below = below(&prefix);
    let (mut objects, mut token) = (ObjectListing::default(), None);
    loop {
        let delimiter = delimiter.map(Cow::Borrowed);
        let options = PaginatedListOptions {
            delimiter,
            page_token: token.clone(),
            ..PaginatedListOptions::default()
        };
        let PaginatedListResult { result, page_token } =
            store.list_paginated(below.as_deref(), options).await?;
        objects.entries.extend(
            result
                .objects
                .iter()
                .filter_map(|object| entry_below(&prefix, object)),
        );
        objects.unusable.append(
            result
                .extensions
                .get::<UnusableKeys>()
                .cloned()
                .unwrap_or_default(),
        );
        if page_token.is_none() {
            return Ok(objects);
        }
        if page_token == token {
            let source = "the store returned the same continuation token twice".into();
            return Err(Error::Generic {
                store: name,
                source,
            });
        }
        token = page_token;
    }
}

/// The entity tag in the form of an HTTP header.
fn quoted(etag: &str) -> String {
    if etag.starts_with("W/") {
        etag.to_owned()
    } else {
        format!("\"{etag}\"")
    }
}

/// The entry of an object with its name relative to `prefix`.
fn entry_below(prefix: &Path, object: &ObjectMeta) -> Option<StoreEntry> {
    let key = object.location.as_ref();
    let name = match prefix.as_ref() {
        "" => key,
        prefix => key.strip_prefix(prefix)?.strip_prefix(DELIMITER)?,
    };
    let mtime_ns = object
        .last_modified
        .timestamp_nanos_opt()
        .unwrap_or_default();
    let etag = object
        .e_tag
        .as_deref()
        .map(|etag| etag.trim_matches('"').to_owned());
    (!name.is_empty()).then(|| StoreEntry {
        name: name.to_owned(),
        size: object.size,
        mtime_ns,
        etag,
    })
}
