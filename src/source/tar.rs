//! The source `tar`: images in tar shards, as WebDataset writes them.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ::tar::{Archive, Entry};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{RejectCode, Split};
use crate::context::Context;
use crate::coverage::Progress;
use crate::error::{Fault, StageError, Unavailable, UnreadInputs};
use crate::source::file_checkpoints::{self, FileCheckpoints, OnChange, Settled};
use crate::source::file_set::{FileSet, has_extension};
use crate::source::files::{InputFile, unusable};
use crate::source::gather::{Member, Rules, Stretch};
use crate::source::listed_file::{ListedFile, Refusal, encode_name};
use crate::source::listing::Listing;
use crate::source::record_files::{Stop, goes_on, guarded, panicked};
use crate::source::text_encoding::unpacked_by;
use crate::source::{
    BatchSender, BatchSize, LastPassedOver, Opened, Source, SourceConfig, WrittenFiles, read_blocking,
};
use crate::store::{Input, Location};

/// Batches that are read before they are asked for.
const AHEAD: usize = 2;

/// Bytes that may stand between two members: headers, long names, PAX records. Writers need a few KiB.
const HEADER_BYTES: u64 = 1 << 20;

/// The column of WebDataset's keys: what the files of one sample have in common.
const KEY: &str = "key";

/// Options of the source `tar`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Config {
    /// A tar file, a folder (all `*.tar` in it and its subfolders), or a glob such as `shards/train-*.tar`.
    #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
    path: String,
    /// Also take what symbolic links lead to. Default: links are passed over.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    follow_links: bool,
    /// What happens to a shard that has changed since an earlier run read it: `new` reads it as a new file, with a warning that
    /// the images that it gave before stay in the output; `refuse` refuses to run. A shard of at most 32 MiB whose content is
    /// the same has not changed, whatever its time. Default: new.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = false))]
    on_change: OnChange,
}

impl SourceConfig for Config {
    fn plan(&mut self, name: &str, batch: BatchSize, context: &Context) -> Result<Box<dyn Source>, Vec<Fault>> {
        let files = FileSet::new(self.path.clone(), self.follow_links, &["tar"]).map_err(|fault| vec![fault])?;
        let rules = Rules::new(batch, context.limits, Some(KEY));
        Ok(Box::new(Tar { name: name.to_owned(), files, on_change: self.on_change, rules }))
    }
}

/// The source as planned.
struct Tar {
    name: String,
    files: FileSet,
    on_change: OnChange,
    rules: Rules,
}

impl Source for Tar {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.rules.schema)
    }

    fn reading_bytes(&self) -> u64 {
        self.files.reading_bytes()
    }

    fn find_inputs(&self) -> Result<(), StageError> {
        self.files.find()
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        self.files.list()?.identities().map(Some)
    }

    fn takes(&self, written: &WrittenFiles<'_>) -> bool {
        self.files.takes(written)
    }

    fn passed_over(&self) -> Option<LastPassedOver> {
        Some(self.files.passed_over())
    }

    fn refuses_changes(&self) -> bool {
        self.on_change == OnChange::Refuse
    }

    fn admit_inputs(&self, progress: &Progress) -> Result<(), StageError> {
        if !self.refuses_changes() {
            return Ok(());
        }
        let Listing { root, files, .. } = self.files.list()?;
        let files: Vec<_> = files.into_values().map(|file| InputFile::new(&self.name, &root, file)).collect();
        file_checkpoints::admit(&self.name, &files, progress)
    }

    fn open(self: Box<Self>, progress: &Progress) -> Result<Opened, StageError> {
        let mut listing = self.files.list()?;
        if listing.files.is_empty() {
            return Err(self.files.nothing_found(&listing));
        }
        let failures = listing.take_failures();
        let Listing { root, files, .. } = listing;
        check_some_plain(files.values(), &root)?;
        let mut unread = UnreadInputs::default();
        failures.into_iter().try_for_each(|unavailable| unread.leave(unavailable))?;
        let files: Vec<_> = files.into_values().map(|file| InputFile::new(&self.name, &root, file)).collect();
        let known = FileCheckpoints::open(&self.name, progress.state.as_ref())?;
        let Self { rules, on_change, .. } = *self;
        let reader = Reader { rules, root, progress: progress.clone(), known, on_change };
        let batches = read_blocking(AHEAD, move |out| {
            let read = reader.read_all(&files, unread, out);
            reader.known.sync()?;
            read
        });
        Ok(Opened::new(batches, None))
    }
}

