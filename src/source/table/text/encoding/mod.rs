//! The encodings of text: recognized by byte order marks or configured, and converted to UTF-8
//! while a file is read.

use std::io::{self, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::batch::reject::RejectCode;
use crate::source::discovery::compression::Compression;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;

/// Number of first bytes that are sufficient to recognize a file.
pub(crate) const START: usize = 10;

/// First bytes of compressed files, each with the program that unpacks them.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"\x04\x22\x4d\x18", "unlz4"),
];

/// Byte order marks with their encodings.
const BYTE_ORDER_MARKS: [(&[u8], &Encoding); 3] = [
    (b"\xef\xbb\xbf", UTF_8),
    (b"\xff\xfe", UTF_16LE),
    (b"\xfe\xff", UTF_16BE),
];

/// The byte order mark of UTF-32, which begins with that of UTF-16.
const UTF_32: &[u8] = b"\xff\xfe\0\0";

/// Returns the program that unpacks a file that begins with `start`, if the file is compressed.
pub(crate) fn unpacked_by(start: &[u8]) -> Option<&'static str> {
    // Text may also begin with `BZh`, so the magic number of the first block is checked, too.
    let is_bzip2 = start.starts_with(b"BZh") && start.get(4..START) == Some(b"1AY&SY");
    let known = COMPRESSED
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|&(_, program)| program);
    if is_bzip2 { Some("bunzip2") } else { known }
}

/// The encoding of a text file without a byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextEncoding {
    /// ISO 8859-1: each byte is the code point of a character.
    Latin1,
    /// An encoding of the WHATWG standard.
    Standard(&'static Encoding),
}

impl Default for TextEncoding {
    fn default() -> Self {
        Self::Standard(UTF_8)
    }
}

impl TextEncoding {
    /// Parses the name of an encoding.
    ///
    /// # Errors
    /// A sentence that states the supported names.
    pub(in crate::source) fn parse(name: &str) -> Result<Self, String> {
        let label = name.trim().to_ascii_lowercase();
        // The standard reads these labels as windows-1252, as browsers do.
        if ["latin1", "latin-1", "iso-8859-1", "iso8859-1", "l1"].contains(&label.as_str()) {
            return Ok(Self::Latin1);
        }
        let alias = match label.as_str() {
            "utf8" => "utf-8",
            "utf16" => "utf-16",
            "utf-16-le" => "utf-16le",
            "utf-16-be" => "utf-16be",
            other => other,
        };
        let encoding = Encoding::for_label_no_replacement(alias.as_bytes());
        encoding.map(Self::Standard).ok_or_else(|| {
            format!(
                "`{name}` is not a known encoding; expected utf-8, utf-16le, utf-16be, latin1, \
                 windows-1252, or another label of the WHATWG Encoding Standard, such as shift_jis"
            )
        })
    }

    /// Converts text without a byte order mark to UTF-8.
    pub(crate) fn convert<'a>(self, text: impl Read + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::Standard(encoding) if encoding == UTF_8 => Box::new(text),
            Self::Standard(encoding) => Box::new(Transcoder::new(
                text,
                Some(encoding.new_decoder_without_bom_handling()),
            )),
            Self::Latin1 => Box::new(Transcoder::new(text, None)),
        }
    }

    /// Whether a line feed is the byte 10, and this byte is always a line feed.
    pub(crate) fn has_ascii_lines(self) -> bool {
        match self {
            Self::Latin1 => true,
            Self::Standard(encoding) => encoding.is_ascii_compatible(),
        }
    }
}

/// Opens the text of a file: decompressed, if its name states a compression, and in UTF-8.
///
/// # Errors
/// The reason why the file is not read: its content is not text, or it cannot be read now.
pub(crate) fn open_text<'a>(
    file: &InputFile,
    input: impl Read + 'a,
    encoding: TextEncoding,
) -> Result<Box<dyn Read + 'a>, ReadEnd> {
    let mut input: Box<dyn Read + 'a> = match Compression::of_name(&file.name) {
        Some(compression) => Box::new(compression.decompress(input).map_err(file.stopped())?),
        None => Box::new(input),
    };
    let mut start = Vec::new();
    let read = input.by_ref().take(START as u64).read_to_end(&mut start);
    read.map_err(file.stopped())?;
    if let Some(what) = unsupported(&start) {
        return Err(file.unfit(RejectCode::Unsupported, &what, 1));
    }
    let mark = BYTE_ORDER_MARKS
        .iter()
        .find(|(mark, _)| start.starts_with(mark));
    let (skipped, found) = match mark {
        Some((mark, marked)) => (mark.len(), TextEncoding::Standard(marked)),
        None => (0, encoding),
    };
    start.drain(..skipped);
    Ok(found.convert(Cursor::new(start).chain(input)))
}

/// Returns why a file that begins with `start` cannot be read as text, and the remedy; `None` if its
/// first bytes do not show it.
fn unsupported(start: &[u8]) -> Option<String> {
    if start.starts_with(UTF_32) {
        return Some(
            "is text in UTF-32, which is not supported; convert it first \
             (`iconv -f UTF-32 -t UTF-8`)"
                .to_owned(),
        );
    }
    let program = unpacked_by(start)?;
    Some(match program {
        "gunzip" | "unzstd" => {
            let extension = if program == "gunzip" { "gz" } else { "zst" };
            format!(
                "is compressed; only files whose names end with `.{extension}` are unpacked; \
                 rename it, or unpack it first (`{program}`)"
            )
        }
        _ => format!("is compressed; unpack it first (`{program}`)"),
    })
}

/// Bytes that are converted in one step.
const CHUNK: usize = 64 << 10;

/// A byte that is not valid UTF-8. It replaces text that is not valid in its encoding, so that the
/// record that holds it is rejected rather than changed.
const INVALID: u8 = 0xff;

/// Converts text to UTF-8.
struct Transcoder<R> {
    input: R,
    /// The decoder; `None` for Latin-1.
    decoder: Option<Decoder>,
    buffer: Vec<u8>,
    converted: Cursor<Vec<u8>>,
    is_at_end: bool,
}

impl<R: Read> Transcoder<R> {
    fn new(input: R, decoder: Option<Decoder>) -> Self {
        Self {
            input,
            decoder,
            buffer: vec![0; CHUNK],
            converted: Cursor::default(),
            is_at_end: false,
        }
    }

    /// Converts the next chunk.
    fn fill(&mut self) -> io::Result<()> {
        let read = self.input.read(&mut self.buffer)?;
        self.is_at_end = read == 0;
        let mut bytes = &self.buffer[..read];
        let mut text = std::mem::take(&mut self.converted).into_inner();
        text.clear();
        let Some(decoder) = &mut self.decoder else {
            let as_text: String = bytes.iter().copied().map(char::from).collect();
            self.converted = Cursor::new(as_text.into_bytes());
            return Ok(());
        };
        loop {
            let room = decoder
                .max_utf8_buffer_length_without_replacement(bytes.len())
                .ok_or_else(|| io::Error::other("the text is too long"))?;
            let start = text.len();
            text.resize(start + room, 0);
            let (result, taken, written) = decoder.decode_to_utf8_without_replacement(
                bytes,
                &mut text[start..],
                self.is_at_end,
            );
            text.truncate(start + written);
            bytes = &bytes[taken..];
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => text.push(INVALID),
            }
        }
        self.converted = Cursor::new(text);
        Ok(())
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.converted.read(buffer)?;
            if read > 0 || self.is_at_end || buffer.is_empty() {
                return Ok(read);
            }
            self.fill()?;
        }
    }
}

#[cfg(test)]
mod tests;
