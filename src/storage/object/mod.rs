//! Prefixes and objects of buckets, and the requests that list, read and write them.

mod list;
mod write;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::SCHEME;
use super::block_reader::BlockReader;
use super::location_error::LocationError;
use super::object_client::{ObjectClient, PendingRequest, wait};
use super::prefetch::PrefetchedObject;

/// A kind of store, by the scheme of its URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum StoreScheme {
    /// AWS S3 and compatible stores.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage, where a bucket is called container.
    Az,
}

impl StoreScheme {
    pub(super) const ALL: [Self; 3] = [Self::S3, Self::Gs, Self::Az];

    /// The scheme as URLs have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }

    /// The error of a URL with this scheme in a build without the client of its stores.
    pub(super) const fn disabled(self) -> LocationError {
        let feature = match self {
            Self::S3 => "s3",
            Self::Gs => "gcs",
            Self::Az => "azure",
        };
        LocationError::Disabled {
            scheme: self.name(),
            feature,
        }
    }
}

/// A prefix or object of a bucket.
#[derive(Clone)]
pub struct ObjectPath {
    client: Arc<dyn ObjectClient>,
    scheme: StoreScheme,
    bucket: Arc<str>,
    /// Key parts joined with `/`, without a leading or trailing one.
    key: String,
}

impl ObjectPath {
    /// Parses `s3://bucket/key`, `gs://bucket/key` or `az://container/key`. The endpoint and the
    /// credentials are taken from the environment. No request is made.
    ///
    /// # Errors
    /// If the URL or an environment variable is invalid, or if this build does not support the
    /// store.
    pub fn parse(url: &str) -> Result<Self, LocationError> {
        let (name, rest) = url.split_once(SCHEME).unwrap_or_default();
        let scheme = StoreScheme::ALL
            .into_iter()
            .find(|scheme| scheme.name() == name)
            .ok_or_else(|| LocationError::Scheme(name.to_owned()))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(LocationError::Credentials);
        }
        if bucket.is_empty()
            || bucket.contains(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        {
            return Err(LocationError::Bucket(bucket.to_owned()));
        }
        let client = super::client_of(scheme, bucket)?;
        let key = client.parse_key(key).map_err(|reason| LocationError::Key {
            key: key.to_owned(),
            reason,
        })?;
        Ok(Self {
            client,
            scheme,
            bucket: Arc::from(bucket),
            key,
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
        self.with_key(key)
    }

    /// The parent prefix and the name below it; `None` for the root of a bucket.
    #[must_use]
    pub fn parent(&self) -> Option<(Self, String)> {
        let (prefix, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        (!name.is_empty()).then(|| (self.with_key(prefix.to_owned()), name.to_owned()))
    }

    fn with_key(&self, key: String) -> Self {
        Self {
            key,
            ..self.clone()
        }
    }

    /// Requests the entry and the ends of an object of `size` bytes with the entity tag `etag`,
    /// without waiting for them.
    pub(crate) fn prefetch(&self, size: u64, etag: Option<&str>) -> PrefetchedObject {
        PrefetchedObject::start(self, size, etag)
    }

    /// The block reader of an object of `size` bytes. If `etag` is given, a read fails if the
    /// content has another entity tag.
    pub(crate) fn block_reader(&self, size: u64, etag: Option<&str>) -> BlockReader {
        BlockReader::new(self.clone(), size, etag.map(str::to_owned))
    }

    /// The content of an object.
    ///
    /// # Errors
    /// `NotFound` if the object does not exist, `StaleNetworkFileHandle` if its entity tag is not
    /// `etag`, and the errors of other failed requests.
    pub fn read(&self, etag: Option<&str>) -> io::Result<Vec<u8>> {
        wait(self.request(None, etag)).map(Vec::from)
    }

    /// The contents of these objects, each with its expected entity tag, requested concurrently.
    pub(crate) fn read_all(objects: &[(Self, Option<String>)]) -> Vec<io::Result<Vec<u8>>> {
        let requests: Vec<_> = objects
            .iter()
            .map(|(object, etag)| object.request(None, etag.as_deref()))
            .collect();
        requests
            .into_iter()
            .map(|pending| wait(pending).map(Vec::from))
            .collect()
    }

    /// Requests a range of an object, or all of it if `range` is `None`.
    pub(super) fn request(
        &self,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> PendingRequest<Bytes> {
        self.client.get(&self.key, range, etag)
    }
}

impl PartialEq for ObjectPath {
    fn eq(&self, other: &Self) -> bool {
        (self.scheme, &self.bucket, &self.key) == (other.scheme, &other.bucket, &other.key)
    }
}

impl Eq for ObjectPath {}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SCHEME}{}", self.scheme.name(), self.bucket)?;
        match self.key.as_str() {
            "" => Ok(()),
            key => write!(f, "/{key}"),
        }
    }
}

/// Shows only the URL, since the client holds credentials.
impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
