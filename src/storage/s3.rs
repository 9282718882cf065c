//! Prefixes and objects of S3-compatible stores, and the requests that list, read and write them.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore as _};
use object_store::multipart::MultipartStore as _;
use object_store::path::{DELIMITER, Path};
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
};

use super::block_reader::BlockReader;
use super::blocking::{PendingRequest, block_on, spawn};
use super::client::client;
use super::error::to_io_error;
use super::multipart_upload::MultipartUpload;
use super::outage::retry_while_unavailable;
use super::prefetch::PrefetchedObject;
use super::{ObjectListing, SCHEME, StoreEntry, UnusableKeys};

/// A prefix or object of a bucket.
#[derive(Clone)]
pub struct S3Path {
    store: Arc<AmazonS3>,
    bucket: Arc<str>,
    /// Key parts joined with `/`, without a leading or trailing one.
    key: String,
}

const S3: &str = "s3";
/// Maximum number of attempts to create an object that the store reports as existing but cannot
/// return.
const CREATE_ATTEMPTS: usize = 10;

impl S3Path {
    /// Parses `s3://bucket/key`. The endpoint, the region and the credentials are taken from the
    /// environment. No request is made.
    ///
    /// # Errors
    /// A message, if the URL or an environment variable is invalid.
    pub fn parse(url: &str) -> Result<Self, String> {
        let expected = "expected `s3://bucket/prefix` or a local path";
        let (scheme, rest) = url.split_once(SCHEME).unwrap_or_default();
        if scheme != S3 {
            return Err(format!("unsupported scheme `{scheme}://`; {expected}"));
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty()
            || bucket.contains(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        {
            return Err(format!("`{bucket}` is not a bucket name; {expected}"));
        }
        let key = Path::parse(key)
            .map_err(|error| format!("`{key}` is not an object key: {error}; {expected}"))?;
        let store = client(bucket).map_err(|error| format!("s3://{bucket}: {error}"))?;
        Ok(Self {
            store,
            bucket: Arc::from(bucket),
            key: key.to_string(),
        })
    }

    /// The path `name` below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let key = if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.key)
        };
        Self {
            key,
            ..self.clone()
        }
    }

