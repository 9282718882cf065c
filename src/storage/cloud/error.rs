//! Conversion of object store errors to I/O errors, with credentials redacted.

use std::io::{self, ErrorKind};

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::Provider;
use crate::storage::outage::UNREACHABLE;
use crate::text_excerpt::excerpt;

/// Converts the error to an I/O error whose kind [`crate::error::ErrorClass::of_store`] classifies.
pub(super) fn to_io_error(provider: &Provider, error: &Error) -> io::Error {
    let redacted = || redact(provider, &error.to_string());
    let (kind, text) = match error {
        Error::NotFound { .. } => (ErrorKind::NotFound, "the object does not exist".to_owned()),
        Error::Precondition { .. } | Error::NotModified { .. } => (
            ErrorKind::StaleNetworkFileHandle,
            "was changed since it was listed; the next run reads it again".to_owned(),
        ),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
            ErrorKind::PermissionDenied,
            format!("the store denied access: {}", redacted()),
        ),
        _ if is_unanswered(error) => (UNREACHABLE, redacted()),
        _ => (ErrorKind::Other, redacted()),
    };
    io::Error::new(kind, text)
}

/// Whether no attempt of a request got a final response.
fn is_unanswered(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(http_error) = current.downcast_ref::<HttpError>() {
            return http_error.kind() == HttpErrorKind::Request;
        }
        cause = current.source();
    }
    false
}

/// Minimum length of a value to redact, in bytes. Shorter values occur in tests and are also parts
/// of ordinary words.
const SHORTEST: usize = 8;

/// Hosts of the metadata services of cloud machines, from which the client requests credentials if
/// the environment has none.
const METADATA_HOSTS: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// Parameters of URLs whose values are redacted: the signature of an Azure shared access signature.
const SECRET_PARAMETER: &str = "sig=";

/// Maximum length of a message in characters.
const LONGEST: usize = 400;

/// The message without secrets, with the body of a response reduced to its code and message.
pub(super) fn redact(provider: &Provider, message: &str) -> String {
    let mut text = match message.split_once('<') {
        Some((before, body)) => {
            let details: Vec<&str> = ["Code", "Message"]
                .into_iter()
                .filter_map(|name| element(body, name))
                .collect();
            format!("{} {}", before.trim_end(), details.join(": "))
        }
        None => message.to_owned(),
    };
    for name in provider.secrets {
        if let Ok(value) = std::env::var(name)
            && value.len() >= SHORTEST
        {
            text = text.replace(&value, "***");
        }
    }
    let mut text = without_signature(&without_user(&text));
    if METADATA_HOSTS.iter().any(|host| text.contains(host)) {
        let hint = format!("missing credentials; set {}: ", provider.credentials);
        text.insert_str(0, &hint);
    }
    excerpt(text.trim_end(), LONGEST).into_owned()
}

fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}

/// The text without the values of parameters that are secret.
fn without_signature(text: &str) -> String {
    let mut parts = text.split(SECRET_PARAMETER);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['&', ' ', '"', ')']).unwrap_or(part.len());
        plain.push_str(SECRET_PARAMETER);
        plain.push_str("***");
        plain.push_str(&part[end..]);
    }
    plain
}

/// The text without the user and the password that a URL may have before its host.
pub(super) fn without_user(text: &str) -> String {
    let mut parts = text.split("://");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['/', ' ', '"', '?']).unwrap_or(part.len());
        let start = part[..end].rfind('@').map_or(0, |at| at + 1);
        plain.push_str("://");
        plain.push_str(&part[start..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use crate::storage::object::StoreScheme;

    fn redact(message: &str) -> String {
        let providers = StoreScheme::ALL
            .into_iter()
            .filter_map(super::super::provider);
        let redacted: Vec<String> = providers
            .map(|provider| super::redact(provider, message))
            .collect();
        assert!(redacted.windows(2).all(|pair| pair[0] == pair[1]));
        redacted.into_iter().next().unwrap_or_default()
    }

    #[test]
    fn response_is_reduced_to_its_code_and_message() {
        let body = "Server returned non-2xx status code: 403 Forbidden: \
            <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
            <Message>not the signature</Message>\
            <AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId></Error>";
        assert_eq!(
            redact(body),
            "Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch: \
             not the signature"
        );
    }

    #[test]
    fn users_and_passwords_of_urls_are_redacted() {
        assert_eq!(
            redact("GET http://me:pass@host:1/b?x=@ failed"),
            "GET http://host:1/b?x=@ failed"
        );
        assert_eq!(
            redact("GET http://host/a@b, then s3://b/k@l"),
            "GET http://host/a@b, then s3://b/k@l"
        );
    }

    #[test]
    fn signatures_of_urls_are_redacted() {
        assert_eq!(
            redact("PUT https://host/c/k?se=2026&sig=a%2Fb%3D&comp=block failed"),
            "PUT https://host/c/k?se=2026&sig=***&comp=block failed"
        );
    }
}