/// Members that are images. The rows of a shard are numbered by them, so the list is fixed for ever.
const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm"];

/// Opens a shard if it is a plain tar file, as its first bytes show.
fn open(file: &ListedFile, root: &Location) -> Result<BufReader<Input>, Stop> {
    let mut input = BufReader::new(file.open(root)?);
    let start = input.fill_buf().map_err(|error| file.failure(&file.location(root), error))?;
    let Some(program) = unpacked_by(start) else { return Ok(input) };
    let name = &file.name;
    let reason = format!("{name}: is compressed; only plain tar files are read: unpack it first (`{program} {name}`)");
    Err(Stop::Refused(Refusal::new(RejectCode::Unsupported, reason), 1))
}

/// Refuses a set of shards that are all compressed.
///
/// # Errors
/// The reason to reject the first of them.
fn check_some_plain<'a>(files: impl Iterator<Item = &'a ListedFile>, root: &Location) -> Result<(), StageError> {
    let mut compressed = None;
    for file in files {
        match open(file, root) {
            Err(Stop::Refused(Refusal { code: RejectCode::Unsupported, reason, .. }, _)) => {
                compressed.get_or_insert(reason);
            }
            _ => return Ok(()),
        }
    }
    compressed.map_or(Ok(()), |reason| Err(StageError::Other(reason)))
}

