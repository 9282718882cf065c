//! The dashboard page, and its resources: the status of the run and images.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use super::Admin;
use super::status::RunStatus;

const STYLE: &str = include_str!("dashboard.css");
const SCRIPT: &str = include_str!("dashboard.js");

/// The complete page. It loads the status and images from this listener, and nothing from any other
/// server.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = include_str!("dashboard.html");
    page.replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT)
});

/// The content security policy: only the page's own script runs, independent of the data shown.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src {}; style-src \
         {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

const NO_STORE: (HeaderName, &str) = (CACHE_CONTROL, "no-store");

pub(super) async fn get_dashboard() -> impl IntoResponse {
    let kind = (CONTENT_TYPE, "text/html; charset=utf-8");
    (
        [kind, NO_STORE, (CONTENT_SECURITY_POLICY, POLICY.as_str())],
        PAGE.as_str(),
    )
}

/// Returns 503 until the outputs are open, because there is no status before.
pub(super) async fn get_status(State(admin): State<Arc<Admin>>) -> Response {
    let Some(run) = admin.run.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [NO_STORE], "starting\n").into_response();
    };
    run.stats.tap.keep_sampling();
    let status = RunStatus::new(&run.stats, &admin.metrics, admin.state());
    ([NO_STORE], Json(status)).into_response()
}

/// An image as the input of a model (`before.png`) or as its output (`after.png`); 404 once it is
/// no longer kept.
pub(super) async fn get_image(
    State(admin): State<Arc<Admin>>,
    Path((number, file)): Path<(u64, String)>,
) -> Response {
    let images = admin
        .run
        .get()
        .map(|run| run.stats.tap.images())
        .unwrap_or_default();
    let image = images.into_iter().find(|image| image.number == number);
    let index = ["before.png", "after.png"]
        .iter()
        .position(|name| *name == file);
    match (image, index) {
        (Some(image), Some(index)) => (
            [(CONTENT_TYPE, "image/png"), NO_STORE],
            image.files[index].clone(),
        )
            .into_response(),
        _ => (StatusCode::NOT_FOUND, "no such image\n").into_response(),
    }
}
