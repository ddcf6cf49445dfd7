//! Fetching over HTTP. Redirects are followed here, so that each is checked like the first address.

use std::io::Read;
use std::time::Duration;

use plugin_api::host::HttpPiece;
use plugin_api::{Error, Result};
use ureq::http::Uri;

pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("jackfield/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

/// `check` is asked for every host and port before it is contacted.
pub(super) fn get(
    agent: &ureq::Agent,
    url: &str,
    offset: u64,
    check: &dyn Fn(&str, u16) -> Result<()>,
    piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
) -> Result<()> {
    let mut address = Address::parse(url)?;
    for _ in 0..=REDIRECTS_MAX {
        check(&address.host, address.port)?;
        let mut request = agent.get(&address.url);
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|error| Error::outside(&address.url, error))?;
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        match location {
            Some(location) if response.status().is_redirection() => {
                address = address.follow(location)?;
            }
            _ => return hand_out(&address.url, response, piece),
        }
    }
    Err(Error::outside(url, format_args!("more than {REDIRECTS_MAX} redirects")))
}

fn hand_out(
    url: &str,
    response: ureq::http::Response<ureq::Body>,
    piece: &mut dyn FnMut(HttpPiece<'_>) -> Result<()>,
) -> Result<()> {
    let status = response.status().as_u16();
    let len = response.body().content_length();
    piece(HttpPiece::Start { status, len })?;
    let mut body = response.into_body().into_reader();
    let mut bytes = vec![0; PIECE_BYTES];
    let mut received = 0;
    loop {
        let count = body.read(&mut bytes).map_err(|error| {
            Error::outside(
                url,
                format_args!("the connection broke after {received} bytes: {error}"),
            )
        })?;
        if count == 0 {
            break;
        }
        received += count as u64;
        piece(HttpPiece::Bytes(&bytes[..count]))?;
    }
    match len {
        Some(len) if received < len => Err(Error::outside(
            url,
            format_args!("the connection ended after {received} of {len} bytes"),
        )),
        _ => Ok(()),
    }
}

/// A URL in the parts that matter here.
struct Address {
    url: String,
    scheme: String,
    host: String,
    port: u16,
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        let malformed =
            |found: &str| Error::malformed("URL", "http:// or https:// and a host", found);
        let uri: Uri = url.parse().map_err(|_| malformed(url))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_owned();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(malformed(url)),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| malformed(url))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok(Self { url: url.to_owned(), scheme, host, port })
    }

    /// The address that a redirect names, which may be relative.
    fn follow(&self, location: &str) -> Result<Self> {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let path = rest[authority.len()..].split(['?', '#']).next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = if location.contains("://") {
            location.to_owned()
        } else if let Some(other) = location.strip_prefix("//") {
            format!("{scheme}://{other}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            format!("{scheme}://{authority}{folder}/{location}")
        };
        let target = Self::parse(&target)?;
        if self.scheme == "https" && target.scheme != "https" {
            return Err(Error::outside(&self.url, format_args!("leads to unsafe {}", target.url)));
        }
        Ok(target)
    }
}

const REDIRECTS_MAX: usize = 10;
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_relative_and_absolute_redirects() {
        #[rustfmt::skip]
        let cases = [
            // location            leads to
            ("https://b.io/x",     "https://b.io/x"),
            ("//b.io/x",           "https://b.io/x"),
            ("/x?y=1",             "https://a.io/x?y=1"),
            ("x",                  "https://a.io/m/x"),
        ];
        for (location, expected) in cases {
            let address = Address::parse("https://a.io/m/file?q=a/b").unwrap();
            assert_eq!(address.follow(location).unwrap().url, expected);
        }
        let address = Address::parse("https://a.io").unwrap();
        assert_eq!(address.follow("x").unwrap().url, "https://a.io/x");
        assert!(address.follow("http://a.io/x").is_err(), "from https to http");
    }

    #[test]
    fn finds_the_host_that_is_really_contacted() {
        #[rustfmt::skip]
        let cases = [
            ("https://huggingface.co@evil.io/x", Some(("evil.io", 443))),
            ("http://127.0.0.1:8080/x",          Some(("127.0.0.1", 8080))),
            ("http://[::1]/x",                   Some(("::1", 80))),
            ("file:///etc/passwd",               None),
            ("huggingface.co/x",                 None),
        ];
        for (url, expected) in cases {
            let found = Address::parse(url).ok();
            let found = found.as_ref().map(|address| (address.host.as_str(), address.port));
            assert_eq!(found, expected, "{url}");
        }
    }
}