    /// The parent prefix and the name below it; `None` for the root of a bucket.
    #[must_use]
    pub fn parent(&self) -> Option<(Self, String)> {
        let (prefix, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        (!name.is_empty()).then(|| {
            (
                Self {
                    key: prefix.to_owned(),
                    ..self.clone()
                },
                name.to_owned(),
            )
        })
    }

    /// The objects below this prefix, without folder markers.
    ///
    /// # Errors
    /// If the request fails.
    pub fn list(&self) -> io::Result<ObjectListing> {
        let (prefix, store) = (self.path()?, self.store());
        block_on(pages(store, prefix, None))?.map_err(|error| to_io_error(&error))
    }

    /// Whether an object has a key below this prefix.
    ///
    /// # Errors
    /// If the request fails.
    pub fn has_objects(&self) -> io::Result<bool> {
        let (prefix, store) = (self.path()?, self.store());
        block_on(async move {
            let below = below(&prefix);
            let page = store
                .list_paginated(below.as_deref(), PaginatedListOptions::default())
                .await?;
            Ok(!page.result.objects.is_empty() || page.page_token.is_some())
        })?
        .map_err(|error: Error| to_io_error(&error))
    }

    /// The objects directly below this prefix, sorted by name.
    ///
    /// # Errors
    /// If the request fails.
    pub fn children(&self) -> io::Result<Vec<StoreEntry>> {
        let prefix = self.path()?;
        let listed = retry_while_unavailable(self, || {
            block_on(pages(self.store(), prefix.clone(), Some(DELIMITER)))?
                .map_err(|error| to_io_error(&error))
        });
        let mut entries = listed?.entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The entry of this object; `None` if it does not exist.
    ///
    /// # Errors
    /// If the request fails.
    pub fn head(&self) -> io::Result<Option<StoreEntry>> {
        self.request_head()?.wait()?
    }

    /// Requests the entry of this object without waiting for it.
    pub(super) fn request_head(
        &self,
    ) -> io::Result<PendingRequest<io::Result<Option<StoreEntry>>>> {
        let prefix = self.parent().map(|(folder, _)| folder.path()).transpose()?;
        let (path, store) = (self.path()?, Arc::clone(&self.store));
        spawn(async move {
            let Some(prefix) = prefix else {
                return Ok(None);
            };
            match store.head(&path).await {
                Ok(object) => Ok(StoreEntry::below(&prefix, &object)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(to_io_error(&error)),
            }
        })
    }

    /// Requests the entry and the ends of an object of `size` bytes with the entity tag `etag`,
    /// without waiting for them.
    ///
    /// # Errors
    /// If no request can be started.
    pub fn prefetch(&self, size: u64, etag: Option<&str>) -> io::Result<PrefetchedObject> {
        PrefetchedObject::start(self, size, etag)
    }

    /// The block reader of an object of `size` bytes. If `etag` is given, a read fails if the
    /// content has another entity tag.
    pub fn block_reader(&self, size: u64, etag: Option<&str>) -> BlockReader {
        BlockReader::new(self.clone(), size, etag.map(str::to_owned))
    }

    /// The content of an object.
    ///
    /// # Errors
    /// `NotFound` if the object does not exist, `StaleNetworkFileHandle` if its entity tag is not
    /// `etag`, and the errors of other failed requests.
    pub fn read(&self, etag: Option<&str>) -> io::Result<Vec<u8>> {
        self.request(None, etag)?.wait()?.map(Vec::from)
    }

    /// The contents of these objects, each with its expected entity tag, requested concurrently.
    pub fn read_all(objects: &[(Self, Option<String>)]) -> Vec<io::Result<Vec<u8>>> {
        let requests: Vec<_> = objects
            .iter()
            .map(|(object, etag)| object.request(None, etag.as_deref()))
            .collect();
        requests
            .into_iter()
            .map(|pending| pending?.wait()?.map(Vec::from))
            .collect()
    }

    /// Requests a range of an object, or all of it if `range` is `None`.
    pub(super) fn request(
        &self,
        range: Option<std::ops::Range<u64>>,
        etag: Option<&str>,
    ) -> io::Result<PendingRequest<io::Result<Bytes>>> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            if_match: etag.map(quoted),
            ..GetOptions::default()
        };
        let (path, store) = (self.path()?, Arc::clone(&self.store));
        spawn(async move {
            let response = async { store.get_opts(&path, options).await?.bytes().await };
            response.await.map_err(|error| to_io_error(&error))
        })
    }

    /// Writes or replaces an object.
    ///
    /// # Errors
    /// If the request fails.
    pub fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let (path, payload) = (self.path()?, PutPayload::from(bytes.to_vec()));
        retry_while_unavailable(self, || {
            let (store, path, payload) = (self.store(), path.clone(), payload.clone());
            block_on(async move { store.put(&path, payload).await })?
                .map(drop)
                .map_err(|error| to_io_error(&error))
        })
    }

    /// Writes an object that does not exist yet. Returns `false` if one with other content exists.
    /// An object with the same content counts as written by this call, since the response to an
    /// earlier attempt may have been lost. Callers therefore need content that differs from that of
    /// other writers, unless they may accept theirs.
    ///
    /// # Errors
    /// If the request fails.
    pub fn put_if_absent(&self, bytes: &[u8]) -> io::Result<bool> {
        let (path, payload) = (self.path()?, PutPayload::from(bytes.to_vec()));
        for _ in 0..CREATE_ATTEMPTS {
            let created = retry_while_unavailable(self, || {
                let (store, path, payload) = (self.store(), path.clone(), payload.clone());
                match block_on(async move {
                    store.put_opts(&path, payload, PutMode::Create.into()).await
                })? {
                    Ok(_) => Ok(true),
                    Err(Error::AlreadyExists { .. }) => Ok(false),
                    Err(error) => Err(to_io_error(&error)),
                }
            })?;
            if created {
                return Ok(true);
            }
            match self.read(None) {
                Ok(there) => return Ok(there == bytes),
                // Another writer started to create the object but did not complete it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "the store refuses to create this object because it exists, but reports it as missing \
             when it is read",
        ))
    }

