//! The members of an archive, or the single array of a file.

use std::cell::RefCell;
use std::io;
use std::io::{BufReader, Read, Seek, SeekFrom};

use flate2::bufread::DeflateDecoder;
use rawzip::{
    CompressionMethod, RECOMMENDED_BUFFER_SIZE, RangeReader, ReaderAt, ZipArchive, ZipLocator,
};

use crate::batch::reject::RejectCode;
use crate::error::config_error::ConfigError;
use crate::registry::did_you_mean;
use crate::source::table::arrays::npy_header;
use crate::source::table::arrays::npz::found_array::{ArchiveMember, FoundArray, ONLY};
use crate::source::table::arrays::reader::{ArrayReader, RejectReason};
use crate::storage::FileReader;
use crate::text_excerpt::shorten;

/// Maximum number of members of an archive.
const MAX_MEMBERS: usize = 10_000;

/// Maximum length of the name of an array in bytes; members with longer names are ignored.
const MAX_NAME: usize = 255;

pub(super) fn too_large(bytes: u64, maximum: u64) -> String {
    format!(
        "arrays of {bytes} bytes are in column-major order (fortran_order) and must be read into \
         memory completely; the maximum is {maximum} bytes (limits.memory); save them with \
         numpy.ascontiguousarray"
    )
}

/// A .npy file of one array, or a .npz archive of several.
pub(super) enum ArrayContainer {
    Npy(SharedInput),
    Npz(ZipArchive<SharedInput>),
}

impl ArrayContainer {
    pub(super) fn open(input: FileReader) -> Result<Self, String> {
        let length = input.length().map_err(|error| error.to_string())?;
        let file = SharedInput {
            input: RefCell::new(input),
            length,
        };
        let mut start = [0; npy_header::MAGIC.len()];
        let is_npy = file.read_exact_at(&mut start, 0).is_ok() && start == npy_header::MAGIC;
        if is_npy {
            return Ok(Self::Npy(file));
        }
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let located = ZipLocator::new().locate_in_reader(file, &mut buffer, length);
        located
            .map(Self::Npz)
            .map_err(|(_, error)| format!("is neither a .npy file nor a .npz archive: {error}"))
    }

    /// Finds the requested arrays, or all; the inner error names an array that does not exist.
    pub(super) fn find(
        &self,
        requested: Option<&[String]>,
    ) -> Result<Result<Vec<FoundArray>, ConfigError>, String> {
        let members = self.members()?;
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let mut chosen = Vec::new();
        for name in requested.unwrap_or_default() {
            match members.iter().find(|(found, _)| found == name) {
                Some(member) => chosen.push(member.clone()),
                None => {
                    let hint = did_you_mean(name, &names);
                    let known = shorten(&names.join(", "));
                    return Ok(Err(ConfigError::new(
                        "arrays",
                        format!("unknown array `{name}`{hint}; known: {known}"),
                    )));
                }
            }
        }
        if requested.is_none() {
            chosen = members;
        }
        let found = chosen.into_iter().map(|(name, member)| {
            let header = self
                .stream(member)
                .and_then(|mut stream| npy_header::header(&mut stream).map_err(|(_, what)| what));
            match header {
                Ok(header) => Ok(FoundArray {
                    name,
                    header,
                    member,
                }),
                Err(what) => Err(format!("the array `{}` {what}", shorten(&name))),
            }
        });
        let found: Vec<FoundArray> = found.collect::<Result<_, _>>()?;
        if found.is_empty() {
            Err("contains no arrays".to_owned())
        } else {
            Ok(Ok(found))
        }
    }

    /// The names and members of the arrays.
    fn members(&self) -> Result<Vec<(String, Option<ArchiveMember>)>, String> {
        let Self::Npz(archive) = self else {
            return Ok(vec![(ONLY.to_owned(), None)]);
        };
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let mut entries = archive.entries(&mut buffer);
        let mut members = Vec::new();
        let mut seen = 0;
        while let Some(entry) = entries.next_entry().map_err(|error| error.to_string())? {
            seen += 1;
            if seen > MAX_MEMBERS {
                return Err(format!(
                    "has more than {MAX_MEMBERS} members, the maximum for an archive of arrays"
                ));
            }
            let path = entry.file_path();
            let name = str::from_utf8(path.as_ref())
                .ok()
                .and_then(|path| path.strip_suffix(".npy"));
            if let Some(name) = name.filter(|name| name.len() <= MAX_NAME) {
                let (at, method) = (entry.wayfinder(), entry.compression_method());
                let member = ArchiveMember {
                    at,
                    method,
                    is_encrypted: entry.flags().is_encrypted(),
                };
                members.push((name.to_owned(), Some(member)));
            }
        }
        Ok(members)
    }

    /// The decompressed bytes of an array; a read at their end verifies the checksum.
    fn stream(&self, member: Option<ArchiveMember>) -> Result<Box<dyn Read + '_>, String> {
        let (archive, member) = match (self, member) {
            (Self::Npz(archive), Some(member)) => (archive, member),
            (Self::Npy(file), _) => {
                return Ok(Box::new(BufReader::new(RangeReader::new(
                    file,
                    0..file.length,
                ))));
            }
            (Self::Npz(_), None) => return Err("is in another file".to_owned()),
        };
        if member.is_encrypted {
            return Err("is encrypted; only unencrypted arrays are supported".to_owned());
        }
        let entry = archive
            .get_entry(member.at)
            .map_err(|error| error.to_string())?;
        let stored = BufReader::with_capacity(1 << 16, entry.reader());
        match member.method {
            CompressionMethod::STORE => Ok(Box::new(entry.verifying_reader(stored))),
            CompressionMethod::DEFLATE => Ok(Box::new(
                entry.verifying_reader(DeflateDecoder::new(stored)),
            )),
            other => Err(format!(
                "is compressed with {other}; only stored and deflated arrays are supported"
            )),
        }
    }

    /// Creates readers of the arrays.
    pub(super) fn readers(
        &self,
        found: &[FoundArray],
    ) -> Result<Vec<ArrayReader<'_>>, RejectReason> {
        let malformed = |what: String| (RejectCode::Malformed, what);
        let reader = |array: &FoundArray| {
            let mut stream = self.stream(array.member).map_err(malformed)?;
            let header = npy_header::header(&mut stream)?;
            ArrayReader::new(&array.name, header, stream)
        };
        found.iter().map(reader).collect()
    }
}

/// A file that is read at any position, shared by the arrays of an archive.
pub(crate) struct SharedInput {
    pub(super) input: RefCell<FileReader>,
    pub(super) length: u64,
}

impl ReaderAt for SharedInput {
    fn read_at(&self, into: &mut [u8], start: u64) -> io::Result<usize> {
        let mut input = self.input.borrow_mut();
        input.seek(SeekFrom::Start(start))?;
        input.read(into)
    }
}
