//! Conversion of object store errors to I/O errors, with credentials redacted.

use std::io::{self, ErrorKind};

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::outage::UNREACHABLE;

/// Converts the error to an I/O error whose kind [`crate::error::ErrorClass::of_store`] classifies.
pub(super) fn to_io_error(error: &Error) -> io::Error {
    let (kind, text) = match error {
        Error::NotFound { .. } => (ErrorKind::NotFound, "the object does not exist".to_owned()),
        Error::Precondition { .. } | Error::NotModified { .. } => (
            ErrorKind::StaleNetworkFileHandle,
            "was changed since it was listed; the next run reads it again".to_owned(),
        ),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
            ErrorKind::PermissionDenied,
            format!("the store denied access: {}", redact(&error.to_string())),
        ),
        _ if is_unanswered(error) => (UNREACHABLE, redact(&error.to_string())),
        _ => (ErrorKind::Other, redact(&error.to_string())),
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

/// Environment variables whose values are redacted.
const SECRET: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_TOKEN",
];

/// Minimum length of a value to redact, in bytes. Shorter values occur in tests and are also parts
/// of ordinary words.
const SHORTEST: usize = 8;

/// Address of the metadata service of cloud machines, from which the client requests credentials if
/// the environment has none.
const IMDS_HOST: &str = "169.254.169.254";

/// Maximum length of a message in characters.
const LONGEST: usize = 400;

/// The message without secrets, with the body of a response reduced to its code and message.
pub(super) fn redact(message: &str) -> String {
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
    for name in SECRET {
        if let Ok(value) = std::env::var(name)
            && value.len() >= SHORTEST
        {
            text = text.replace(&value, "***");
        }
    }
    let mut text = without_user(&text);
    if text.contains(IMDS_HOST) {
        text.insert_str(
            0,
            "missing credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: ",
        );
    }
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.trim_end().to_owned(),
    }
}

fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}

/// The text without the user and the password that a URL may have before its host.
fn without_user(text: &str) -> String {
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
    use super::*;

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
}
