//! The shards that are at hand, and those that are fetched next.
//!
//! Whoever waits for a shard comes first, then what readers have announced, in its order, as far as the cache has room. Shards
//! stay for as long as they are wanted; others make room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::cache::Held;
use super::download::{Downloader, Fetched, Shard};
use super::failure::Failure;
use super::network::Network;
use crate::dataset::ReadAhead;

/// So many shards are fetched ahead at a time, which is enough to fill a line.
const MOST_AHEAD: usize = 4;

/// So many more for those who wait: they must not wait for a slow one that nobody needs yet.
const MOST_DEMANDED: usize = 4;

/// So many shards stay open though nobody has announced them, for readers that jump about.
const MOST_IDLE: usize = 32;

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
    /// By the shard's number.
    held: BTreeMap<usize, Open>,
    /// Shards that are being fetched, and whether somebody waited when it was begun.
    fetching: BTreeMap<usize, bool>,
    /// Those who wait for a shard.
    waiting: BTreeMap<usize, Vec<mpsc::SyncSender<Outcome>>>,
    /// Shards that could not be fetched ahead: they are tried again when somebody waits for them.
    failed: Vec<usize>,
    /// Whether the cache had no room when something was to be fetched ahead.
    full: bool,
    uses: u64,
}

struct Open {
    held: Arc<Held>,
    used: u64,
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
        let ahead = ReadAhead::new(most as usize, move |forsaken| {
            if let Some(shared) = told.upgrade() {
                shared.forsake(forsaken);
            }
        });
        network.handle().spawn(drive(Arc::clone(&shared), Arc::clone(&ahead)));
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

    /// Shard `number`, which must be one; waits until it is there.
    pub(super) fn get(&self, number: usize) -> Outcome {
        let (send, receive) = mpsc::sync_channel(1);
        {
            let mut state = self.shared.lock();
            if let Some(held) = state.touch(number) {
                return Ok(held);
            }
            state.waiting.entry(number).or_default().push(send);
        }
        self.shared.wake.notify_one();
        let ended = |_| Failure::lasting("the thread for transfers has ended");
        receive.recv().map_err(ended)?
    }
}

/// Begins transfers whenever something has changed.
async fn drive(shared: Arc<Shared>, ahead: Arc<ReadAhead>) {
    loop {
        let wanted = wanted_of(&ahead);
        while let Some(number) = shared.next(&wanted) {
            tokio::spawn(fetch(Arc::clone(&shared), Arc::clone(&ahead), number));
        }
        shared.wake.notified().await;
    }
}

fn wanted_of(ahead: &ReadAhead) -> Vec<usize> {
    ahead.wanted().into_iter().map(|shard| shard as usize).collect()
}

/// When a shard is tried again for which the cache had no room.
enum NextTry {
    /// Another one has been given up.
    AtOnce,
    /// Others that are in use may go.
    Later,
    /// Nobody waits for it: it is not being fetched any more.
    Never,
}

