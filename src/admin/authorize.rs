//! Authorization of requests to the admin listener: with a token, only health is served without it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::TokenAuth;

/// Admits requests with the token. Probes of a cluster do not have it: `/healthz` answers them, and
/// `/readyz` answers them without reasons.
pub(super) async fn authorize(
    State(auth): State<Arc<TokenAuth>>,
    request: Request,
    next: Next,
) -> Response {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if auth.is_browser_authorized(header) {
        return next.run(request).await;
    }
    match request.uri().path() {
        "/healthz" => next.run(request).await,
        "/readyz" => {
            let status = next.run(request).await.status();
            let word = if status.is_success() {
                "ready\n"
            } else {
                "not ready\n"
            };
            (status, word).into_response()
        }
        _ => {
            let text = "expected the header `Authorization: Bearer TOKEN` with the token of \
                        [admin]; in a browser, the token is the password of the user latentflow\n";
            let mut response = (StatusCode::UNAUTHORIZED, text).into_response();
            for scheme in ["Bearer", "Basic realm=\"latentflow\", charset=\"UTF-8\""] {
                response
                    .headers_mut()
                    .append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
            response
        }
    }
}
