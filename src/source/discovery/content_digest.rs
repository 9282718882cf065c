//! The digest of a file's content, which identifies a file after its modification time or inode has
//! changed.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

/// XXH3-128 of a file's content, or of its beginning. Only files of the same name and length are
/// compared, so a cryptographic hash is not needed: accidental collisions are the only ones that
/// matter.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ContentDigest(u128);

/// Size of the read buffer in bytes.
const CHUNK: usize = 1 << 16;

impl ContentDigest {
    /// The digest of bytes in memory.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes))
    }

    /// The digest of the first `length` bytes of `input`; `None` if it has fewer.
    ///
    /// # Errors
    /// Those of `input`.
    pub(crate) fn of_prefix(input: impl Read, length: u64) -> io::Result<Option<Self>> {
        let mut hasher = ContentHasher::default();
        let mut input = input.take(length);
        let mut chunk = vec![0; CHUNK];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => hasher.update(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((hasher.length == length).then(|| hasher.digest()))
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for ContentDigest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// Computes a [`ContentDigest`] incrementally.
#[derive(Default)]
pub(crate) struct ContentHasher {
    hasher: XxHash3_128,
    length: u64,
}

impl ContentHasher {
    /// Adds the next bytes of the content.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.length += bytes.len() as u64;
    }

    /// The digest of the bytes that were added.
    pub(crate) fn digest(&self) -> ContentDigest {
        ContentDigest(self.hasher.finish_128())
    }

    /// Number of bytes that were added.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn digest_equals_published_test_vector() {
        // XXH3-128 of an empty input with seed 0, from the reference implementation (xxHash 0.8).
        assert_eq!(
            ContentDigest::of(b"").to_string(),
            "99aa06d3014798d86001c324468d497f"
        );
    }

    #[test]
    fn digests_of_chunks_and_prefixes_equal_direct_ones() {
        let content: Vec<u8> = (0..200_000u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect();
        let mut hasher = ContentHasher::default();
        content.chunks(977).for_each(|chunk| hasher.update(chunk));
        assert_eq!(
            (hasher.digest(), hasher.length()),
            (ContentDigest::of(&content), 200_000)
        );
        let prefix = |length| ContentDigest::of_prefix(content.as_slice(), length).unwrap();
        assert_eq!(
            prefix(150_000),
            Some(ContentDigest::of(&content[..150_000]))
        );
        assert_eq!(prefix(200_001), None);
    }

    #[test]
    fn digest_is_restored_from_json() {
        let digest = ContentDigest::of(b"content");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(
            serde_json::from_str::<ContentDigest>(&text).unwrap(),
            digest
        );
        assert!(serde_json::from_str::<ContentDigest>("\"not a digest\"").is_err());
    }
}
