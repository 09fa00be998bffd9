//! The shards that are at hand, and those that are fetched next.
//!
//! Whoever waits for a shard comes first, then what readers have announced, in its order, as far as the cache has room. A shard
//! is kept at hand for as long as it is announced or somebody reads from it; all others make room, for other programs, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak, mpsc};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::cache::{Held, Part};
use super::download::{Attempt, Downloader, Shard};
use super::failure::Failure;
use super::network::Network;
use crate::dataset::{ReadAhead, Reader};

/// So many shards are fetched ahead at a time, which is enough to fill a line.
const MOST_AHEAD: usize = 4;

/// So many more for those who wait: they must not wait for a slow one that nobody needs yet.
const MOST_DEMANDED: usize = 4;

/// How often a full cache is looked at again for somebody who waits.
const LOOK: Duration = Duration::from_millis(50);

/// Brings shards to hand, ahead of time where it can.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    ahead: Arc<ReadAhead>,
    network: Network,
}

struct Shared {
    shards: Vec<Shard>,
    downloader: Downloader,
    state: Mutex<State>,
    /// Something has changed.
    wake: Notify,
}

type Outcome = Result<Arc<Held>, Failure>;

#[derive(Default)]
struct State {
    /// Shards that are at hand.
    open: BTreeMap<usize, Open>,
    /// Shards that are being fetched, and whether somebody waited when it was begun.
    fetching: BTreeMap<usize, bool>,
    /// Those who wait for a shard.
    waiting: BTreeMap<usize, Vec<Waiting>>,
    /// Shards that could not be fetched ahead: they are tried again when somebody waits for them.
    failed: Vec<usize>,
    /// Since when somebody waits for room.
    starving: Option<Instant>,
}

struct Waiting {
    /// For whom, if it is a reader that may go.
    reader: Option<Reader>,
    send: mpsc::SyncSender<Outcome>,
}

struct Open {
    /// Until nobody announces it any more.
    kept: Option<Arc<Held>>,
    /// For as long as somebody reads from it.
    read: Weak<Held>,
}

impl Fetcher {
    pub(super) fn new(shards: Vec<Shard>, downloader: Downloader, network: Network) -> Self {
        let largest = shards.iter().map(|shard| shard.identity.size).max();
        let most = downloader.cache.budget() / largest.unwrap_or(1).max(1);
        let shared = Arc::new(Shared {
            shards,
            downloader,
            state: Mutex::default(),
            wake: Notify::new(),
        });
        let told = Arc::downgrade(&shared);
        let ahead = ReadAhead::new(most as usize, move |gone| {
            if let Some(shared) = told.upgrade() {
                shared.announced(gone);
            }
        });
        network
            .handle()
            .spawn(drive(Arc::clone(&shared), Arc::clone(&ahead)));
        Self {
            shared,
            ahead,
            network,
        }
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shared.shards
    }

