//! Identification of repeated requests: by the client's key, and a digest of the request.

pub(crate) mod keys;

use sha2::{Digest as _, Sha256};

use crate::source::http::wal::record::{KeyDigest, RequestDigest, RequestFingerprint};

/// A request with an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestAttempt {
    /// A digest of the key and its sender.
    pub(crate) key: KeyDigest,
    /// A digest of the sender, body, source and type of the request.
    pub(crate) request: RequestDigest,
    /// The key and body checksum in the format of versions before SHA-256.
    pub(crate) former: (KeyDigest, u32),
}

impl RequestAttempt {
    /// Computes the digests of a request of `owner` with a key.
    pub(crate) fn new(
        owner: &str,
        key: &str,
        content_type: &str,
        source: &str,
        body: &[u8],
    ) -> Self {
        let former: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        Self {
            key: digest(&[owner.as_bytes(), key.as_bytes()]),
            request: digest(&[
                owner.as_bytes(),
                body,
                source.as_bytes(),
                content_type.as_bytes(),
            ]),
            former: (half(&former), crc32fast::hash(body)),
        }
    }

    /// Whether the request that was accepted under the key is this one.
    pub(crate) fn is(&self, taken: RequestFingerprint) -> bool {
        match taken {
            RequestFingerprint::Sha256(request) => request == self.request,
            RequestFingerprint::Crc32(body) => body == self.former.1,
        }
    }
}

/// The digest covers the lengths of the parts, so that their boundaries are unambiguous.
fn digest(parts: &[&[u8]]) -> RequestDigest {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    half(&sha.finalize().into())
}

fn half(digest: &[u8; 32]) -> RequestDigest {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_differs_by_owner_body_source_and_type() {
        let attempt = |owner, content_type, source, body: &str| {
            RequestAttempt::new(owner, "one", content_type, source, body.as_bytes())
        };
        let first = attempt("token", "application/json", "http", "{}");
        assert!(first.is(RequestFingerprint::Sha256(
            attempt("token", "application/json", "http", "{}").request
        )));
        for (owner, content_type, source, body) in [
            ("other", "application/json", "http", "{}"),
            ("token", "image/png", "http", "{}"),
            ("token", "application/json", "else", "{}"),
            ("token", "application/json", "http", "{ }"),
            ("token", "application/json", "htt", "p{}"),
        ] {
            let other = attempt(owner, content_type, source, body);
            assert!(
                !first.is(RequestFingerprint::Sha256(other.request)),
                "{owner} {content_type} {source} {body}"
            );
            assert_eq!(first.key == other.key, owner == "token");
        }
        assert!(
            first.is(RequestFingerprint::Crc32(crc32fast::hash(b"{}")))
                && !first.is(RequestFingerprint::Crc32(1))
        );
    }
}
