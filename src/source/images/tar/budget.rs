//! A reader of shards that returns no more bytes than its budget allows.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use super::shard_input::ShardInput;

/// Maximum number of bytes between two members: headers, long names, PAX records. Writers need a
/// few KiB.
pub(super) const HEADER_BYTES: u64 = 1 << 20;

/// Bytes that may be read until more are allowed. Archives can claim any length for their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadBudget(Rc<BudgetState>);

#[derive(Debug, Default)]
struct BudgetState {
    left: Cell<u64>,
    /// Whether the last read reached the end of the file.
    is_at_end: Cell<bool>,
}

impl ReadBudget {
    pub(super) fn allow(&self, bytes: u64) {
        self.0.left.set(bytes);
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_at_end.get()
    }
}

/// A shard whose reads fail once its budget is used up.
pub(crate) struct MeteredReader {
    pub(super) file: Rc<RefCell<ShardInput>>,
    pub(super) budget: ReadBudget,
}

impl Read for MeteredReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "more than {HEADER_BYTES} bytes of names and headers before a member"
            )));
        }
        let max_bytes = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.borrow_mut().read(&mut buffer[..max_bytes])?;
        self.budget.0.left.set(left - read as u64);
        self.budget.0.is_at_end.set(read == 0 && !buffer.is_empty());
        Ok(read)
    }
}

impl Seek for MeteredReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.borrow_mut().seek(to)
    }
}
