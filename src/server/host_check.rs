//! Protects a listener from pages of other sites in a browser that can reach it, by checking the
//! headers `Host`, `Origin` and `Sec-Fetch-*`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::error::config_error::ConfigError;
use crate::text_excerpt::excerpt;

/// The check of the headers `Host` and `Origin`.
pub(crate) struct HostCheck {
    /// Whether `Host` is checked. Without a token, a page could otherwise reach the listener under
    /// a name that resolves to its address (DNS rebinding).
    pub host: bool,
    /// Whether `Origin` is checked.
    pub origin: bool,
    /// Host names that are allowed in addition to IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Creates the response to a refused request.
    pub refuse: fn(String) -> Response,
}

const OTHER_SITES: &str = "requests from the pages of other sites are refused";

/// Admits a request that no other site can have made, and keeps other sites from embedding the
/// response.
pub(crate) async fn require_allowed_host(
    State(guard): State<Arc<HostCheck>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.check(request.headers()) {
        Err(reason) => (guard.refuse)(reason),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    response
}

impl HostCheck {
    fn check(&self, headers: &HeaderMap) -> Result<(), String> {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        // Every browser sends `Host`: a request without it comes from another program.
        let mut named = headers.get_all(HOST).iter().map(text);
        if self.host
            && let Some(host) = named.find(|host| !self.allows(host))
        {
            let shown = excerpt(&host, 100);
            return Err(format!(
                "unknown host `{shown}`; use an IP address or localhost, add the name to `hosts` \
                 of the listener, or configure a token for it"
            ));
        }
        let host = headers.get(HOST).map(text).unwrap_or_default();
        // Browsers send the origin of every request that is not a plain GET.
        let own = |origin: &str| {
            let site = origin.split_once("://").map(|(_, site)| site);
            site.is_some_and(|site| {
                site.eq_ignore_ascii_case(&host) || self.is_listed(name_of(site))
            })
        };
        if self.origin
            && headers
                .get_all(ORIGIN)
                .iter()
                .map(text)
                .any(|origin| !own(&origin))
        {
            return Err(OTHER_SITES.to_owned());
        }
        // Browsers also report the site of the page that makes a plain GET; links to pages of this
        // listener may be followed from any site.
        let fetched =
            |name: &str, value: &str| headers.get_all(name).iter().any(|found| found == value);
        if self.origin
            && fetched("sec-fetch-site", "cross-site")
            && !fetched("sec-fetch-mode", "navigate")
        {
            return Err(OTHER_SITES.to_owned());
        }
        Ok(())
    }

    /// Whether a host, with or without its port, is an IP address, `localhost`, or an allowed name.
    fn allows(&self, host: &str) -> bool {
        let name = name_of(host);
        let number = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || number.parse::<IpAddr>().is_ok()
            || self.is_listed(name)
    }

    fn is_listed(&self, name: &str) -> bool {
        self.hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name))
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Entries of `hosts` that are not host names.
pub(crate) fn check_hosts(hosts: &[String]) -> Vec<ConfigError> {
    let is_name = |host: &String| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let invalid = hosts.iter().filter(|host| !is_name(host));
    let message =
        |host: &String| format!("`{host}` is not a host name; write it without scheme and port");
    invalid
        .map(|host| ConfigError::new("hosts", message(host)))
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;

    fn check(hosts: &[&str], host: &'static str, origin: Option<&'static str>) -> bool {
        let hosts = hosts.iter().map(|&allowed| allowed.to_owned()).collect();
        let refuse = |reason: String| (StatusCode::FORBIDDEN, reason).into_response();
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        HostCheck {
            host: true,
            origin: true,
            hosts,
            refuse,
        }
        .check(&headers)
        .is_ok()
    }

    #[test]
    fn foreign_host_is_refused_unless_it_is_listed() {
        for host in [
            "127.0.0.1:9464",
            "localhost:9464",
            "LOCALHOST",
            "[::1]:9464",
            "[::1]",
            "127.0.0.1",
            "10.1.2.3:80",
        ] {
            assert!(check(&[], host, None), "{host}");
        }
        for host in [
            "evil.example:9464",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example:9464",
            "localhost.:80",
        ] {
            assert!(!check(&["good.example"], host, None), "{host}");
        }
        assert!(check(&["good.example"], "Good.Example:9464", None));
    }

    #[test]
    fn request_without_a_host_passes() {
        let refuse = |reason: String| (StatusCode::FORBIDDEN, reason).into_response();
        let guard = HostCheck {
            host: true,
            origin: true,
            hosts: Vec::new(),
            refuse,
        };
        assert!(guard.check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn second_host_header_is_checked_as_well() {
        let refuse = |reason: String| (StatusCode::FORBIDDEN, reason).into_response();
        let guard = HostCheck {
            host: true,
            origin: true,
            hosts: Vec::new(),
            refuse,
        };
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(guard.check(&headers).is_err());
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        assert!(check(&[], "127.0.0.1:9464", Some("http://127.0.0.1:9464")));
        assert!(check(
            &["good.example"],
            "127.0.0.1:9464",
            Some("https://good.example")
        ));
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:8080",
            "https://127.0.0.1",
        ] {
            assert!(!check(&[], "127.0.0.1:9464", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn cross_site_get_is_refused_except_for_navigation() {
        let refuse = |reason: String| (StatusCode::FORBIDDEN, reason).into_response();
        let guard = HostCheck {
            host: true,
            origin: true,
            hosts: Vec::new(),
            refuse,
        };
        let check = |site: &'static str, mode: &'static str| {
            let pairs = [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            let pairs = pairs.map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            });
            guard.check(&HeaderMap::from_iter(pairs)).is_ok()
        };
        assert!(
            check("same-origin", "cors")
                && check("none", "navigate")
                && check("cross-site", "navigate")
        );
        assert!(!check("cross-site", "no-cors"));
    }

    #[test]
    fn entry_with_scheme_or_port_is_a_fault() {
        let faults = |host: &str| check_hosts(&[host.to_owned()]).len();
        assert_eq!(
            [
                faults("a.example"),
                faults("http://a"),
                faults("a:80"),
                faults(""),
                faults("*")
            ],
            [0, 1, 1, 1, 1]
        );
    }
}
