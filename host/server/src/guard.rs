//! What happens to every request: it gets a name, its sender is asked for a key, its answer counts.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::ids::Id;

/// Names, checks, answers, counts.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().as_str().to_owned();
    let matched = request.extensions().get::<MatchedPath>();
    // Paths that are nobody's would be numbers without end.
    let route = matched.map_or("other", MatchedPath::as_str).to_owned();
    let mut response = match check(&app.config(), &request, &route) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    app.metrics.answered(&method, &route, response.status().as_u16());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Asks for a key where there are any; without, answers what is addressed to this machine only.
pub(crate) fn check(config: &ServerConfig, request: &Request, route: &str) -> Result<(), ApiError> {
    if config.keys.is_empty() {
        return check_host(config, request.headers());
    }
    if OPEN.contains(&route) || config.keys.contain(key(request.headers())) {
        return Ok(());
    }
    Err(ApiError::unauthorized())
}

/// The key that a request brings.
pub(crate) fn key(headers: &HeaderMap) -> &[u8] {
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = authorization.and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let other = || headers.get("x-api-key").map(HeaderValue::as_bytes);
    bearer.or_else(other).unwrap_or_default()
}

/// Without keys, only what is addressed to this machine is answered: a web page whose own name was
/// made to mean this machine gets nothing.
fn check_host(config: &ServerConfig, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return Ok(());
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<IpAddr>().is_ok();
    let is_known = config.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_address || is_known || name.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    Err(ApiError::wrong_host())
}

/// The name that the client gave a request, or another one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID);
    let is_fair = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    };
    let made = || HeaderValue::from_str(&format!("req-{}", Id::new()));
    given.filter(is_fair).cloned().or_else(|| made().ok()).unwrap_or(HeaderValue::from_static("-"))
}

const REQUEST_ID: &str = "x-request-id";

/// Routes that need no key: they tell nothing of requests.
const OPEN: [&str; 7] =
    ["/health", "/ready", "/version", "/openapi.json", "/docs", "/", "/page/{file}"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn reads_keys_from_either_header() {
        #[rustfmt::skip]
        let cases = [
            (headers(&[("authorization", "Bearer k1")]),                       "k1"),
            (headers(&[("authorization", "bearer k1")]),                       "k1"),
            (headers(&[("x-api-key", "k2")]),                                  "k2"),
            (headers(&[("authorization", "Basic k1"), ("x-api-key", "k2")]),   "k2"),
            (headers(&[("authorization", "Bearer")]),                          ""),
            (headers(&[]),                                                     ""),
        ];
        for (headers, expected) in cases {
            assert_eq!(key(&headers), expected.as_bytes());
        }
    }

    #[test]
    fn keeps_fair_names_of_requests() {
        let of = |value| request_id(&headers(&[(REQUEST_ID, value)]));
        assert_eq!(of("abc-1"), "abc-1");
        assert!(of("").to_str().unwrap().starts_with("req-"));
        assert!(of("a b").to_str().unwrap().starts_with("req-"));
    }

    #[test]
    fn answers_only_to_names_of_this_machine() {
        let config = plugin_api::Config::new();
        let mut config = ServerConfig::read(&config, std::path::Path::new("")).unwrap();
        config.hosts = vec!["models.lan".to_owned()];
        #[rustfmt::skip]
        let cases = [
            ("localhost:8000", true), ("127.0.0.1:8000", true), ("[::1]:8000", true),
            ("models.lan", true), ("LOCALHOST", true),
            ("evil.example:8000", false), ("localhost.evil.example", false), ("", false),
        ];
        for (host, is_fair) in cases {
            let found = check_host(&config, &headers(&[("host", host)])).is_ok();
            assert_eq!(found, is_fair, "{host}");
        }
    }
}
