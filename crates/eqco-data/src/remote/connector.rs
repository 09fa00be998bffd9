//! HTTP for `object_store`, over the same `hyper` and TLS that the rest of the workspace builds.
//!
//! The crate's own connector is `reqwest` with another TLS provider, which would take as long to build as all of `object_store`.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect};
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, Sleep, sleep, timeout};

const MOST_REDIRECTS: usize = 5;

/// So much of an error's text is looked through for its code.
const MOST_ERROR_BYTES: usize = 16 << 10;

/// The longest that a connection may take to come about: a host that does not answer will not later.
const MOST_CONNECT: Duration = Duration::from_secs(10);

/// Where machines in clouds ask for their credentials.
const KEYS_OF_MACHINES: &str = "169.254.169.254";

/// Makes clients that wait so long for a silent server.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) patience: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // ring rather than another provider, which takes cmake to build.
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| object_store::Error::Generic {
                store: "TLS",
                source: error.into(),
            })?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let mut http = connect::HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.patience.min(MOST_CONNECT)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let https = https.enable_http1().wrap_connector(http);
        Ok(HttpClient::new(Service {
            client: Client::builder(TokioExecutor::new()).build(https),
            allows_http: allows_http.as_deref() == Some("true"),
            patience: self.patience,
        }))
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What a store calls the error, a word without secrets: the text around it may hold parts of the request.
    pub(super) code: Option<String>,
    /// The region of the bucket, where a store says that it is another.
    pub(super) region: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        self.code.iter().try_for_each(|code| write!(f, ", {code}"))
    }
}

impl Error for Refusal {}

/// Something that was not done, in our own words.
#[derive(Debug)]
pub(super) struct Refused(pub(super) &'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Refused {}

/// A server was silent.
#[derive(Debug)]
struct Silence(Duration);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing came for {} s", self.0.as_secs_f32())
    }
}

impl Error for Silence {}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<connect::HttpConnector>, HttpRequestBody>,
    allows_http: bool,
    patience: Duration,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = concat!("eqco/", env!("CARGO_PKG_VERSION"));
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.ask(request.clone()).await?;
            if answer.status().is_success() {
                let patient = |body| HttpResponseBody::new(Patient::new(body, self.patience));
                return Ok(answer.map(patient));
            }
            match redirect(&request, &answer)? {
                Some(target) => *request.uri_mut() = target,
                None => return Err(self.refusal(answer).await),
            }
        }
        Err(refused("more than 5 redirects"))
    }
}

impl Service {
    async fn ask(&self, request: HttpRequest) -> Result<Response<Incoming>, HttpError> {
        if !self.allows_http && request.uri().scheme_str() != Some("https") {
            return Err(refused(
                "requests without TLS, which AWS_ALLOW_HTTP=true would allow",
            ));
        }
        let asks_for_a_key = request.uri().host() == Some(KEYS_OF_MACHINES);
        let answer = timeout(self.patience, self.client.request(request)).await;
        let answer = answer.map_err(|_| self.silence())?;
        answer.map_err(|error| match error.is_connect() {
            // Elsewhere than in a cloud, nobody is there and will be.
            true if asks_for_a_key => {
                refused("no key for s3:// is set, and this machine has none of its own")
            }
            true => HttpError::new(HttpErrorKind::Connect, error),
            false => HttpError::new(HttpErrorKind::Request, error),
        })
    }

    fn silence(&self) -> HttpError {
        HttpError::new(HttpErrorKind::Timeout, Silence(self.patience))
    }

    /// An error of our own, since what stores write about errors may repeat who asked.
    async fn refusal(&self, answer: Response<Incoming>) -> HttpError {
        let word = |text: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_word = (1..=64).contains(&text.len()) && text.chars().all(is_plain);
            is_word.then(|| text.to_owned())
        };
        let region = answer.headers().get("x-amz-bucket-region");
        let region = region.and_then(|region| word(region.to_str().ok()?));
        let status = answer.status();
        let text = Limited::new(answer.into_body(), MOST_ERROR_BYTES).collect();
        let text = timeout(self.patience, text).await.ok().and_then(Result::ok);
        let code = text.and_then(|text| {
            let text = text.to_bytes();
            let text = String::from_utf8_lossy(&text);
            word(text.split_once("<Code>")?.1.split_once("</Code>")?.0)
        });
        let refusal = Refusal {
            status,
            code,
            region,
        };
        HttpError::new(HttpErrorKind::Unknown, refusal)
    }
}

fn refused(what: &'static str) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Refused(what))
}

/// Where an answer leads, for a request that holds no signature, which would be of another host.
fn redirect<B>(request: &HttpRequest, answer: &Response<B>) -> Result<Option<Uri>, HttpError> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let redirects = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !reads || !redirects || request.headers().contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let nowhere = || refused("a redirect to no address");
    let target = answer
        .headers()
        .get(LOCATION)
        .and_then(|target| target.to_str().ok());
    let target: Uri = target
        .and_then(|target| target.parse().ok())
        .ok_or_else(nowhere)?;
    let from = request.uri();
    match target.scheme_str() {
        // What was asked for in secret is not sent in the open.
        Some("http") if from.scheme_str() == Some("https") => {
            Err(refused("a redirect from https to http"))
        }
        Some("http" | "https") => Ok(Some(target)),
        Some(_) => Err(nowhere()),
        None => {
            let mut parts = from.clone().into_parts();
            parts.path_and_query = target.path_and_query().cloned();
            Uri::from_parts(parts).map(Some).map_err(|_| nowhere())
        }
    }
}

/// A body of which no part may take longer than `patience`.
struct Patient {
    inner: Incoming,
    patience: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(inner: Incoming, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            alarm: Box::pin(sleep(patience)),
        }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let patience = self.patience;
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.alarm.as_mut().reset(Instant::now() + patience);
            let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        self.alarm.as_mut().poll(context).map(|()| {
            let silence = HttpError::new(HttpErrorKind::Timeout, Silence(patience));
            Some(Err(silence))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
