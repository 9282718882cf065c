//! Reads the expiry time of a certificate.

use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// The end of a certificate's validity in seconds since 1970; `None` if its DER cannot be parsed.
pub(super) fn expiry(der: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(der).ok()?;
    let end = certificate
        .tbs_certificate()
        .validity()
        .not_after
        .to_unix_duration();
    i64::try_from(end.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 2, 1);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    /// Years before 2050 have two digits in a certificate, later ones have four.
    #[test]
    fn expiry_is_read_in_both_notations() {
        assert_eq!(expiry(&certificate(1999)), Some(917_827_200));
        assert_eq!(expiry(&certificate(2049)), Some(2_495_750_400));
        assert_eq!(expiry(&certificate(2050)), Some(2_527_286_400));
        assert_eq!(expiry(&certificate(2450)), Some(15_150_067_200));
    }

    #[test]
    fn truncated_or_invalid_certificate_has_no_expiry() {
        let complete = certificate(2049);
        for length in 0..complete.len() {
            assert_eq!(expiry(&complete[..length]), None, "{length}");
        }
        let end = b"490201000000Z";
        let offset = complete
            .windows(end.len())
            .position(|window| window == end)
            .unwrap();
        for text in [
            b"491301000000Z",
            b"490230000000Z",
            b"4902010000x0Z",
            b"490201000000+",
        ] {
            let mut invalid = complete.clone();
            invalid[offset..offset + text.len()].copy_from_slice(text);
            assert_eq!(expiry(&invalid), None, "{text:?}");
        }
        for at in 0..complete.len() {
            let mut changed = complete.clone();
            changed[at] ^= 0xff;
            expiry(&changed);
        }
    }
}
