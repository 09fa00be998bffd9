//! What is asked of a server or store: how large an object is, and its bytes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper::StatusCode;
use hyper::body::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::client::HttpError;
use object_store::http::HttpBuilder;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};

use super::address::{Address, Origin};
use super::connector::{Connector, Refusal, Refused};
use super::failure::{Failure, Kind};
use super::settings::RemoteSettings;

/// All servers and stores that are asked.
pub(super) struct Objects {
    settings: RemoteSettings,
    stores: Mutex<BTreeMap<Origin, Arc<dyn ObjectStore>>>,
}

/// By which a changed object is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Bytes.
    pub(super) size: u64,
    /// The ETag, or else the time of the last change; empty if the server tells neither.
    pub(super) version: String,
}

impl From<&ObjectMeta> for Identity {
    fn from(meta: &ObjectMeta) -> Self {
        let changed = meta.last_modified.timestamp();
        let changed = (changed != 0).then(|| changed.to_string());
        Self {
            size: meta.size,
            version: meta.e_tag.clone().or(changed).unwrap_or_default(),
        }
    }
}

/// An object that is coming.
pub(super) struct Coming {
    pub(super) identity: Identity,
    /// The first byte that comes: 0 from servers without ranges.
    pub(super) first: u64,
    content: BoxStream<'static, object_store::Result<Bytes>>,
}

impl Coming {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.content.next().await.transpose().map_err(failure)
    }
}

impl Objects {
    pub(super) fn new(settings: &RemoteSettings) -> Self {
        Self {
            settings: settings.clone(),
            stores: Mutex::default(),
        }
    }

    /// What is known of an object without its bytes.
    pub(super) async fn head(&self, address: &Address) -> Result<Identity, Failure> {
        let store = self.store(&address.origin)?;
        let meta = store.head(&address.path).await;
        let meta = meta.map_err(|error| self.failure(error, &address.origin))?;
        Ok(Identity::from(&meta))
    }

    /// The bytes of an object from `first` on.
    pub(super) async fn get(&self, address: &Address, first: u64) -> Result<Coming, Failure> {
        let store = self.store(&address.origin)?;
        let options = |first: u64| GetOptions {
            range: (first > 0).then_some(GetRange::Offset(first)),
            ..GetOptions::default()
        };
        let answer = match store.get_opts(&address.path, options(first)).await {
            // The server does not know ranges.
            Err(object_store::Error::NotSupported { .. }) if first > 0 => {
                store.get_opts(&address.path, options(0)).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| self.failure(error, &address.origin))?;
        Ok(Coming {
            identity: Identity::from(&answer.meta),
            first: answer.range.start,
            content: answer.into_stream(),
        })
    }

    /// What an error means, for who asks.
    fn failure(&self, error: object_store::Error, origin: &Origin) -> Failure {
        let failure = failure(error);
        let mut variables = self.settings.s3.iter();
        let is_known =
            variables.any(|(name, _)| ["AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"].contains(&name));
        match origin {
            // Without a key, the machine itself is asked for one, which fails in many ways.
            Origin::Bucket(_) if !is_known && failure.hint.is_none() => failure.hint(WHO_ASKS),
            _ => failure,
        }
    }

    fn store(&self, origin: &Origin) -> Result<Arc<dyn ObjectStore>, Failure> {
        // The map is whole whenever the lock is free, even after a panic elsewhere.
        let mut stores = self.stores.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(store) = stores.get(origin) {
            return Ok(Arc::clone(store));
        }
        let store = self.open(origin)?;
        stores.insert(origin.clone(), Arc::clone(&store));
        Ok(store)
    }

    fn open(&self, origin: &Origin) -> Result<Arc<dyn ObjectStore>, Failure> {
        let connector = Connector {
            patience: self.settings.patience,
        };
        // Tries are counted in one place, where what has come is kept.
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        Ok(match origin {
            Origin::Web(address) => {
                let options = ClientOptions::new().with_allow_http(address.starts_with("http:"));
                let builder = HttpBuilder::new().with_url(address.as_str());
                let builder = builder.with_client_options(options).with_retry(retry);
                Arc::new(
                    builder
                        .with_http_connector(connector)
                        .build()
                        .map_err(failure)?,
                )
            }
            Origin::Bucket(bucket) => {
                let mut builder = AmazonS3Builder::new();
                for (name, value) in self.settings.s3.iter() {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_bucket_name(bucket).with_retry(retry);
                // The error of a wrong setting may repeat its value.
                let wrong = |_| {
                    let hint = "check AWS_ENDPOINT_URL, AWS_REGION and AWS's other variables";
                    Failure::lasting("the store's settings are wrong").hint(hint)
                };
                Arc::new(
                    builder
                        .with_http_connector(connector)
                        .build()
                        .map_err(wrong)?,
                )
            }
        })
    }
}

/// What an error means.
fn failure(error: object_store::Error) -> Failure {
    let mut cause: &(dyn Error + 'static) = &error;
    let mut of_transport = false;
    loop {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return refusal_means(refusal);
        }
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return Failure::lasting(refused.to_string());
        }
        of_transport |= cause.is::<HttpError>();
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    match of_transport {
        true => Failure::passing(format!("no whole answer: {cause}")),
        false => Failure::lasting(format!("an answer that cannot be used: {cause}")),
    }
}

const WHO_ASKS: &str = "for s3://, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if there is one), or \
                        AWS_SKIP_SIGNATURE=true for what everybody may read";

fn refusal_means(refusal: &Refusal) -> Failure {
    let kind = match refusal.status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Kind::Passing,
        status if status.is_server_error() => Kind::Passing,
        // Stores say of what does not exist that it is forbidden, unless one may list.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Kind::Absent,
        _ => Kind::Lasting,
    };
    let failure = Failure::new(kind, refusal.to_string());
    match (refusal.status, &refusal.region) {
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, _) => failure.hint(WHO_ASKS),
        (StatusCode::NOT_FOUND, _) => {
            failure.hint("check the address, and that all numbers of the pattern are there")
        }
        (_, Some(region)) => failure.hint(format!(
            "the bucket is in another region: set AWS_REGION={region}"
        )),
        _ => failure,
    }
}