/// The next entry of a shard.
enum Step {
    /// Not an image.
    Other,
    /// An image that is done.
    Done,
    Image(Member<'static>),
    /// Nothing behind this place can be found.
    Broken(Member<'static>),
    End,
}

/// What it takes to read shards.
struct Reader {
    rules: Rules,
    root: Location,
    progress: Progress,
    known: FileCheckpoints,
    on_change: OnChange,
}

impl Reader {
    /// Reads the shards one after the other, and leaves those in `unread` that cannot be read now.
    fn read_all(&self, files: &[InputFile], mut unread: UnreadInputs, out: &BatchSender) -> Result<(), StageError> {
        for file in files {
            if !goes_on(self.read(file, out), &mut unread)? {
                return Ok(());
            }
        }
        unread.into_result()
    }

    /// Reads a shard. A shard that cannot be used is one reject; so is what cannot be found in a broken one.
    fn read(&self, file: &InputFile, out: &BatchSender) -> Result<(), Stop> {
        let split = &file.split;
        let read = catch_unwind(AssertUnwindSafe(|| {
            match self.known.settle(file, &self.progress, false, self.on_change)? {
                Some(Settled { file, .. }) => self.read_members(file.listed(), &file.split, out),
                None => Ok(()),
            }
        }));
        let read = read.unwrap_or_else(|panic| {
            let reason = format!("{}: {}", file.name, panicked(&*panic));
            Err(Stop::Refused(Refusal::new(RejectCode::Panicked, reason), 1))
        });
        let Err(Stop::Refused(refusal, _)) = read else { return read };
        let mut stretch = Stretch::new(&self.rules, &self.progress, out, &unusable(split), 0);
        let source = file.name.as_str().into();
        if stretch.is_done(1) {
            return Ok(());
        }
        let go_on = stretch.push(Member { source, row: 0, text: None, image: Err(refusal) })? && stretch.close()?;
        if go_on { Ok(()) } else { Err(Stop::Closed) }
    }

    fn read_members(&self, file: &ListedFile, split: &Arc<Split>, out: &BatchSender) -> Result<(), Stop> {
        let budget = Budget::default();
        let input = open(file, &self.root)?;
        let location = file.location(&self.root);
        let stop = |error| Stop::from(file.failure(&location, error));
        let handle = input.get_ref().try_clone().map_err(stop)?;
        let mut archive = Archive::new(Metered { file: input, budget: budget.clone() });
        let mut entries = archive.entries_with_seek().map_err(stop)?;
        let length = self.rules.stretch() as u64;
        let mut stretch = Stretch::new(&self.rules, &self.progress, out, split, 0);
        let mut done = stretch.is_done(length);
        let (mut row, mut end) = (0, 0);
        loop {
            budget.allow(HEADER_BYTES);
            let next = guarded(|| {
                let entry = entries.next();
                if let Some(Ok(entry)) = &entry {
                    end = end_of(entry);
                }
                entry.map(|entry| image_of(entry, file.size)).transpose()
            });
            let step = match next {
                // POSIX demands blocks of zeros behind the last entry.
                Ok(None) if budget.is_at_end() => {
                    Step::Broken(broken(&file.name, row, RejectCode::Truncated, NO_END_MARK))
                }
                Ok(None) => match has_rest(&handle, end) {
                    Ok(false) => Step::End,
                    Ok(true) => Step::Broken(broken(&file.name, row, RejectCode::Malformed, MORE_BEHIND)),
                    Err(error) => Step::Broken(broken(&file.name, row, RejectCode::Unreadable, &error.to_string())),
                },
                Ok(Some(None)) => Step::Other,
                Ok(Some(Some(_))) if done => Step::Done,
                Ok(Some(Some(mut entry))) => Step::Image(self.member(&file.name, row, &mut entry, &budget)),
                Err((_, reason)) => Step::Broken(broken(&file.name, row, RejectCode::Malformed, &reason)),
            };
            if let Some((class, error)) = handle.failure() {
                // What stands before it could be read.
                let unavailable = Unavailable { path: location.to_path(), class, error };
                return if stretch.close()? { Err(unavailable.into()) } else { Err(Stop::Closed) };
            }
            let ends = matches!(step, Step::Broken(_) | Step::End);
            row += u64::from(matches!(step, Step::Image(_) | Step::Done));
            let go_on = match step {
                Step::Image(member) | Step::Broken(member) => stretch.push(member)?,
                Step::Done => stretch.skip(),
                Step::Other => continue,
                Step::End => true,
            };
            let closes = ends || row % length == 0;
            if !go_on || (closes && !stretch.close()?) {
                return Err(Stop::Closed);
            }
            if ends {
                return Ok(());
            }
            if closes {
                done = stretch.is_done(length);
            }
        }
    }

    fn member(&self, shard: &str, row: u64, entry: &mut ShardEntry<'_>, budget: &Budget) -> Member<'static> {
        let name = encode_name(&entry.path_bytes());
        let source = format!("{shard}/{name}");
        let (size, limit) = (entry.size(), self.rules.record_bytes);
        let image = if size > limit { Err(Refusal::too_large(&source, size, limit)) } else { Ok(Vec::new()) };
        let image = image.and_then(|mut image| {
            budget.allow(size);
            let read = entry.take(size).read_to_end(&mut image).map_err(|error| error.to_string());
            match read {
                Ok(read) if read as u64 == size => Ok(image),
                Ok(_) => Err("the shard was changed while it was read".to_owned()),
                Err(error) => Err(error),
            }
            .map_err(|reason| Refusal::new(RejectCode::Unreadable, format!("{source}: {reason}")))
        });
        Member { source: source.into(), row, text: Some(key(&name).to_owned().into()), image: image.map(Into::into) }
    }
}

type ShardEntry<'a> = Entry<'a, Metered>;

/// The entry if it is an image that is stored as it is; links, sparse files and folders are passed over.
/// An error says where the archive is broken: nothing behind that place can be found.
fn image_of(entry: io::Result<ShardEntry<'_>>, shard_bytes: u64) -> Result<Option<ShardEntry<'_>>, String> {
    let mut entry = entry.map_err(|error| error.to_string())?;
    let name = encode_name(&entry.path_bytes());
    // The reader seeks over what it does not read, also over the end.
    if entry.raw_file_position().saturating_add(entry.size()) > shard_bytes {
        return Err(format!("the archive ends inside {name}"));
    }
    if !entry.header().entry_type().is_file() || !has_extension(Path::new(&name), EXTENSIONS) {
        return Ok(None);
    }
    let mut extensions = entry.pax_extensions().map_err(|error| error.to_string())?.into_iter().flatten().flatten();
    let sparse = extensions.any(|extension| extension.key_bytes().starts_with(b"GNU.sparse."));
    Ok((!sparse).then_some(entry))
}

/// Why an archive counts as cut that ends where an entry may begin.
const NO_END_MARK: &str = "the archive ends without its end mark, a block of zeros: it may have been cut";

/// Why an archive counts as broken whose end mark is followed by something else than zeros.
const MORE_BEHIND: &str =
    "more than zeros follow its end mark, such as the members behind a damaged header, or another archive";

/// Where the content of an entry ends, with its padding.
fn end_of(entry: &ShardEntry<'_>) -> u64 {
    let size = entry.size().max(entry.header().entry_size().unwrap_or(0));
    entry.raw_file_position().saturating_add(size.checked_next_multiple_of(BLOCK).unwrap_or(size))
}

/// Whether anything but zeros lies in a file from `start` on.
fn has_rest(file: &Input, start: u64) -> io::Result<bool> {
    let mut rest = file.try_clone()?;
    rest.seek(SeekFrom::Start(start))?;
    let mut rest = BufReader::with_capacity(64 << 10, rest);
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
        let length = bytes.len();
        rest.consume(length);
    }
}

/// Archives consist of blocks of so many bytes.
const BLOCK: u64 = 512;

/// The row that stands for all that could not be found behind a broken place.
fn broken(shard: &str, row: u64, code: RejectCode, reason: &str) -> Member<'static> {
    let reason = format!("{shard}: broken after {row} images, the rest cannot be read: {reason}");
    let image = Err(Refusal::new(code, reason));
    Member { source: shard.to_owned().into(), row, text: None, image }
}

/// WebDataset's key of a member: its path up to the first dot of its name.
fn key(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].find('.') {
        Some(dot) if dot > 0 => &name[..start + dot],
        _ => name,
    }
}

/// Bytes that may be read until more are allowed, since archives claim any length for their names.
#[derive(Debug, Clone, Default)]
struct Budget(Rc<Meter>);

#[derive(Debug, Default)]
struct Meter {
    left: Cell<u64>,
    /// Whether the last read met the end of the file.
    is_at_end: Cell<bool>,
}

impl Budget {
    fn allow(&self, bytes: u64) {
        self.0.left.set(bytes);
    }

