//! Decoding of compressed bodies, incrementally and up to a limit.

use std::io::{self, ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::source::http::body::memory_reservation::MemoryReservation;
use crate::source::http::error_response::ErrorResponse;

/// The compression of a body, from its `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentEncoding {
    Identity,
    Gzip,
    /// The zlib format, as RFC 9110 defines it.
    Deflate,
    Zstd,
}

/// Bytes that are decoded between two checks of the limits.
const STEP: usize = 64 << 10;
/// Maximum window of a zstd frame: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// Bytes of the tables and the window of a decoder.
const DECODER_BYTES: u64 = (1 << ZSTD_WINDOW_LOG) + (1 << 20);

impl ContentEncoding {
    /// Parses the header.
    ///
    /// # Errors
    /// Returns 415 for any other encoding, and for several.
    pub(crate) fn parse(header: &str) -> Result<Self, ErrorResponse> {
        match header.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            other => {
                let message = format!(
                    "`Content-Encoding: {other}` is not supported; expected gzip, zstd or deflate"
                );
                Err(ErrorResponse::unsupported(message))
            }
        }
    }

    /// Decodes a body into at most `most` bytes. The charge covers the body and the decoded bytes.
    ///
    /// # Errors
    /// Returns 413 beyond `most`, and 422 if the body is damaged or truncated.
    pub(crate) fn decode(
        self,
        body: Vec<u8>,
        most: u64,
        charge: &mut MemoryReservation,
    ) -> Result<Vec<u8>, ErrorResponse> {
        let damaged = |error: &dyn std::fmt::Display| {
            ErrorResponse::unprocessable(format!(
                "the body cannot be decoded according to its Content-Encoding: {error}"
            ))
        };
        let held = body.len() as u64 + DECODER_BYTES;
        let mut sink = BoundedBuffer {
            bytes: Vec::new(),
            most,
            held,
            charge,
        };
        let filled = match self {
            Self::Identity => return Ok(body),
            Self::Gzip => sink.fill(MultiGzDecoder::new(body.as_slice())),
            Self::Deflate => sink.fill(ZlibReader {
                input: &body,
                state: Decompress::new(true),
                is_at_end: false,
            }),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(body.as_slice());
                let mut decoder = decoder.map_err(|error| damaged(&error))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG)
                    .map_err(|error| damaged(&error))?;
                sink.fill(decoder)
            }
        };
        filled.map_err(|stop| match stop {
            DecodeError::Input(error) => damaged(&error),
            DecodeError::Bound(refusal) => refusal,
        })?;
        let bytes = sink.bytes;
        charge.set(bytes.capacity() as u64)?;
        Ok(bytes)
    }
}

enum DecodeError {
    Input(io::Error),
    Bound(ErrorResponse),
}

/// A buffer whose memory is reserved before it is allocated.
struct BoundedBuffer<'a> {
    bytes: Vec<u8>,
    most: u64,
    held: u64,
    charge: &'a mut MemoryReservation,
}

impl BoundedBuffer<'_> {
    fn fill(&mut self, mut input: impl Read) -> Result<(), DecodeError> {
        let mut step = vec![0; STEP];
        loop {
            let read = match input.read(&mut step) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(DecodeError::Input(error)),
            };
            let length = self.bytes.len() + read;
            if length as u64 > self.most {
                let message = format!(
                    "the decoded body has more than {} bytes (limits.request)",
                    self.most
                );
                return Err(DecodeError::Bound(ErrorResponse::too_large(message)));
            }
            if length > self.bytes.capacity() {
                let most = usize::try_from(self.most).unwrap_or(usize::MAX);
                let capacity = (2 * self.bytes.capacity()).max(length).min(most);
                self.charge
                    .set(self.held + capacity as u64)
                    .map_err(DecodeError::Bound)?;
                self.bytes.reserve_exact(capacity - self.bytes.len());
            }
            self.bytes.extend_from_slice(&step[..read]);
        }
    }
}

/// A zlib stream that must end at the end of its input: the reader of flate2 accepts a truncated
/// stream as complete.
struct ZlibReader<'a> {
    input: &'a [u8],
    state: Decompress,
    is_at_end: bool,
}

impl Read for ZlibReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end {
            let (taken, given) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(self.input, into, FlushDecompress::None)?;
            let taken = usize::try_from(self.state.total_in() - taken).map_err(io::Error::other)?;
            let given =
                usize::try_from(self.state.total_out() - given).map_err(io::Error::other)?;
            self.input = &self.input[taken..];
            self.is_at_end = status == Status::StreamEnd;
            if self.is_at_end && !self.input.is_empty() {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "unexpected bytes after the end of the stream",
                ));
            }
            if given > 0 {
                return Ok(given);
            }
            if !self.is_at_end && taken == 0 {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the stream is truncated",
                ));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use axum::http::StatusCode;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::source::http::body::memory_reservation::MemoryPool;

    const KINDS: [ContentEncoding; 3] = [
        ContentEncoding::Gzip,
        ContentEncoding::Deflate,
        ContentEncoding::Zstd,
    ];

    fn encoded(kind: ContentEncoding, bytes: &[u8]) -> Vec<u8> {
        match kind {
            ContentEncoding::Identity => bytes.to_vec(),
            ContentEncoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            ContentEncoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            ContentEncoding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn decode(kind: ContentEncoding, body: &[u8], most: u64) -> Result<Vec<u8>, ErrorResponse> {
        kind.decode(body.to_vec(), most, &mut MemoryPool::new(64 << 20).charge())
    }

    #[test]
    fn encoded_body_is_decoded_up_to_the_bound() {
        let text: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for kind in KINDS {
            let body = encoded(kind, &text);
            assert_eq!(decode(kind, &body, 300_000).unwrap(), text, "{kind:?}");
            assert_eq!(
                decode(kind, &body, 299_999).unwrap_err().status,
                StatusCode::PAYLOAD_TOO_LARGE,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn truncated_or_extended_body_is_refused() {
        for kind in KINDS {
            let body = encoded(kind, b"some text, some text, some more text");
            for len in 1..body.len() {
                let refusal = decode(kind, &body[..len], 1 << 20).unwrap_err();
                assert_eq!(
                    refusal.status,
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "{kind:?} cut to {len}"
                );
            }
            let longer = [body.as_slice(), b"more"].concat();
            assert_eq!(
                decode(kind, &longer, 1 << 20).unwrap_err().status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn compressed_zeros_beyond_the_reserved_memory_are_refused() {
        let zeros = vec![0; 32 << 20];
        for kind in KINDS {
            let body = encoded(kind, &zeros);
            let decoded = kind.decode(body, 64 << 20, &mut MemoryPool::new(16 << 20).charge());
            assert_eq!(
                decoded.unwrap_err().status,
                StatusCode::PAYLOAD_TOO_LARGE,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn unknown_or_repeated_encoding_is_415() {
        assert_eq!(
            ContentEncoding::parse(" GZIP ").unwrap(),
            ContentEncoding::Gzip
        );
        assert_eq!(
            ContentEncoding::parse("identity").unwrap(),
            ContentEncoding::Identity
        );
        for other in ["br", "gzip, gzip", "compress"] {
            assert_eq!(
                ContentEncoding::parse(other).unwrap_err().status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            );
        }
    }
}
