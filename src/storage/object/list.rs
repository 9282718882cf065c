//! Lists the objects below a prefix.

use std::io;

use crate::storage::listing::{ObjectListing, StoreEntry};
use crate::storage::object::ObjectPath;
use crate::storage::object_client::{PendingRequest, wait};
use crate::storage::outage::retry_while_unavailable;

impl ObjectPath {
    /// The objects below this prefix, without folder markers.
    ///
    /// # Errors
    /// If the request fails.
    pub fn list(&self) -> io::Result<ObjectListing> {
        wait(self.client.list(&self.key, true))
    }

    /// Whether an object has a key below this prefix.
    ///
    /// # Errors
    /// If the request fails.
    pub(crate) fn has_objects(&self) -> io::Result<bool> {
        wait(self.client.has_objects(&self.key))
    }

    /// The objects directly below this prefix, sorted by name.
    ///
    /// # Errors
    /// If the request fails.
    pub fn children(&self) -> io::Result<Vec<StoreEntry>> {
        let listed = retry_while_unavailable(self, || wait(self.client.list(&self.key, false)));
        let mut entries = listed?.entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The entry of this object; `None` if it does not exist.
    ///
    /// # Errors
    /// If the request fails.
    pub fn head(&self) -> io::Result<Option<StoreEntry>> {
        wait(self.request_head())
    }

    /// Requests the entry of this object without waiting for it.
    pub(in crate::storage) fn request_head(&self) -> PendingRequest<Option<StoreEntry>> {
        self.client.head(&self.key)
    }
}
