//! What is asked of a store before it is wanted, so that many requests take the time of one.

use std::io;

use super::blocks::Blocks;
use super::task::Pending;
use super::{Entry, Input, Remote};

/// An object that will be read: what the store knows of it, and its ends, where readers begin.
#[derive(Debug)]
pub struct Ahead {
    head: Pending<io::Result<Option<Entry>>>,
    blocks: Blocks,
}

impl Ahead {
    pub(super) fn ask(object: &Remote, size: u64, etag: Option<&str>) -> io::Result<Self> {
        let blocks = object.blocks(size, etag);
        blocks.ask_ends()?;
        Ok(Self { head: object.ask_head()?, blocks })
    }

    /// Waits for what the store knows of the object; `None` where there is none any more.
    ///
    /// # Errors
    /// When the store refuses, or cannot be asked. What is wrong with the bytes shows when they are read.
    pub fn wait(self) -> io::Result<(Option<Entry>, Input)> {
        Ok((self.head.wait()??, Input::Object(self.blocks)))
    }
}
