//! Whole files, one after the other; those of a bucket some at a time, since each request takes its
//! time.

use std::collections::VecDeque;

use crate::source::listed_file::{CHANGED_MEANWHILE, ListedFile, ReadFailure, RecordError};
use crate::storage::{Location, MAX_CONCURRENT_REQUESTS, S3Path};

/// Bytes of objects that are asked for together; a single larger one is asked for alone.
const TOGETHER_BYTES: u64 = 32 << 20;

/// The bytes of files, in the order in which they were given.
pub(super) struct ObjectPrefetcher<'a> {
    root: &'a Location,
    limit: u64,
    /// Objects that have not been asked for.
    waiting: VecDeque<&'a ListedFile>,
    /// What came of those that have.
    fetched: VecDeque<Result<Vec<u8>, ReadFailure>>,
}

impl<'a> ObjectPrefetcher<'a> {
    /// Will read `files` below `root`, none of more than `limit` bytes.
    pub(super) fn new(
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

    /// The bytes of the next file, which is `file`.
    ///
    /// # Errors
    /// Those of [`ListedFile::read`].
    pub(super) fn next(&mut self, file: &ListedFile) -> Result<Vec<u8>, ReadFailure> {
        let Location::Remote(root) = self.root else {
            return file.read(self.root, self.limit);
        };
        if self.fetched.is_empty() {
            self.fetch(root);
        }
        // Files are asked for in the order in which they are given.
        self.fetched
            .pop_front()
            .unwrap_or_else(|| file.read(self.root, self.limit))
    }

    fn fetch(&mut self, root: &S3Path) {
        let (mut files, mut bytes) = (Vec::new(), 0);
        while let Some(&file) = self.waiting.front() {
            let size = if file.size > self.limit { 0 } else { file.size };
            if files.len() == MAX_CONCURRENT_REQUESTS
                || (bytes > 0 && bytes + size > TOGETHER_BYTES)
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
        let mut answers = S3Path::read_all(&objects).into_iter();
        for file in files {
            let image = match file.size > self.limit {
                true => Err(RecordError::too_large(&file.name, file.size, self.limit).into()),
                false => match answers.next() {
                    Some(Ok(bytes)) if bytes.len() as u64 == file.size => Ok(bytes),
                    Some(Err(error)) => Err(file.failure(&file.location(self.root), error)),
                    _ => Err(file.unreadable(CHANGED_MEANWHILE).into()),
                },
            };
            self.fetched.push_back(image);
        }
    }
}
