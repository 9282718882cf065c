//! What stands for object stores in a build without them: types that have no value.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::Bytes;

use super::{Entry, Input, Objects};

/// What there is none of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Never {}

/// A prefix or object of a bucket: none here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote(Never);

/// An object that is being read: none here.
#[derive(Debug, Clone)]
pub struct Blocks(Never);

/// An object that will be read: none here.
#[derive(Debug)]
pub struct Ahead(Never);

/// An object that is being written: none here.
#[derive(Debug)]
pub struct Upload(Never);

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl Remote {
    pub fn parse(_: &str) -> Result<Self, String> {
        Err("this build has no object stores; build with `--features object-store`, or name a path".to_owned())
    }

    #[must_use]
    pub fn join(&self, _: &str) -> Self {
        match self.0 {}
    }

    #[must_use]
    pub fn parent(&self) -> Option<(Self, String)> {
        match self.0 {}
    }

    pub fn list(&self) -> io::Result<Objects> {
        match self.0 {}
    }

    pub fn has_objects(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn children(&self) -> io::Result<Vec<Entry>> {
        match self.0 {}
    }

    pub fn remove(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub fn head(&self) -> io::Result<Option<Entry>> {
        match self.0 {}
    }

    pub fn blocks(&self, _: u64, _: Option<&str>) -> Blocks {
        match self.0 {}
    }

    pub fn ahead(&self, _: u64, _: Option<&str>) -> io::Result<Ahead> {
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

    pub fn create(&self, _: &[u8]) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn upload(&self, _: Option<Self>) -> io::Result<Upload> {
        match self.0 {}
    }

    pub fn give_up(&self) -> io::Result<()> {
        match self.0 {}
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl Blocks {
    pub(super) fn len(&self) -> u64 {
        match self.0 {}
    }

    pub(super) fn at(&self, _: u64) -> Self {
        match self.0 {}
    }

    pub(super) fn bytes(&self, _: u64, _: usize) -> io::Result<Bytes> {
        match self.0 {}
    }

    pub(super) fn failure(&self) -> Option<io::Error> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl Ahead {
    pub fn wait(self) -> io::Result<(Option<Entry>, Input)> {
        match self.0 {}
    }
}

impl Read for Blocks {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Seek for Blocks {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "the methods are those of the other build")]
#[expect(clippy::missing_errors_doc, reason = "nothing can be called")]
impl Upload {
    pub fn finish(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl Write for Upload {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}