    pub(super) fn downloader(&self) -> &Downloader {
        &self.shared.downloader
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Where readers say what they will read.
    pub(super) fn ahead(&self) -> &Arc<ReadAhead> {
        &self.ahead
    }

    /// Shard `number`, which must be one; waits until it is there, or the reader for whom this thread works is gone.
    pub(super) fn get(&self, number: usize) -> Outcome {
        let (send, receive) = mpsc::sync_channel(1);
        let reader = Reader::current();
        {
            let mut state = self.shared.lock();
            // Whoever goes from now on has to wait for the lock before those are let go who wait for it.
            if reader.is_some_and(|reader| self.ahead.is_gone(reader)) {
                return Err(reader_gone());
            }
            if let Some(held) = state.at_hand(number) {
                return Ok(held);
            }
            let waiting = state.waiting.entry(number).or_default();
            waiting.push(Waiting { reader, send });
        }
        self.shared.wake.notify_one();
        let ended = |_| Failure::lasting("the thread for transfers has ended");
        receive.recv().map_err(ended)?
    }
}

/// Begins transfers whenever something has changed.
async fn drive(shared: Arc<Shared>, ahead: Arc<ReadAhead>) {
    loop {
        let starving = shared.begin(&wanted_of(&ahead));
        let changed = shared.wake.notified();
        match starving {
            // Programs that make room do not say so.
            true => drop(timeout(LOOK, changed).await),
            false => changed.await,
        }
    }
}

fn wanted_of(ahead: &ReadAhead) -> Vec<usize> {
    ahead
        .wanted()
        .into_iter()
        .map(|shard| shard as usize)
        .collect()
}

fn reader_gone() -> Failure {
    Failure::lasting("nobody reads it any more")
}

/// Fetches one shard, or waits until another program has, and gives it to all who wait.
async fn fetch(shared: Arc<Shared>, number: usize, part: Option<Part>) {
    let (shard, downloader) = (&shared.shards[number], &shared.downloader);
    let fetched = match part {
        Some(part) => downloader
            .complete(shard, part)
            .await
            .and_then(|()| downloader.held(shard)),
        None => downloader.wait_for_others(shard).await,
    };
    match fetched.transpose() {
        Some(fetched) => shared.finish(number, fetched.map(Arc::new)),
        // It has gone again, or is ours to fetch now.
        None => {
            shared.lock().fetching.remove(&number);
            shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in there is whole whenever the lock is free, even after a panic elsewhere.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Begins what can be begun; whether somebody waits for room in the cache.
    fn begin(self: &Arc<Self>, wanted: &[usize]) -> bool {
        let mut starving = Vec::new();
        while let Some((number, demanded)) = self.next(wanted, &starving) {
            let part = match self.downloader.attempt(&self.shards[number]) {
                Ok(Attempt::Held(held)) => {
                    self.finish(number, Ok(Arc::new(held)));
                    continue;
                }
                Err(failure) => {
                    self.finish(number, Err(failure));
                    continue;
                }
                Ok(Attempt::Begun(part)) => Some(part),
                Ok(Attempt::Elsewhere) => None,
                // What comes later in the lists must not take the room of what is needed first.
                Ok(Attempt::NoRoom) if !demanded => break,
                Ok(Attempt::NoRoom) => {
                    if self.without_room(number, wanted) {
                        starving.push(number);
                    }
                    continue;
                }
            };
            let mut state = self.lock();
            state.fetching.insert(number, demanded);
            state.starving = None;
            tokio::spawn(fetch(Arc::clone(self), number, part));
        }
        !starving.is_empty()
    }

    /// The shard to begin with next, and whether somebody waits for it. Nothing is fetched ahead while others starve.
    fn next(&self, wanted: &[usize], starving: &[usize]) -> Option<(usize, bool)> {
        let mut state = self.lock();
        state.let_go(wanted);
        let demanded = state
            .fetching
            .values()
            .filter(|demanded| **demanded)
            .count();
        let ahead = state.fetching.len() - demanded;
        let is_new = |number: &usize| {
            !state.open.contains_key(number) && !state.fetching.contains_key(number)
        };
        let mut awaited = state.waiting.keys().copied();
        let awaited = awaited.find(|number| is_new(number) && !starving.contains(number));
        match awaited.filter(|_| demanded < MOST_DEMANDED) {
            Some(number) => Some((number, true)),
            None if ahead >= MOST_AHEAD || !starving.is_empty() => None,
            None => {
                let can_come = |number: &usize| is_new(number) && !state.failed.contains(number);
                Some((wanted.iter().copied().find(can_come)?, false))
            }
        }
    }

    /// Makes room for a shard that somebody waits for; whether others that are in use have to go first.
    fn without_room(&self, number: usize, wanted: &[usize]) -> bool {
        let mut state = self.lock();
        if state.release_last(wanted) {
            return false;
        }
        let since = *state.starving.get_or_insert_with(Instant::now);
        drop(state);
        let in_time = since.elapsed() < self.downloader.patience_with_others();
        if !in_time {
            self.finish(number, Err(self.no_room()));
        }
        in_time
    }

    fn finish(&self, number: usize, outcome: Outcome) {
        let mut state = self.lock();
        state.fetching.remove(&number);
        state.failed.retain(|&failed| failed != number);
        let waiting = state.waiting.remove(&number).unwrap_or_default();
        match &outcome {
            Ok(held) => {
                let read = Arc::downgrade(held);
                let kept = Some(Arc::clone(held));
                state.open.insert(number, Open { kept, read });
            }
            Err(failure) if waiting.is_empty() => {
                let address = &self.shards[number].address.text;
                tracing::warn!("{address} could not be fetched ahead: {}", failure.reason);
                state.failed.push(number);
            }
            Err(_) => (),
        }
        drop(state);
        for waiting in waiting {
            // Whoever has waited may have panicked.
            let _ = waiting.send.send(outcome.clone());
        }
        self.wake.notify_one();
    }

    /// Looks at what readers have announced, and lets those go who wait for one that is gone.
    fn announced(&self, gone: Option<Reader>) {
        let mut state = self.lock();
        let let_go = |waiting: &mut Vec<Waiting>| {
            let gone = waiting.extract_if(.., |waiting| gone.is_some() && waiting.reader == gone);
            gone.collect::<Vec<_>>()
        };
        let let_go: Vec<_> = state.waiting.values_mut().flat_map(let_go).collect();
        state.waiting.retain(|_, waiting| !waiting.is_empty());
        drop(state);
        for waiting in let_go {
            // Whoever has waited may have panicked.
            let _ = waiting.send.send(Err(reader_gone()));
        }
        self.wake.notify_one();
    }

    fn no_room(&self) -> Failure {
        let cache = &self.downloader.cache;
        let reason = format!(
            "the cache {} is full of shards that are in use: it has room for {} bytes",
            cache.folder().display(),
            cache.budget()
        );
        Failure::lasting(reason).hint("give it more room with EQCO_SHARD_CACHE_GIB, or this run one of its own with EQCO_SHARD_CACHE")
    }
}

impl State {
    fn at_hand(&self, number: usize) -> Option<Arc<Held>> {
        self.open.get(&number)?.read.upgrade()
    }

    /// Keeps what is announced alone.
    fn let_go(&mut self, wanted: &[usize]) {
        self.open.retain(|number, open| {
            open.kept = open.read.upgrade().filter(|_| wanted.contains(number));
            open.read.strong_count() > 0
        });
    }

    /// Gives up the shard that will be read last, so that somebody who waits can use its room. Whether there was one.
    fn release_last(&mut self, wanted: &[usize]) -> bool {
        let mut last = wanted.iter().rev();
        last.any(|number| {
            let open = self.open.get_mut(number);
            open.is_some_and(|open| open.kept.take().is_some())
        })
    }
}
