//! Decompresses input files whose names end with `.gz` or `.zst` while they are read.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use crate::source::discovery::file_set::patterns::has_extension;

/// The compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// gzip, with any number of members.
    Gzip,
    /// Zstandard, with any number of frames.
    Zstd,
}

/// The largest window of a Zstandard frame that is decompressed: 128 MiB, which is also the limit
/// of the program `zstd` without `--long`.
const MAX_WINDOW_LOG: u32 = 27;

impl Compression {
    /// The compression that the name of a file states.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let path = Path::new(name);
        match () {
            () if has_extension(path, &["gz", "tgz"]) => Some(Self::Gzip),
            () if has_extension(path, &["zst", "tzst"]) => Some(Self::Zstd),
            () => None,
        }
    }

    /// Maximum memory of the decompression in bytes.
    pub(crate) fn memory(self) -> u64 {
        match self {
            Self::Gzip => 1 << 20,
            Self::Zstd => (1 << MAX_WINDOW_LOG) + (1 << 20),
        }
    }

    /// A reader of the decompressed content of `input`.
    ///
    /// # Errors
    /// If the decompression cannot be set up.
    pub(crate) fn decompress<'a>(
        self,
        input: impl Read + 'a,
    ) -> io::Result<DecompressingReader<'a>> {
        let failed = Rc::new(Cell::new(false));
        let input = ObservedReader {
            input,
            failed: Rc::clone(&failed),
        };
        let decoder: Box<dyn Read + 'a> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(input)?;
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        Ok(DecompressingReader { decoder, failed })
    }
}

/// The maximum memory in bytes of the decompression of one of these files.
pub(crate) fn decompression_memory<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    names
        .filter_map(Compression::of_name)
        .map(Compression::memory)
        .max()
        .unwrap_or(0)
}

/// Decompressed content. Damaged content is an error of the kind `UnexpectedEof` without a code of
/// the operating system, which is a verdict on the file; errors of the input are unchanged.
pub(crate) struct DecompressingReader<'a> {
    decoder: Box<dyn Read + 'a>,
    failed: Rc<Cell<bool>>,
}

impl Read for DecompressingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| {
            if self.failed.get() || error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let message = format!("the compressed content is damaged or truncated: {error}");
            io::Error::new(io::ErrorKind::UnexpectedEof, message)
        })
    }
}

/// Records whether a read failed.
struct ObservedReader<R> {
    input: R,
    failed: Rc<Cell<bool>>,
}

impl<R: Read> Read for ObservedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer);
        let is_failure = |error: &io::Error| error.kind() != io::ErrorKind::Interrupted;
        self.failed.set(read.as_ref().is_err_and(is_failure));
        read
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        compression.decompress(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(unpack(Compression::Gzip, &members).unwrap(), b"one\ntwo\n");
        let frame = |text: &[u8]| zstd::encode_all(text, 3).unwrap();
        let frames = [frame(b"one\n"), frame(b"two\n")].concat();
        assert_eq!(unpack(Compression::Zstd, &frames).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn truncated_content_is_a_verdict_on_the_file() {
        let text = b"some text, some text, some more text";
        for (compression, bytes) in [
            (Compression::Gzip, gzip(text)),
            (Compression::Zstd, zstd::encode_all(&text[..], 3).unwrap()),
        ] {
            for length in 1..bytes.len() {
                let error = unpack(compression, &bytes[..length]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}");
            }
        }
    }

    #[test]
    fn error_of_the_input_is_unchanged() {
        struct Denied;
        impl Read for Denied {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut reader = compression.decompress(Denied).unwrap();
            let error = reader.read(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn name_states_the_compression() {
        for (name, expected) in [
            ("a.csv.gz", Some(Compression::Gzip)),
            ("a.TGZ", Some(Compression::Gzip)),
            ("a/b.ndjson.zst", Some(Compression::Zstd)),
            ("a.csv", None),
            ("gz", None),
        ] {
            assert_eq!(Compression::of_name(name), expected, "{name}");
        }
    }
}
