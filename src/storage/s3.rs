//! Prefixes and objects of S3-compatible stores: listed, read, put.

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
use super::outage::persist;
use super::prefetch::PrefetchedObject;
use super::{ObjectListing, SCHEME, StoreEntry, UnusableKeys};

/// A prefix or object of a bucket.
#[derive(Clone)]
pub struct S3Path {
    store: Arc<AmazonS3>,
    bucket: Arc<str>,
    /// Parts with `/` between them, none before or after.
    key: String,
}

const S3: &str = "s3";
/// How often an object is created that the store says exists, and that cannot be read.
const CREATE_ATTEMPTS: usize = 10;

impl S3Path {
    /// Understands `s3://bucket/key`. Endpoint, region and credentials come from the environment;
    /// nothing is asked yet.
    ///
    /// # Errors
    /// What is wrong with the URL or the environment.
    pub fn parse(url: &str) -> Result<Self, String> {
        let expected = "expected s3://bucket/prefix, or a path";
        let (scheme, rest) = url.split_once(SCHEME).unwrap_or_default();
        if scheme != S3 {
            return Err(format!(
                "`{scheme}://` is no kind of location that is known; {expected}"
            ));
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty()
            || bucket.contains(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        {
            return Err(format!("`{bucket}` is no name of a bucket; {expected}"));
        }
        let key = Path::parse(key)
            .map_err(|error| format!("`{key}` is no key of an object: {error}; {expected}"))?;
        let store = client(bucket).map_err(|error| format!("s3://{bucket}: {error}"))?;
        Ok(Self {
            store,
            bucket: Arc::from(bucket),
            key: key.to_string(),
        })
    }

    /// What is called `name` below this.
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

    /// The prefix that this lies in, and what it is called there; `None` for a whole bucket.
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

    /// The objects below this. What marks a folder is none.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn list(&self) -> io::Result<ObjectListing> {
        let (prefix, store) = (self.path()?, self.store());
        block_on(pages(store, prefix, None))?.map_err(|error| to_io_error(&error))
    }

    /// Whether there is an object below this.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
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

    /// The objects directly below this, by name.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn children(&self) -> io::Result<Vec<StoreEntry>> {
        let prefix = self.path()?;
        let listed = persist(self, || {
            block_on(pages(self.store(), prefix.clone(), Some(DELIMITER)))?
                .map_err(|error| to_io_error(&error))
        });
        let mut entries = listed?.entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// What the store knows of this object; `None` where there is none.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn head(&self) -> io::Result<Option<StoreEntry>> {
        self.request_head()?.wait()?
    }

    /// Asks what the store knows of this object.
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

    /// Asks for what reading an object of `size` bytes under `etag` begins with, and does not wait.
    ///
    /// # Errors
    /// When requests cannot be made at all.
    pub fn prefetch(&self, size: u64, etag: Option<&str>) -> io::Result<PrefetchedObject> {
        PrefetchedObject::start(self, size, etag)
    }

    /// Reads an object of `size` bytes by blocks; each is of the content that `etag` names, where
    /// it is given.
    pub fn block_reader(&self, size: u64, etag: Option<&str>) -> BlockReader {
        BlockReader::new(self.clone(), size, etag.map(str::to_owned))
    }

    /// All bytes of an object.
    ///
    /// # Errors
    /// `NotFound` where it is not there or has another etag; when the store refuses, or cannot be
    /// asked.
    pub fn read(&self, etag: Option<&str>) -> io::Result<Vec<u8>> {
        self.request(None, etag)?.wait()?.map(Vec::from)
    }

    /// All bytes of these objects, each with the etag that it must have, asked for at once.
    pub fn read_all(objects: &[(Self, Option<String>)]) -> Vec<io::Result<Vec<u8>>> {
        let asked: Vec<_> = objects
            .iter()
            .map(|(object, etag)| object.request(None, etag.as_deref()))
            .collect();
        asked
            .into_iter()
            .map(|pending| pending?.wait()?.map(Vec::from))
            .collect()
    }

    /// Asks for a range of an object, or for all of it.
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
            let answer = async { store.get_opts(&path, options).await?.bytes().await };
            answer.await.map_err(|error| to_io_error(&error))
        })
    }

    /// Puts an object in place of what is there.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let (path, payload) = (self.path()?, PutPayload::from(bytes.to_vec()));
        persist(self, || {
            let (store, path, payload) = (self.store(), path.clone(), payload.clone());
            block_on(async move { store.put(&path, payload).await })?
                .map(drop)
                .map_err(|error| to_io_error(&error))
        })
    }

    /// Puts an object where there is none; `false` where there is one of other content. One of the
    /// same content may be that of an attempt whose answer was lost: callers make their content
    /// differ from that of other writers, or may take theirs for it.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn put_if_absent(&self, bytes: &[u8]) -> io::Result<bool> {
        let (path, payload) = (self.path()?, PutPayload::from(bytes.to_vec()));
        for _ in 0..CREATE_ATTEMPTS {
            let created = persist(self, || {
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
                // Another writer was about to create it, and did not.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "the store says that this object exists, and that it does not",
        ))
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn remove(&self) -> io::Result<()> {
        let (path, store) = (self.path()?, self.store());
        match block_on(async move { store.delete(&path).await })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io_error(&error)),
        }
    }

    /// Begins to write an object, which is there once it is finished; what it takes to give it up
    /// stands in `note` until then.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
    pub fn upload(&self, note: Option<Self>) -> io::Result<MultipartUpload> {
        MultipartUpload::begin(self.clone(), note)
    }

    /// Gives up the upload that this note is about, whoever began it, so that it cannot be finished
    /// any more, and removes the note.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked.
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

    /// Removes what was sent of an object; it is no error where it is finished, or was given up.
    pub(super) fn abort(&self, id: String) -> io::Result<()> {
        let (path, store) = (self.path()?, self.store());
        match block_on(async move { store.abort_multipart(&path, &id).await })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(to_io_error(&error)),
        }
    }

    /// The text of a note about an upload of this object.
    pub(super) fn read_upload_record(&self, id: &str) -> io::Result<Vec<u8>> {
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

/// What keys below a prefix begin with; `None` for a whole bucket.
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
            let source = "a listing leads to itself".into();
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

/// An etag as HTTP wants it.
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

/// The URL alone: clients hold credentials.
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
    fn a_url_names_a_bucket_and_perhaps_a_key() {
        let name = |url: &str| S3Path::parse(url).map(|remote| remote.to_string());
        assert_eq!(
            name("s3://bucket/a/b c*/"),
            Ok("s3://bucket/a/b c*".to_owned())
        );
        assert_eq!(name("s3://bucket"), Ok("s3://bucket".to_owned()));
        let root = S3Path::parse("s3://bucket/").unwrap();
        assert_eq!(root.join("a").join("b/c").to_string(), "s3://bucket/a/b/c");
        let (folder, name) = root.join("a/b").parent().unwrap();
        assert_eq!((folder, name.as_str()), (root.join("a"), "b"));
        assert_eq!(root.parent(), None);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        let fault = |url: &str| S3Path::parse(url).unwrap_err();
        assert!(fault("gs://bucket/x").starts_with("`gs://` is no kind of location that is known"));
        assert!(
            fault("s3:///x").starts_with("`` is no name of a bucket; expected s3://bucket/prefix")
        );
        assert!(fault("s3://me:pass@host/x").contains("is no name of a bucket"));
        assert!(fault("s3://bucket/a//b").contains("is no key of an object"));
    }
}
