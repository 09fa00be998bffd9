//! Requests to the hub, and what its answers mean.

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use super::settings::HubSettings;

const MOST_REDIRECTS: usize = 5;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why something did not come from the hub.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may come when it is asked for again.
    Passing(String),
    /// It will not: the reason, and what can be done about it.
    Lasting(String, Option<&'static str>),
}

pub(super) fn lasting<T>(reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Lasting(reason.into(), None))
}

/// A cache folder that cannot be written will not be in the next second.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Lasting(error.to_string(), None)
    }
}

const ASK_FOR_ACCESS: &str = "ask for access on the data set's page, then log in with `huggingface-cli login` or set HF_TOKEN";

/// Keeps connections, and sends the token to the endpoint alone.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    authorization: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let found = rustls_native_certs::load_native_certs();
        let trusted = found.certs.iter();
        let trusted = trusted.map(|certificate| Certificate::from_der(certificate).to_owned());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(trusted.collect())))
            // ring rather than another provider, which takes cmake to build.
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Redirects lead to other hosts, which must not see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("eqco/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        Self {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            authorization: settings.token.as_ref().map(|token| token.header()),
        }
    }

    /// GETs a path of the endpoint from byte `first` on, following redirects to wherever files are.
    pub(super) fn get(&self, path: &str, first: u64) -> Result<Response<Body>, Failure> {
        let mut address = self.address(path);
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask("GET", &address, first)?;
            match redirect(&answer, &address)? {
                Some(target) => address = target,
                None => return checked(answer),
            }
        }
        lasting(format!("more than {MOST_REDIRECTS} redirects"))
    }

    /// What the endpoint itself says about a file; only redirects within it are followed.
    pub(super) fn head(&self, path: &str) -> Result<Response<Body>, Failure> {
        let mut address = self.address(path);
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask("HEAD", &address, 0)?;
            match redirect(&answer, &address)? {
                Some(target) if self.is_ours(&target) && !describes_file(&answer) => {
                    address = target
                }
                Some(_) => return Ok(answer),
                None => return checked(answer),
            }
        }
        lasting(format!("more than {MOST_REDIRECTS} redirects"))
    }

    fn address(&self, path: &str) -> String {
        format!("{}/{}", self.endpoint, path.replace(' ', "%20"))
    }

    fn is_ours(&self, address: &str) -> bool {
        let origin = |address: &str| {
            let address: Uri = address.parse().ok()?;
            let authority = address.authority()?.as_str().to_ascii_lowercase();
            Some((address.scheme_str()?.to_owned(), authority))
        };
        origin(address).is_some_and(|theirs| origin(&self.endpoint) == Some(theirs))
    }

    fn ask(&self, method: &str, address: &str, first: u64) -> Result<Response<Body>, Failure> {
        let mut request = match method {
            "HEAD" => self.agent.head(address),
            _ => self.agent.get(address),
        };
        request = request.header("Accept-Encoding", "identity");
        if first > 0 {
            request = request.header("Range", format!("bytes={first}-"));
        }
        if let Some(authorization) = self
            .authorization
            .as_ref()
            .filter(|_| self.is_ours(address))
        {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                let reason = "no web address: check HF_ENDPOINT and the proxy's variables";
                Failure::Lasting(reason.to_owned(), None)
            }
            error => Failure::Passing(format!("no answer: {error}")),
        })
    }
}

/// The address that an answer leads to. It may carry a signature, so that it stands in no message.
fn redirect(answer: &Response<Body>, from: &str) -> Result<Option<String>, Failure> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let nowhere = || Failure::Lasting("a redirect to no address".to_owned(), None);
    let target = header(answer, "location").ok_or_else(nowhere)?;
    if target.starts_with("http://") || target.starts_with("https://") {
        // What was asked for in secret is not sent in the open.
        if from.starts_with("https://") && target.starts_with("http://") {
            return lasting("a redirect from https to http");
        }
        return Ok(Some(target.to_owned()));
    }
    let base: Uri = from.parse().map_err(|_| nowhere())?;
    match (base.scheme_str(), base.authority()) {
        (Some(scheme), Some(authority)) if target.starts_with('/') && !target.starts_with("//") => {
            Ok(Some(format!("{scheme}://{authority}{target}")))
        }
        _ => Err(nowhere()),
    }
}

fn describes_file(answer: &Response<Body>) -> bool {
    header(answer, "x-linked-etag").is_some()
}

/// A header's text.
pub(super) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Passes on what succeeded, and says what an error means.
fn checked(answer: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let failure = |reason: &str, hint| Err(Failure::Lasting(format!("{reason} ({status})"), hint));
    match (status, header(&answer, "x-error-code")) {
        (StatusCode::UNAUTHORIZED, Some("RepoNotFound")) => failure(
            "there is no such data set, or it is private",
            Some(ASK_FOR_ACCESS),
        ),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            failure("access is refused", Some(ASK_FOR_ACCESS))
        }
        (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => failure(
            "the data set has no such revision",
            Some("give a branch, a tag or a commit behind @"),
        ),
        (StatusCode::NOT_FOUND, _) => failure("there is no such data set or file", None),
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => failure("another length than before", None),
        (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => {
            Err(Failure::Passing(format!("the server answered {status}")))
        }
        _ if status.is_server_error() => {
            Err(Failure::Passing(format!("the server answered {status}")))
        }
        _ => failure("the server refused", None),
    }
}
