//! Reads the images of tar shards, and assigns each member a row.

use std::cell::RefCell;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

use tar::Archive;

use crate::batch::reject::RejectCode;
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::unavailable::{UnavailableInput, UnreadInputs};
use crate::source::discovery::file_checkpoints::{FileCheckpoints, OnChange, SettledFile};
use crate::source::discovery::input_file::{InputFile, unusable};
use crate::source::discovery::listed_file::{RecordError, encode_name};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::source::images::batcher::config::ImageBatchConfig;
use crate::source::images::batcher::{ImageBatchBuilder, ImageRecord};
use crate::source::images::tar::budget::{HEADER_BYTES, MeteredReader, ReadBudget};
use crate::source::images::tar::entry::{
    ShardEntry, ShardPass, TarEntry, TarStep, at_end, broken, classify, key,
};
use crate::source::images::tar::open;
use crate::source::reader::BatchSender;
use crate::source::table::file_source::continues;
use crate::source::table::file_source::read_end::{catch_panic, panicked};
use crate::storage::Location;

/// Batches that are read ahead of the consumer.
pub(super) const AHEAD: usize = 2;

/// The column of WebDataset's keys: the common part of the names of the files of one sample.
pub(super) const KEY: &str = "key";

/// Reads shards.
pub(super) struct TarReader {
    pub(super) batch_config: ImageBatchConfig,
    pub(super) root: Location,
    pub(super) resume: ResumeState,
    pub(super) checkpoints: FileCheckpoints,
    pub(super) on_change: OnChange,
    pub(super) skipped_files: LastSkippedFiles,
}

