//! The objects below a prefix.

/// A file or object, as a listing describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// The key relative to the listed prefix, with `/` between its parts.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The entity tag of the content without its quotes, if the store provides one.
    pub etag: Option<String>,
}

/// The objects below a prefix.
#[derive(Debug, Default)]
pub struct ObjectListing {
    /// The objects that can be read, in any order.
    pub entries: Vec<StoreEntry>,
    /// The objects that cannot be read because of their keys.
    pub unusable: UnusableKeys,
}

/// Objects whose keys are not valid file names: an empty part, a part `.` or `..`, a control
/// character, white space or a slash at either end, or bytes that are not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnusableKeys {
    /// The number of objects.
    pub count: u64,
    /// The key of one of them.
    pub example: Option<String>,
}

impl UnusableKeys {
    /// Adds the unusable keys of another page.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.example = self.example.take().or(other.example);
    }
}
