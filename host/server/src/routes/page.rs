//! The page for people at `/`: a few files that are part of the program and need nothing from
//! elsewhere.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};

use crate::error::ApiError;

/// Names, types and texts.
#[rustfmt::skip]
const FILES: [(&str, &str, &str); 13] = [
    ("index.html",  "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("style.css",   "text/css; charset=utf-8",  include_str!("../page/style.css")),
    ("icon.svg",    "image/svg+xml",            include_str!("../page/icon.svg")),
    ("main.js",     SCRIPT,                     include_str!("../page/main.js")),
    ("api.js",      SCRIPT,                     include_str!("../page/api.js")),
    ("board.js",    SCRIPT,                     include_str!("../page/board.js")),
    ("chat.js",     SCRIPT,                     include_str!("../page/chat.js")),
    ("live.js",     SCRIPT,                     include_str!("../page/live.js")),
    ("metrics.js",  SCRIPT,                     include_str!("../page/metrics.js")),
    ("models.js",   SCRIPT,                     include_str!("../page/models.js")),
    ("plot.js",     SCRIPT,                     include_str!("../page/plot.js")),
    ("settings.js", SCRIPT,                     include_str!("../page/settings.js")),
    ("training.js", SCRIPT,                     include_str!("../page/training.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Scripts and styles of this server only; it is asked, and the listener for operators, which the
/// reader names.
const POLICY: &str = "default-src 'self'; connect-src *; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page.
pub(crate) async fn index() -> Result<Response, ApiError> {
    answer("index.html")
}

/// The same for a run of training, which has no model to talk with.
pub(crate) fn of_run() -> Result<Response, ApiError> {
    let (_, media_type, text) = FILES[0];
    let text = text.replacen("<html lang=\"en\">", "<html lang=\"en\" data-run>", 1);
    Ok(with_headers(media_type, text.into_response()))
}

/// What the page is made of.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    answer(&name)
}

fn answer(name: &str) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, media_type, text) = *found.ok_or_else(ApiError::no_path)?;
    Ok(with_headers(media_type, text.into_response()))
}

fn with_headers(media_type: &'static str, mut response: Response) -> Response {
    let headers = response.headers_mut();
    #[rustfmt::skip]
    let lines = [
        (header::CONTENT_TYPE,            media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS,  "nosniff"),
        (header::REFERRER_POLICY,         "no-referrer"),
        // Another version of the program has another page.
        (header::CACHE_CONTROL,           "no-cache"),
    ];
    for (header, value) in lines {
        headers.insert(header, HeaderValue::from_static(value));
    }
    response
}
