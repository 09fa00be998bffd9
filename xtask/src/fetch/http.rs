//! The few lines of HTTP that a download needs: GET, a byte range, redirects.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_RANGE, LOCATION, RANGE, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::manifest::check_address;

const MOST_REDIRECTS: usize = 5;

/// Keeps connections open between requests; cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    patience: Duration,
}

impl HttpClient {
    /// Trusts the machine's certificate authorities; gives up on an answer after `patience`.
    pub fn new(patience: Duration) -> Result<Self> {
        let mut trusted = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        trusted.add_parsable_certificates(found.certs);
        if trusted.is_empty() {
            eprintln!(
                "no certificate authority is installed here, so https will fail \
                 (Debian's package is ca-certificates)"
            );
        }
        // ring rather than the default provider, which takes a C toolchain with cmake.
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            inner: Client::builder(TokioExecutor::new()).build(connector),
            patience,
        })
    }

    /// GETs `range` of `address`, following redirects. The answer's status is the caller's affair.
    pub async fn get_range(&self, address: &str, range: Range<u64>) -> Result<Response<Incoming>> {
        let mut address: Uri = address.parse()?;
        for _ in 0..=MOST_REDIRECTS {
            check_address(&address)?;
            let last = range.end - 1;
            let request = Request::get(&address)
                .header(USER_AGENT, "cargo-xtask-fetch")
                .header(RANGE, format!("bytes={}-{last}", range.start))
                .body(Empty::new())?;
            let answer = tokio::time::timeout(self.patience, self.inner.request(request))
                .await
                .map_err(|_| anyhow!("no answer in {} s", self.patience.as_secs_f32()))?
                .context("no connection")?;
            match redirect_target(&answer) {
                Some(target) => address = resolve(&address, target)?,
                None => return Ok(answer),
            }
        }
        bail!("more than {MOST_REDIRECTS} redirects")
    }
}

fn redirect_target<B>(answer: &Response<B>) -> Option<&str> {
    let redirects = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let target = answer.headers().get(LOCATION).filter(|_| redirects)?;
    target.to_str().ok()
}

/// A whole address, or a path on the same host.
fn resolve(base: &Uri, target: &str) -> Result<Uri> {
    let parsed: Uri = target.parse().context("redirected to no address")?;
    if parsed.scheme().is_some() {
        return Ok(parsed);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = parsed.path_and_query().cloned();
    Uri::from_parts(parts).context("redirected to no address")
}

/// What `Content-Range: bytes FIRST-LAST/TOTAL` says: FIRST and, unless it is `*`, TOTAL.
pub fn content_range<B>(answer: &Response<B>) -> Option<(u64, Option<u64>)> {
    let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = span.split_once('-')?;
    let total = match total {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    Some((first.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (text, expected) in [
            ("bytes 5-9/20", Some((5, Some(20)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */20", None),
            ("items 5-9/20", None),
            ("bytes 5-9/x", None),
        ] {
            let answer = Response::builder().header(CONTENT_RANGE, text).body(());
            assert_eq!(content_range(&answer.unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn redirects_resolve_against_the_host() {
        let base: Uri = "https://example.org:8443/a/b?c=d".parse().unwrap();
        for (target, expected) in [
            ("/x?y=z", "https://example.org:8443/x?y=z"),
            ("https://example.com/q", "https://example.com/q"),
        ] {
            assert_eq!(resolve(&base, target).unwrap().to_string(), expected);
        }
    }
}
