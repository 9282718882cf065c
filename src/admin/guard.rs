//! Keeps other sites' pages, open in the browser of somebody who can reach the listener, from using it through that browser.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets a request through that no other site can have made, and has no other site show the answer.
pub(super) async fn guard(State(bound): State<SocketAddr>, request: Request, next: Next) -> Response {
    if let Err(reason) = check(bound, request.headers()) {
        return (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    response
}

fn check(bound: SocketAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A name that leads to this machine may be anybody's (DNS rebinding). From elsewhere, a name is how one comes here.
    if bound.ip().is_loopback() && !is_own(host) {
        return Err("this address is for this machine alone: ask for it by its number, or as localhost");
    }
    // Browsers tell where a request comes from that is not a plain GET.
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, site)| site.eq_ignore_ascii_case(host));
    if origin.is_some_and(|origin| !own(origin)) {
        return Err("requests from the pages of other sites are refused");
    }
    Ok(())
}

/// Whether a host, with or without its port, is a number or this machine's own name.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let number = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(bound: &str, host: &'static str, origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        super::check(bound.parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn on_this_machine_alone_a_foreign_name_is_refused() {
        for host in ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "[::1]", "127.0.0.1"] {
            assert!(check("127.0.0.1:9464", host, None), "{host}");
        }
        for host in ["evil.example:9464", "localhost.evil.example", "", "127.0.0.1.evil.example:9464"] {
            assert!(!check("127.0.0.1:9464", host, None), "{host}");
            assert!(check("0.0.0.0:9464", host, None), "{host}");
        }
    }

    #[test]
    fn requests_of_other_sites_are_refused_everywhere() {
        for bound in ["127.0.0.1:9464", "0.0.0.0:9464"] {
            assert!(check(bound, "127.0.0.1:9464", Some("http://127.0.0.1:9464")));
            for origin in ["http://evil.example", "null", "http://127.0.0.1:8080", "https://127.0.0.1"] {
                assert!(!check(bound, "127.0.0.1:9464", Some(origin)), "{origin}");
            }
        }
    }
}
