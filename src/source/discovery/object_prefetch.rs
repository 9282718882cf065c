//! Reads files in order, and fetches the objects of a bucket concurrently, which hides the latency
//! of the requests.

use std::collections::VecDeque;

use crate::source::discovery::listed_file::{
    CHANGED_MEANWHILE, ListedFile, ReadFailure, RecordError,
};
use crate::storage::transfer_limits::MAX_CONCURRENT_REQUESTS;
use crate::storage::{Location, ObjectPath};

/// Maximum bytes of objects that are requested together. A larger object is requested alone.
const MAX_GROUP_BYTES: u64 = 32 << 20;

/// Reads the contents of files in the order in which they were passed to [`Self::new`].
pub(crate) struct ObjectPrefetcher<'a> {
    root: &'a Location,
    limit: u64,
    /// Objects that have not been requested.
    waiting: VecDeque<&'a ListedFile>,
    /// The results of the requested objects that [`Self::next`] has not returned yet.
    fetched: VecDeque<Result<Vec<u8>, ReadFailure>>,
}

impl<'a> ObjectPrefetcher<'a> {
    /// A reader of `files` below `root`, which rejects files with more than `limit` bytes.
    pub(crate) fn new(
        root: &'a Location,
        limit: u64,
        files: impl Iterator<Item = &'a ListedFile>,
    ) -> Self {
        let waiting = if root.local().is_some() {
            VecDeque::new()
        } else {
            files.collect()
        };
        Self {
            root,
            limit,
            waiting,
            fetched: VecDeque::new(),
        }
    }

    /// Reads the next file, which must be `file`.
    ///
    /// # Errors
    /// Those of [`ListedFile::read`].
    pub(crate) fn next(&mut self, file: &ListedFile) -> Result<Vec<u8>, ReadFailure> {
        let Location::Remote(root) = self.root else {
            return file.read(self.root, self.limit);
        };
        if self.fetched.is_empty() {
            self.fetch(root);
        }
        // Results have the order of the requests, which is that of the files.
        self.fetched
            .pop_front()
            .unwrap_or_else(|| file.read(self.root, self.limit))
    }

    fn fetch(&mut self, root: &ObjectPath) {
        let (mut files, mut bytes) = (Vec::new(), 0);
        while let Some(&file) = self.waiting.front() {
            let size = if file.size > self.limit { 0 } else { file.size };
            if files.len() == MAX_CONCURRENT_REQUESTS
                || (bytes > 0 && bytes + size > MAX_GROUP_BYTES)
            {
                break;
            }
            bytes += size;
            files.extend(self.waiting.pop_front());
        }
        let fits = |file: &&&ListedFile| file.size <= self.limit;
        let objects: Vec<_> = files
            .iter()
            .filter(fits)
            .map(|file| (root.join(&file.name), file.etag.clone()))
            .collect();
        let mut responses = ObjectPath::read_all(&objects).into_iter();
        for file in files {
            let image = match file.size > self.limit {
                true => Err(RecordError::too_large(&file.name, file.size, self.limit).into()),
                false => match responses.next() {
                    Some(Ok(content)) if content.len() as u64 == file.size => Ok(content),
                    Some(Err(error)) => Err(file.failure(&file.location(self.root), error)),
                    _ => Err(file.unreadable(CHANGED_MEANWHILE).into()),
                },
            };
            self.fetched.push_back(image);
        }
    }
}