impl TarReader {
    /// Reads the shards in order, and adds those that cannot be read now to `unread`.
    pub(super) fn read_all(
        &self,
        files: &[InputFile],
        mut unread: UnreadInputs,
        out: &BatchSender,
    ) -> Result<(), StageError> {
        for file in files {
            if !continues(self.read(file, out), &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads a shard. A shard that cannot be read becomes one reject, and so does the unreadable
    /// rest of a broken one.
    fn read(&self, file: &InputFile, out: &BatchSender) -> Result<(), ReadEnd> {
        let split = &file.split;
        let read = catch_unwind(AssertUnwindSafe(|| {
            match self
                .checkpoints
                .settle(file, &self.resume, false, self.on_change)?
            {
                Some(SettledFile { file, .. }) => {
                    if self.read_members(&file, ShardPass::First, out)? {
                        self.read_members(&file, ShardPass::Further, out)?;
                    }
                    Ok(())
                }
                None => Ok(()),
            }
        }));
        let read = read.unwrap_or_else(|panic| {
            let reason = format!("{}: {}", file.name, panicked(&*panic));
            Err(ReadEnd::Rejected(
                RecordError::new(RejectCode::Panicked, reason),
                1,
            ))
        });
        let Err(ReadEnd::Rejected(refusal, _)) = read else {
            return read;
        };
        let mut builder =
            ImageBatchBuilder::new(&self.batch_config, &self.resume, out, &unusable(split), 0);
        let source = file.name.as_str().into();
        if builder.is_done(1) {
            return Ok(());
        }
        let is_open = builder.push(ImageRecord {
            source,
            row: 0,
            text: None,
            image: Err(refusal),
        })? && builder.close()?;
        if is_open {
            Ok(())
        } else {
            Err(ReadEnd::Cancelled)
        }
    }

    /// Reads the images of one pass over a shard. Returns whether the shard also holds images of
    /// the second pass.
    fn read_members(
        &self,
        file: &InputFile,
        pass: ShardPass,
        out: &BatchSender,
    ) -> Result<bool, ReadEnd> {
        let (split, file) = (pass.split(&file.split), file.listed());
        let budget = ReadBudget::default();
        let (input, handle) = open(file, &self.root)?;
        let input = Rc::new(RefCell::new(input));
        let location = file.location(&self.root);
        let stop = |error| ReadEnd::from(file.failure(&location, error));
        let mut archive = Archive::new(MeteredReader {
            file: Rc::clone(&input),
            budget: budget.clone(),
        });
        let mut entries = archive.entries_with_seek().map_err(stop)?;
        let length = self.batch_config.max_records() as u64;
        let mut builder = ImageBatchBuilder::new(&self.batch_config, &self.resume, out, &split, 0);
        let mut done = builder.is_done(length);
        let (mut row, mut has_further) = (0, false);
        loop {
            budget.allow(HEADER_BYTES);
            let next = catch_panic(|| {
                let ends_before = |end| input.borrow().ends_before(end, file.size);
                let entry = entries.next();
                entry.map(|entry| classify(entry, ends_before)).transpose()
            });
            let step = match next {
                Ok(None) => at_end(&file.name, row, &budget, &mut input.borrow_mut()),
                Ok(Some(TarEntry::Folder)) => TarStep::Other,
                Ok(Some(TarEntry::Skipped(name, reason))) => {
                    if pass == ShardPass::First {
                        self.skipped_files.add(Path::new(&name), reason);
                    }
                    TarStep::Other
                }
                Ok(Some(TarEntry::Image(_, of))) if of != pass => {
                    has_further |= of == ShardPass::Further;
                    TarStep::Other
                }
                Ok(Some(TarEntry::Image(..))) if done => TarStep::Done,
                Ok(Some(TarEntry::Image(mut entry, _))) => {
                    TarStep::Image(self.member(&file.name, row, &mut entry, &budget))
                }
                Err((_, reason)) => {
                    TarStep::Broken(broken(&file.name, row, RejectCode::Malformed, &reason))
                }
            };
            if let Some((class, error)) = handle.failure() {
                // The images before the failure could be read.
                let unavailable = UnavailableInput {
                    path: location.to_path(),
                    class,
                    error,
                };
                return if builder.close()? {
                    Err(unavailable.into())
                } else {
                    Err(ReadEnd::Cancelled)
                };
            }
            // The first pass has rejected the rest behind the broken place.
            let step = if pass == ShardPass::Further && matches!(step, TarStep::Broken(_)) {
                TarStep::End
            } else {
                step
            };
            let ends = matches!(step, TarStep::Broken(_) | TarStep::End);
            row += u64::from(matches!(step, TarStep::Image(_) | TarStep::Done));
            let is_open = match step {
                TarStep::Image(member) | TarStep::Broken(member) => builder.push(member)?,
                TarStep::Done => builder.skip(),
                TarStep::Other => continue,
                TarStep::End => true,
            };
            let closes = ends || row % length == 0;
            if !is_open || (closes && !builder.close()?) {
                return Err(ReadEnd::Cancelled);
            }
            if ends {
                return Ok(has_further);
            }
            if closes {
                done = builder.is_done(length);
            }
        }
    }

    fn member(
        &self,
        shard: &str,
        row: u64,
        entry: &mut ShardEntry<'_>,
        budget: &ReadBudget,
    ) -> ImageRecord<'static> {
        let name = encode_name(&entry.path_bytes());
        let source = format!("{shard}/{name}");
        let (size, limit) = (entry.size(), self.batch_config.record_bytes);
        let image = if size > limit {
            Err(RecordError::too_large(&source, size, limit))
        } else {
            Ok(Vec::new())
        };
        let image = image.and_then(|mut image| {
            budget.allow(size);
            let read = entry
                .take(size)
                .read_to_end(&mut image)
                .map_err(|error| error.to_string());
            match read {
                Ok(read) if read as u64 == size => Ok(image),
                Ok(_) => Err("the shard is truncated or was changed during the read".to_owned()),
                Err(error) => Err(error),
            }
            .map_err(|reason| {
                RecordError::new(RejectCode::Unreadable, format!("{source}: {reason}"))
            })
        });
        ImageRecord {
            source: source.into(),
            row,
            text: Some(key(&name).to_owned().into()),
            image: image.map(Into::into),
        }
    }
}