/// Fetches one shard and gives it to all who wait.
async fn fetch(shared: Arc<Shared>, ahead: Arc<ReadAhead>, number: usize) {
    let since = Instant::now();
    let outcome = loop {
        match shared.downloader.bring(&shared.shards[number]).await {
            Ok(Fetched::Held(held)) => break Ok(Arc::new(held)),
            Err(failure) => break Err(failure),
            Ok(Fetched::NoRoom) => (),
        }
        match shared.without_room(number, &wanted_of(&ahead)) {
            NextTry::AtOnce => (),
            NextTry::Never => return,
            NextTry::Later if since.elapsed() > shared.downloader.patience_with_others() => {
                break Err(shared.no_room());
            }
            NextTry::Later => sleep(LOOK).await,
        }
    };
    shared.finish(number, outcome);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in there is whole whenever the lock is free, even after a panic elsewhere.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The shard to begin with next, which then counts as being fetched.
    fn next(&self, wanted: &[usize]) -> Option<usize> {
        let mut state = self.lock();
        state.close_idle(wanted);
        let of_those_who_wait = state.fetching.values().filter(|demanded| **demanded).count();
        let ahead = state.fetching.len() - of_those_who_wait;
        let is_new = |number: &usize| !state.held.contains_key(number) && !state.fetching.contains_key(number);
        let awaited = state.waiting.keys().copied().find(|number| is_new(number));
        let (number, demanded) = match awaited.filter(|_| of_those_who_wait < MOST_DEMANDED) {
            Some(number) => (number, true),
            None if ahead >= MOST_AHEAD || state.full => return None,
            None => {
                let can_come = |number: &usize| is_new(number) && !state.failed.contains(number);
                (wanted.iter().copied().find(can_come)?, false)
            }
        };
        state.fetching.insert(number, demanded);
        Some(number)
    }

    fn without_room(&self, number: usize, wanted: &[usize]) -> NextTry {
        let mut state = self.lock();
        let awaited = state.waiting.contains_key(&number);
        if state.release(wanted, awaited) {
            return NextTry::AtOnce;
        }
        if awaited {
            return NextTry::Later;
        }
        state.fetching.remove(&number);
        state.full = true;
        NextTry::Never
    }

    fn finish(&self, number: usize, outcome: Outcome) {
        let mut state = self.lock();
        state.fetching.remove(&number);
        state.failed.retain(|&failed| failed != number);
        let waiting = state.waiting.remove(&number).unwrap_or_default();
        match &outcome {
            Ok(held) => {
                let held = Arc::clone(held);
                let used = state.next_use();
                state.held.insert(number, Open { held, used });
            }
            Err(failure) if waiting.is_empty() => {
                let address = &self.shards[number].address.text;
                tracing::warn!("{address} could not be fetched ahead: {}", failure.reason);
                state.failed.push(number);
            }
            Err(_) => (),
        }
        state.full = false;
        drop(state);
        for send in waiting {
            // Whoever has waited may be gone.
            let _ = send.send(outcome.clone());
        }
        self.wake.notify_one();
    }

    /// Lets those go who wait for shards that no reader will come to.
    fn forsake(&self, forsaken: &[u32]) {
        let mut state = self.lock();
        state.full = false;
        let waiting: Vec<_> = forsaken
            .iter()
            .filter_map(|number| state.waiting.remove(&(*number as usize)))
            .collect();
        drop(state);
        for send in waiting.into_iter().flatten() {
            let _ = send.send(Err(Failure::lasting("its reader has ended")));
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
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn touch(&mut self, number: usize) -> Option<Arc<Held>> {
        let used = self.next_use();
        let open = self.held.get_mut(&number)?;
        open.used = used;
        Some(Arc::clone(&open.held))
    }

    /// Shards that nobody has announced, those first that were not used for longest.
    fn idle(&self, wanted: &[usize]) -> Vec<usize> {
        let idle = self.held.iter().filter(|(number, _)| !wanted.contains(number));
        let mut idle: Vec<_> = idle.map(|(number, open)| (open.used, *number)).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, number)| number).collect()
    }

    fn close_idle(&mut self, wanted: &[usize]) {
        let idle = self.idle(wanted);
        for number in &idle[..idle.len().saturating_sub(MOST_IDLE)] {
            self.held.remove(number);
        }
    }

    /// Gives up a shard, so that its room can be used: one that nobody has announced, or, for somebody who waits, the one that
    /// will be read last. Whether there was one.
    fn release(&mut self, wanted: &[usize], awaited: bool) -> bool {
        let last_wanted = || {
            let mut last = wanted.iter().rev();
            last.find(|number| self.held.contains_key(number)).copied()
        };
        let idle = self.idle(wanted).first().copied();
        let released = idle.or_else(|| last_wanted().filter(|_| awaited));
        released.is_some_and(|number| self.held.remove(&number).is_some())
    }
}