    /// Removes an object. A missing object is not an error.
    ///
    /// # Errors
    /// If the request fails.
    pub fn remove(&self) -> io::Result<()> {
        let (path, store) = (self.path()?, self.store());
        match block_on(async move { store.delete(&path).await })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io_error(&error)),
        }
    }

    /// Starts to write an object, which becomes visible when it is finished. Until then
    /// `upload_record` holds the upload identifier, with which the upload can be aborted.
    ///
    /// # Errors
    /// If the request fails.
    pub fn upload(&self, upload_record: Option<Self>) -> io::Result<MultipartUpload> {
        MultipartUpload::begin(self.clone(), upload_record)
    }

    /// Aborts the upload of this record, regardless of the process that started it, and
    /// removes the record. The upload can then no longer be finished.
    ///
    /// # Errors
    /// If a request fails, or if the record is not valid JSON.
    pub fn abort_recorded_upload(&self) -> io::Result<()> {
        let text = match self.read(None) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let (key, id): (String, String) =
            serde_json::from_slice(&text).map_err(io::Error::other)?;
        Self {
            key,
            ..self.clone()
        }
        .abort(id)?;
        self.remove()
    }

    /// Aborts an upload and removes its parts. A finished or aborted upload is not an error.
    pub(super) fn abort(&self, id: String) -> io::Result<()> {
        let (path, store) = (self.path()?, self.store());
        match block_on(async move { store.abort_multipart(&path, &id).await })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io_error(&error)),
        }
    }

    /// Encodes the record of the upload `id` of this object.
    pub(super) fn encode_upload_record(&self, id: &str) -> io::Result<Vec<u8>> {
        serde_json::to_vec(&(&self.key, id)).map_err(io::Error::other)
    }

    pub(super) fn store(&self) -> Arc<AmazonS3> {
        Arc::clone(&self.store)
    }

    pub(super) fn path(&self) -> io::Result<Path> {
        Path::parse(&self.key)
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))
    }
}

/// The beginning of all keys below a prefix; `None` for the root of a bucket.
fn below(prefix: &Path) -> Option<String> {
    (!prefix.as_ref().is_empty()).then(|| format!("{prefix}/"))
}

/// All pages of a listing below `prefix`.
async fn pages(
    store: Arc<AmazonS3>,
    prefix: Path,
    delimiter: Option<&'static str>,
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
                .filter_map(|object| StoreEntry::below(&prefix, object)),
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
                store: "S3",
                source,
            });
        }
        token = page_token;
    }
}

impl StoreEntry {
    fn below(prefix: &Path, object: &ObjectMeta) -> Option<Self> {
        let key = object.location.as_ref();
        let name = match prefix.as_ref() {
            "" => key,
            prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let mtime_ns = object
            .last_modified
            .timestamp_nanos_opt()
            .unwrap_or_default();
        let etag = object
            .e_tag
            .as_deref()
            .map(|etag| etag.trim_matches('"').to_owned());
        (!name.is_empty()).then(|| Self {
            name: name.to_owned(),
            size: object.size,
            mtime_ns,
            etag,
        })
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

impl PartialEq for S3Path {
    fn eq(&self, other: &Self) -> bool {
        (&self.bucket, &self.key) == (&other.bucket, &other.key)
    }
}

impl Eq for S3Path {}

impl fmt::Display for S3Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{S3}{SCHEME}{}", self.bucket),
            key => write!(f, "{S3}{SCHEME}{}/{key}", self.bucket),
        }
    }
}

/// Shows only the URL, since the client holds credentials.
impl fmt::Debug for S3Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn url_has_a_bucket_and_an_optional_key() {
        let name = |url: &str| S3Path::parse(url).map(|remote| remote.to_string());
        assert_eq!(
            name("s3://bucket/a/b c*/"),
            Ok("s3://bucket/a/b c*".to_owned())
        );
        assert_eq!(name("s3://bucket"), Ok("s3://bucket".to_owned()));
        let root = S3Path::parse("s3://bucket/").unwrap();
        assert_eq!(root.join("a").join("b/c").to_string(), "s3://bucket/a/b/c");
        let (folder, file) = root.join("a/b").parent().unwrap();
        assert_eq!((folder, file.as_str()), (root.join("a"), "b"));
        assert_eq!(root.parent(), None);
    }

    #[test]
    fn invalid_url_is_refused_with_its_invalid_part() {
        let fault = |url: &str| S3Path::parse(url).unwrap_err();
        let expected = "expected `s3://bucket/prefix` or a local path";
        assert_eq!(
            fault("gs://bucket/x"),
            format!("unsupported scheme `gs://`; {expected}")
        );
        assert_eq!(
            fault("s3:///x"),
            format!("`` is not a bucket name; {expected}")
        );
        assert_eq!(
            fault("s3://me:pass@host/x"),
            format!("`me:pass@host` is not a bucket name; {expected}")
        );
        let key = fault("s3://bucket/a//b");
        assert!(key.starts_with("`a//b` is not an object key: "), "{key}");
    }
}