    fn is_at_end(&self) -> bool {
        self.0.is_at_end.get()
    }
}

/// A shard that gives no more bytes than its budget allows.
struct Metered {
    file: BufReader<Input>,
    budget: Budget,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!("more than {HEADER_BYTES} bytes of names and headers in a row")));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..most])?;
        self.budget.0.left.set(left - read as u64);
        self.budget.0.is_at_end.set(read == 0 && !buffer.is_empty());
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            // Keeps what is buffered, unlike `seek`: most steps skip the padding of a member.
            SeekFrom::Current(by) => self.file.seek_relative(by).and_then(|()| self.file.stream_position()),
            to => self.file.seek(to),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::fs;

    use ::tar::{Builder, EntryType, Header};
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use proptest::prelude::*;
    use serde_json::json;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::batch::SourceBatch;
    use crate::context::Limits;
    use crate::coverage::Coverage;
    use crate::kind::find;
    use crate::source::KINDS;
    use crate::units::Bytes;

    const PIXEL: &[u8] = b"P6 1 1 255\nrgb";

    fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, data) in members {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn open_shards(folder: &Path, records: u32, progress: &Progress) -> Result<Opened, StageError> {
        let limits = Limits { pixels: 1000, record_bytes: Bytes(1000), memory: None };
        let context = Context::new(BTreeMap::new(), limits);
        let plan = find(KINDS, "tar", "source").unwrap().plan;
        let batch = serde_json::from_value(json!({ "records": records })).unwrap();
        plan("in", json!({ "path": folder }), batch, &context).unwrap().stage.open(progress)
    }

    fn read(folder: &Path, records: u32, progress: &Progress) -> Vec<SourceBatch> {
        let opened = open_shards(folder, records, progress).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let batches: Result<Vec<_>, _> = runtime.block_on(opened.batches.collect());
        batches.unwrap()
    }

    fn read_one(shard: &[u8]) -> Vec<SourceBatch> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("s.tar"), shard).unwrap();
        read(folder.path(), 100, &Progress::default())
    }

    fn texts(batch: &SourceBatch, column: usize) -> Vec<&str> {
        batch.batch.records.column(column).as_string::<i32>().iter().flatten().collect()
    }

    #[test]
    fn archive_cut_between_members_is_one_truncated_reject() {
        let whole = shard(&[("a.ppm", PIXEL), ("b.ppm", PIXEL)]);
        let refused = |length: usize| {
            let batches = read_one(&whole[..length]);
            let rows: usize = batches.iter().map(|batch| batch.batch.records.num_rows()).sum();
            let codes = batches.iter().flat_map(|batch| &batch.rejects).map(|reject| reject.code).collect::<Vec<_>>();
            (rows, codes)
        };
        assert_eq!(refused(whole.len()), (2, vec![]));
        assert_eq!(refused(2 * 1024 + 1024), (2, vec![]), "two blocks of zeros are enough");
        for (length, rows) in [(2 * 1024, 2), (2 * 1024 - 100, 2), (1024, 1)] {
            assert_eq!(refused(length), (rows, vec![RejectCode::Truncated]), "{length} bytes");
        }
    }

    #[test]
    fn members_behind_an_end_mark_are_one_reject() {
        let whole = shard(&[("a.ppm", PIXEL), ("b.ppm", PIXEL), ("c.ppm", PIXEL)]);
        let mut zeroed = whole.clone();
        zeroed[1024..1536].fill(0);
        let twice = [whole.clone(), whole.clone()].concat();
        for (bytes, rows) in [(zeroed, 1), (twice, 3)] {
            let batches = read_one(&bytes);
            let read: usize = batches.iter().map(|batch| batch.batch.records.num_rows()).sum();
            let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
            assert_eq!((read, rejects.len()), (rows, 1));
            assert_eq!(rejects[0].code, RejectCode::Malformed);
        }
    }

    #[test]
    fn images_come_with_their_shard_member_and_key_and_other_members_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/deep.seg.PNG", "d".repeat(150));
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/1.tar"), shard(&[("x/a.jpg", PIXEL), ("x/a.json", b"{}"), (&long, PIXEL)]))
            .unwrap();
        fs::write(folder.path().join("a.tar"), shard(&[("c.ppm", b"")])).unwrap();
        let batches = read(folder.path(), 100, &Progress::default());
        assert_eq!(texts(&batches[0], 0), ["a.tar/c.ppm"]);
        assert_eq!(texts(&batches[1], 0), ["b/1.tar/x/a.jpg", &format!("b/1.tar/{long}")]);
        assert_eq!(texts(&batches[1], 3), ["x/a", long.strip_suffix(".seg.PNG").unwrap()]);
        assert_eq!(batches[1].batch.records.column(1).as_primitive::<UInt64Type>().values(), &[0, 1]);
        assert_eq!(batches[1].batch.records.column(2).as_binary::<i32>().value(1), PIXEL);
        assert_eq!(batches[1].pixels, 2);
        assert!(batches[1].batch.provenance.ranges()[0].split.name().starts_with("in/b/1.tar:"));
    }

    #[test]
    fn a_broken_archive_gives_what_comes_before_and_one_refused_row() {
        let whole = shard(&[("a.jpg", PIXEL), ("b.jpg", PIXEL), ("c.json", &[7; 2000])]);
        let mut mangled = whole.clone();
        mangled[1024 + 10] ^= 1;
        for (bytes, kept) in
            [(&whole[..1024 + 5], 1), (&whole[..1024 + 515], 1), (&mangled[..], 1), (&whole[..3000], 2)]
        {
            let batches = read_one(bytes);
            assert_eq!((batches.len(), batches[0].batch.records.num_rows()), (1, kept));
            let reject = &batches[0].rejects[0];
            assert_eq!((reject.ordinal as usize, reject.code), (kept, RejectCode::Malformed));
            assert!(reject.reason.starts_with(&format!("s.tar: broken after {kept} images")), "{}", reject.reason);
            assert_eq!(batches[0].batch.provenance.len(), kept as u64 + 1);
        }
        assert_eq!(read_one(b"this is no archive").len(), 1);
        assert_eq!(read_one(b"")[0].rejects[0].code, RejectCode::Truncated);
    }

    proptest! {
        #[test]
        fn no_damage_to_an_archive_ends_the_run(place in 0usize..8192, byte: u8, cut in 0usize..9000) {
            let long = format!("{}/b.jpg", "d".repeat(150));
            let mut bytes = shard(&[("a.jpg", PIXEL), (&long, PIXEL), ("c.json", b"{}"), ("d.jpg", PIXEL)]);
            bytes.truncate(cut.max(1));
            if let Some(damaged) = bytes.get_mut(place) {
                *damaged = byte;
            }
            // A header counts only with its checksum.
            for header in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
                let mut sound = Header::new_gnu();
                sound.as_mut_bytes().copy_from_slice(header);
                sound.set_cksum();
                header.copy_from_slice(sound.as_bytes());
            }
            let batches = read_one(&bytes);
            prop_assert!(batches.iter().map(|batch| batch.rejects.len()).sum::<usize>() <= 3);
        }
    }

    #[test]
    fn members_that_are_too_large_are_refused_and_the_rest_goes_on() {
        let batches = read_one(&shard(&[("a.jpg", &[0; 1001]), ("b.jpg", PIXEL)]));
        assert_eq!((batches[0].rejects[0].ordinal, batches[0].rejects[0].code), (0, RejectCode::TooLarge));
        assert_eq!(texts(&batches[0], 0), ["s.tar/b.jpg"]);
    }

    #[test]
    fn links_and_sparse_members_are_passed_over() {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(EntryType::Symlink);
        builder.append_link(&mut header, "link.jpg", "/etc/passwd").unwrap();
        builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(PIXEL.len() as u64);
        builder.append_data(&mut header, "sparse.jpg", PIXEL).unwrap();
        builder.append_pax_extensions([("path", "from pax.jpg".as_bytes())]).unwrap();
        builder.append_data(&mut header, "short.jpg", PIXEL).unwrap();
        let batches = read_one(&builder.into_inner().unwrap());
        assert_eq!(texts(&batches[0], 0), ["s.tar/from pax.jpg"]);
    }

    #[test]
    fn a_name_of_many_megabytes_is_not_read_into_memory() {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(4 << 20);
        header.set_cksum();
        builder.append(&header, &vec![b'x'; 4 << 20][..]).unwrap();
        let batches = read_one(&builder.into_inner().unwrap());
        assert!(
            batches[0].rejects[0].reason.contains("bytes of names and headers"),
            "{}",
            batches[0].rejects[0].reason
        );
    }

    #[test]
    fn a_later_run_passes_over_what_is_done_and_cuts_at_the_same_places() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
        fs::write(folder.path().join("s.tar"), shard(&names.map(|name| (name, PIXEL)))).unwrap();
        let first = read(folder.path(), 2, &Progress::default());
        let mut done = Coverage::default();
        done.insert(&first[0].batch.provenance);
        let second = read(folder.path(), 2, &Progress { sinks: Arc::new(vec![done]), state: None });
        let rows = |batches: &[SourceBatch]| batches.iter().map(|b| b.batch.provenance.clone()).collect::<Vec<_>>();
        assert_eq!(rows(&second), rows(&first[1..]));
        assert_eq!(second[0].batch.records, first[1].batch.records);
    }

    #[test]
    fn compressed_shards_among_others_are_rejects() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("0.tar", b"\x1f\x8b\x08".to_vec()), ("2.tar", b"BZh91AY&SY".to_vec())] {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        for name in ["1.tar", "3.tar"] {
            fs::write(folder.path().join(name), shard(&[("a.jpg", PIXEL)])).unwrap();
        }
        let batches = read(folder.path(), 100, &Progress::default());
        let rejects: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).collect();
        let codes: Vec<_> = rejects.iter().map(|reject| reject.code).collect();
        assert_eq!(codes, [RejectCode::Unsupported; 2]);
        assert!(rejects[1].reason.starts_with("2.tar: is compressed") && rejects[1].reason.contains("bunzip2 2.tar"));
        assert_eq!(batches.iter().map(|batch| batch.batch.records.num_rows()).sum::<usize>(), 2);
        let mut done = Coverage::default();
        batches.iter().for_each(|batch| done.insert(&batch.batch.provenance));
        let again = read(folder.path(), 100, &Progress { sinks: Arc::new(vec![done]), state: None });
        assert!(again.is_empty(), "they are rejected once");
    }

    #[test]
    fn a_compressed_shard_is_an_error_that_says_how_to_unpack() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("s.tar"), b"\x1f\x8b\x08\0\0\0").unwrap();
        let error = open_shards(folder.path(), 2, &Progress::default()).err().unwrap().to_string();
        assert!(error.contains("s.tar: is compressed") && error.contains("gunzip"), "{error}");
    }

    #[test]
    fn the_key_ends_at_the_first_dot_of_the_name() {
        assert_eq!(["a.b/c.seg.png", "x.jpg", "a/.jpg", "none"].map(key), ["a.b/c", "x", "a/.jpg", "none"]);
    }
}
