//! The interface of the clients of buckets: requests whose results the calling threads wait for.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::mpsc::Receiver;

use bytes::Bytes;

use crate::storage::listing::{ObjectListing, StoreEntry};

/// A request whose result may have arrived. The request is executed even if this is dropped.
pub(super) type PendingRequest<T> = Receiver<io::Result<T>>;

/// Waits for the result of a request. It may be called on any thread.
///
/// # Errors
/// Those of the request.
pub(super) fn wait<T>(request: PendingRequest<T>) -> io::Result<T> {
    request
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("a request to the store panicked")))
}

/// What a store offers to exclude the upload of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFence {
    /// An upload has an identifier. Nothing can be added to an aborted upload.
    Identifier,
    /// Parts belong to the key alone, and an abort discards those that have arrived. An upload
    /// without its first part cannot be completed.
    FirstPart,
}

/// The client of one bucket. Keys have no leading and no trailing slash.
pub(super) trait ObjectClient: Debug + Send + Sync {
    /// The key in the form in which the client requests it.
    ///
    /// # Errors
    /// A message, if the text is not a key.
    fn parse_key(&self, key: &str) -> Result<String, String>;

    /// The objects below a prefix: all of them, or those without a further slash in their names.
    fn list(&self, prefix: &str, is_recursive: bool) -> PendingRequest<ObjectListing>;

    /// Whether an object has a key below the prefix.
    fn has_objects(&self, prefix: &str) -> PendingRequest<bool>;

    /// The entry of an object with its name relative to its parent prefix; `None` if the object
    /// does not exist.
    fn head(&self, key: &str) -> PendingRequest<Option<StoreEntry>>;

    /// A range of an object, or all of it, if its entity tag is `etag`.
    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> PendingRequest<Bytes>;

    /// Writes or replaces an object.
    fn put(&self, key: &str, bytes: Bytes) -> PendingRequest<()>;

    /// Writes an object if none has this key. The result is `false` if one has.
    fn create(&self, key: &str, bytes: Bytes) -> PendingRequest<bool>;

    /// Removes an object. A missing object is not an error.
    fn delete(&self, key: &str) -> PendingRequest<()>;

    /// What the store offers to exclude the upload of an earlier run.
    fn upload_fence(&self) -> UploadFence;

    /// Starts an upload and returns its identifier.
    fn start_upload(&self, key: &str) -> PendingRequest<String>;

    /// Sends the part `number` and returns its identifier.
    fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        part: Bytes,
    ) -> PendingRequest<String>;

    /// Completes an upload, which makes the object visible.
    fn complete_upload(&self, key: &str, upload: &str, parts: Vec<String>) -> PendingRequest<()>;

    /// Aborts an upload and removes its parts. A completed or aborted upload is not an error.
    fn abort_upload(&self, key: &str, upload: &str) -> PendingRequest<()>;
}
