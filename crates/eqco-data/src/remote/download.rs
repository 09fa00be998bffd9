//! One shard from its store into the cache.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::address::Address;
use super::cache::{Begun, Held, Key, Part, ShardCache, cache_failure};
use super::failure::{Failure, Kind};
use super::objects::{Identity, Objects};
use super::settings::RemoteSettings;

/// A try that brings so many bytes does not count: a server that ends every connection after a while is a slow one.
const PROGRESS: u64 = 1 << 20;

/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often a shard that another program fetches is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A shard as it was when the data set was opened.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) address: Address,
    pub(super) identity: Identity,
    pub(super) key: Key,
}

/// Fetches shards.
#[derive(Clone)]
pub(super) struct Downloader {
    pub(super) objects: Arc<Objects>,
    pub(super) cache: ShardCache,
    pub(super) tries: u32,
    pub(super) first_pause: Duration,
    pub(super) patience: Duration,
}

/// What can be done about a shard at once.
pub(super) enum Attempt {
    /// It is here.
    Held(Held),
    /// It is to be completed.
    Begun(Part),
    /// Another program or data set fetches it.
    Elsewhere,
    /// The cache is full of shards that are in use.
    NoRoom,
}

impl Downloader {
    pub(super) fn new(settings: &RemoteSettings) -> Self {
        Self {
            objects: Arc::new(Objects::new(settings)),
            cache: ShardCache::new(&settings.cache, settings.cache_bytes),
            tries: settings.tries.max(1),
            first_pause: settings.first_pause,
            patience: settings.patience,
        }
    }

    /// The longest wait for another program, which has the same patience with servers.
    pub(super) fn patience_with_others(&self) -> Duration {
        (self.patience + LONGEST_PAUSE) * self.tries
    }

    /// Asks again where that may help, after longer and longer pauses.
    pub(super) async fn with_tries<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = Tries::new(self);
        loop {
            match attempt().await {
                Err(failure) => tries.after(failure, 0).await?,
                come => return come,
            }
        }
    }

    /// Looks for a shard in the cache, and makes room for it if it is not there.
    pub(super) fn attempt(&self, shard: &Shard) -> Result<Attempt, Failure> {
        if let Some(held) = self.held(shard)? {
            return Ok(Attempt::Held(held));
        }
        let begun = self.cache.begin(&shard.key);
        Ok(match begun.map_err(cache_failure("be written"))? {
            Begun::Part(part) => Attempt::Begun(part),
            Begun::Elsewhere => Attempt::Elsewhere,
            Begun::NoRoom => Attempt::NoRoom,
        })
    }

    /// A shard, if it is in the cache.
    pub(super) fn held(&self, shard: &Shard) -> Result<Option<Held>, Failure> {
        self.cache
            .hold(&shard.key)
            .map_err(cache_failure("be read"))
    }

    /// Waits until another program has fetched a shard, or has given it up.
    pub(super) async fn wait_for_others(&self, shard: &Shard) -> Result<Option<Held>, Failure> {
        let (mut come, mut since) = (0, Instant::now());
        loop {
            sleep(LOOK).await;
            match self.attempt(shard)? {
                Attempt::Held(held) => return Ok(Some(held)),
                Attempt::Elsewhere => (),
                Attempt::Begun(_) | Attempt::NoRoom => return Ok(None),
            }
            let now = self.cache.come(&shard.key);
            if now != come {
                (come, since) = (now, Instant::now());
            }
            if since.elapsed() > self.patience_with_others() {
                let reason = format!("another program fetches it, and has stopped at byte {come}");
                let hint =
                    "end that program, or give this one a cache of its own with EQCO_SHARD_CACHE";
                return Err(Failure::lasting(reason).hint(hint));
            }
        }
    }

    /// Fetches what a part lacks, and makes a shard of it.
    pub(super) async fn complete(&self, shard: &Shard, mut part: Part) -> Result<(), Failure> {
        self.fill(shard, &mut part).await?;
        let (cache, key) = (self.cache.clone(), shard.key.clone());
        let finished = spawn_blocking(move || cache.finish(&key, &part)).await;
        finished
            .map_err(|error| Failure::lasting(error.to_string()))?
            .map_err(cache_failure("be written"))
    }

    /// Asks until all bytes are there.
    async fn fill(&self, shard: &Shard, part: &mut Part) -> Result<(), Failure> {
        let size = shard.identity.size;
        let mut tries = Tries::new(self);
        while part.written < size {
            let mut brought = 0;
            if let Err(failure) = self.extend(shard, part, &mut brought).await {
                let place = format!("at byte {} of {size}", part.written);
                let reason = format!("{place}: {}", failure.reason);
                tries.after(Failure { reason, ..failure }, brought).await?;
            }
        }
        Ok(())
    }

    /// Appends what is missing, as far as it comes.
    async fn extend(
        &self,
        shard: &Shard,
        part: &mut Part,
        brought: &mut u64,
    ) -> Result<(), Failure> {
        let written = cache_failure("be written");
        let size = shard.identity.size;
        if shard.identity.version.is_empty() {
            // Nothing would tell that the rest is of another object.
            part.restart().map_err(&written)?;
        }
        let mut coming = self.objects.get(&shard.address, part.written).await?;
        if coming.identity != shard.identity {
            return Err(changed(&shard.identity, &coming.identity));
        }
        if coming.first == 0 {
            part.restart().map_err(&written)?;
        } else if coming.first != part.written {
            let reason = format!("bytes from {} on instead of {}", coming.first, part.written);
            return Err(Failure::lasting(reason));
        }
        while let Some(bytes) = coming.next().await? {
            if bytes.len() as u64 > size - part.written {
                return Err(Failure::lasting(format!(
                    "more than the {size} bytes that it has"
                )));
            }
            part.append(&bytes).map_err(&written)?;
            *brought += bytes.len() as u64;
        }
        match size - part.written {
            0 => Ok(()),
            missing => Err(Failure::passing(format!("{missing} bytes never came"))),
        }
    }
}

fn changed(expected: &Identity, found: &Identity) -> Failure {
    let shown = |identity: &Identity| match &identity.version[..] {
        "" => format!("{} bytes", identity.size),
        version => format!("{} bytes of version {version}", identity.size),
    };
    let reason = format!(
        "the object has changed: expected {}, found {}",
        shown(expected),
        shown(found)
    );
    Failure::lasting(reason)
        .hint("start anew once all shards are as they should be: shards do not change under a run")
}

/// How often something was tried without getting on.
struct Tries {
    most: u32,
    count: u32,
    first_pause: Duration,
    pause: Duration,
}

impl Tries {
    fn new(downloader: &Downloader) -> Self {
        let (most, first_pause) = (downloader.tries, downloader.first_pause);
        Self {
            most,
            count: 0,
            first_pause,
            pause: first_pause,
        }
    }

    /// Waits before the next try, or ends with the reason.
    async fn after(&mut self, failure: Failure, brought: u64) -> Result<(), Failure> {
        if failure.kind != Kind::Passing {
            return Err(failure);
        }
        if brought >= PROGRESS {
            (self.count, self.pause) = (0, self.first_pause);
        }
        self.count += 1;
        if self.count >= self.most {
            let reason = format!("{}; gave up after {} tries", failure.reason, self.count);
            let hint = "check that the server can be reached and is not overloaded; what has come is kept, and the next run \
                        goes on with it";
            return Err(Failure::lasting(reason).hint(failure.hint.unwrap_or(hint.to_owned())));
        }
        tracing::debug!(
            "{}; try {} of {}",
            failure.reason,
            self.count + 1,
            self.most
        );
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
