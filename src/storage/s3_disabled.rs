//! Substitutes for the types of object stores in a build without them, which have no values.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::Bytes;

use super::{FileReader, ObjectListing, StoreEntry};

/// A type without values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Never {}

/// A prefix or object of a bucket; has no values in this build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Path(Never);

/// The reader of an object; has no values in this build.
#[derive(Debug, Clone)]
pub struct BlockReader(Never);

/// A requested object; has no values in this build.
#[derive(Debug)]
pub struct PrefetchedObject(Never);

/// The writer of an object; has no values in this build.
#[derive(Debug)]
pub struct MultipartUpload(Never);

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl S3Path {
    pub fn parse(_: &str) -> Result<Self, String> {
        Err(
            "this build does not support object stores; build with `--features object-store`, or \
             use a local path"
                .to_owned(),
        )
    }

    #[must_use]
    pub fn join(&self, _: &str) -> Self {
        match self.0 {}
    }

    #[must_use]
    pub fn parent(&self) -> Option<(Self, String)> {
        match self.0 {}
    }

    pub fn list(&self) -> io::Result<ObjectListing> {
        match self.0 {}
    }

    pub fn has_objects(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn children(&self) -> io::Result<Vec<StoreEntry>> {
        match self.0 {}
    }

    pub fn remove(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub fn head(&self) -> io::Result<Option<StoreEntry>> {
        match self.0 {}
    }

    pub fn block_reader(&self, _: u64, _: Option<&str>) -> BlockReader {
        match self.0 {}
    }

    pub fn prefetch(&self, _: u64, _: Option<&str>) -> io::Result<PrefetchedObject> {
        match self.0 {}
    }

    pub fn read(&self, _: Option<&str>) -> io::Result<Vec<u8>> {
        match self.0 {}
    }

    pub fn read_all(_: &[(Self, Option<String>)]) -> Vec<io::Result<Vec<u8>>> {
        Vec::new()
    }

    pub fn put(&self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    pub fn put_if_absent(&self, _: &[u8]) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn upload(&self, _: Option<Self>) -> io::Result<MultipartUpload> {
        match self.0 {}
    }

    pub fn abort_recorded_upload(&self) -> io::Result<()> {
        match self.0 {}
    }
}

impl fmt::Display for S3Path {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl BlockReader {
    pub(super) fn len(&self) -> u64 {
        match self.0 {}
    }

    pub(super) fn at(&self, _: u64) -> Self {
        match self.0 {}
    }

    pub(super) fn bytes(&self, _: u64, _: usize) -> io::Result<Bytes> {
        match self.0 {}
    }

    pub(super) fn storage_error(&self) -> Option<io::Error> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl PrefetchedObject {
    pub fn wait(self) -> io::Result<(Option<StoreEntry>, FileReader)> {
        match self.0 {}
    }
}

impl Read for BlockReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Seek for BlockReader {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl MultipartUpload {
    pub fn finish(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl Write for MultipartUpload {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}
