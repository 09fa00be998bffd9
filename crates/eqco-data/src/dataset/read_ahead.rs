//! What will be read next, for data sets that have to fetch it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Dataset;

/// The images of a data set that lie together, in the order of their numbers, where it matters that few such shards are read
/// at a time.
#[derive(Clone, Debug)]
pub struct Shards {
    /// Consecutive images of one shard each; together they are all images.
    pub runs: Vec<Run>,
    /// Where the data set is told what will be read, if it fetches.
    pub ahead: Option<Arc<ReadAhead>>,
}

/// Consecutive images of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The shard by its number.
    pub shard: u32,
    /// How many images, at least one.
    pub images: u32,
}

/// The list of shards that readers of a data set are going to read. Several readers may read at a time.
pub struct ReadAhead {
    /// The most shards that can be at hand at a time.
    most: usize,
    readers: Mutex<Readers>,
    changed: Box<dyn Fn(Option<Reader>) + Send + Sync>,
}

/// A reader by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Where its list is: numbers are those of one data set.
    ahead: usize,
    number: u64,
}

thread_local! {
    /// For whom a thread works.
    static CURRENT: Cell<Option<Reader>> = const { Cell::new(None) };
}

impl Reader {
    /// Lets this thread work for the reader from now on, so that it does not wait when the reader is gone.
    pub fn enter(self) {
        CURRENT.set(Some(self));
    }

    /// The one that this thread works for.
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }
}

#[derive(Default)]
struct Readers {
    next: u64,
    lists: BTreeMap<u64, List>,
}

struct List {
    shards: Vec<u32>,
    done: usize,
    depth: usize,
}

impl List {
    fn left(&self) -> &[u32] {
        &self.shards[self.done.min(self.shards.len())..]
    }
}

impl ReadAhead {
    /// For a data set that can have `most` shards at hand. `changed` is called when a list has changed, with the reader if one
    /// has gone: its threads, which may still wait for a shard, have to be let go.
    pub fn new(most: usize, changed: impl Fn(Option<Reader>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            most,
            readers: Mutex::default(),
            changed: Box::new(changed),
        })
    }

    /// The most shards that can be at hand at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Adds a reader that will read these shards, first to last, and wants up to `depth` of them fetched.
    pub fn begin(self: &Arc<Self>, shards: Vec<u32>, depth: usize) -> Reading {
        let mut readers = self.lock();
        let number = readers.next;
        readers.next += 1;
        let done = 0;
        let list = List {
            shards,
            done,
            depth,
        };
        readers.lists.insert(number, list);
        drop(readers);
        (self.changed)(None);
        Reading {
            ahead: Arc::clone(self),
            number,
        }
    }

    /// Whether a reader of this data set has gone.
    pub fn is_gone(&self, reader: Reader) -> bool {
        reader.ahead == self.address() && !self.lock().lists.contains_key(&reader.number)
    }

    /// Tells this data set's readers from those of others.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The shards to have at hand, the most urgent first: the first ones of every reader in turns.
    pub fn wanted(&self) -> Vec<u32> {
        let readers = self.lock();
        let lists: Vec<&[u32]> = readers
            .lists
            .values()
            .map(|list| &list.left()[..list.left().len().min(list.depth)])
            .collect();
        let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let mut wanted = Vec::new();
        for place in 0..longest {
            for shard in lists.iter().filter_map(|list| list.get(place)) {
                if !wanted.contains(shard) {
                    wanted.push(*shard);
                }
            }
        }
        wanted
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        // The lists are whole whenever the lock is free, even after a panic elsewhere.
        self.readers.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for ReadAhead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ReadAhead")
            .field("most", &self.most)
            .field("wanted", &self.wanted())
            .finish_non_exhaustive()
    }
}

/// A reader of a data set, until it is dropped.
#[derive(Debug)]
pub struct Reading {
    ahead: Arc<ReadAhead>,
    number: u64,
}

impl Reading {
    /// Its number.
    pub fn reader(&self) -> Reader {
        Reader {
            ahead: self.ahead.address(),
            number: self.number,
        }
    }

    /// Says that the first `done` shards of the list have been read.
    pub fn advance(&self, done: usize) {
        let mut readers = self.ahead.lock();
        let list = readers.lists.get_mut(&self.number);
        let Some(list) = list.filter(|list| list.done < done) else {
            return;
        };
        list.done = done;
        drop(readers);
        (self.ahead.changed)(None);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.ahead.lock().lists.remove(&self.number);
        (self.ahead.changed)(Some(self.reader()));
    }
}

/// A reader that takes all images of a data set in the order of their numbers. It does nothing where nothing has to be fetched.
#[derive(Debug)]
pub struct ReadingInOrder {
    reading: Option<Reading>,
    /// The number of images up to the end of each shard.
    ends: Vec<usize>,
}

impl ReadingInOrder {
    /// Has the first shards fetched.
    pub fn begin(dataset: &dyn Dataset) -> Self {
        let shards = dataset.shards();
        let Some((runs, ahead)) = shards.and_then(|shards| Some((shards.runs, shards.ahead?)))
        else {
            let (reading, ends) = (None, Vec::new());
            return Self { reading, ends };
        };
        let ends = runs.iter().scan(0, |end, run| {
            *end += run.images as usize;
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            reading: Some(ahead.begin(runs.iter().map(|run| run.shard).collect(), 4)),
        }
    }

    /// Says that the first `images` have been read.
    pub fn advance(&self, images: usize) {
        if let Some(reading) = &self.reading {
            reading.advance(self.ends.partition_point(|&end| end <= images));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_turns_and_go() {
        let gone: Arc<Mutex<Vec<Reader>>> = Arc::default();
        let log = Arc::clone(&gone);
        let ahead = ReadAhead::new(9, move |reader| log.lock().unwrap().extend(reader));
        let first = ahead.begin(vec![4, 2, 0, 1, 3], 3);
        assert_eq!(ahead.wanted(), [4, 2, 0]);
        let second = ahead.begin(vec![2, 3, 4], 2);
        assert_eq!(ahead.wanted(), [4, 2, 3, 0]);
        first.advance(2);
        first.advance(1);
        assert_eq!(ahead.wanted(), [0, 2, 1, 3]);
        first.advance(7);
        assert_eq!(ahead.wanted(), [2, 3]);
        let reader = second.reader();
        let is_gone = |ahead: &ReadAhead| ahead.is_gone(reader);
        assert!(!is_gone(&ahead));
        drop(second);
        assert!(is_gone(&ahead) && ahead.wanted().is_empty());
        assert_eq!(*gone.lock().unwrap(), [reader]);
        assert!(
            !is_gone(&ReadAhead::new(9, |_| ())),
            "another data set's reader"
        );
        reader.enter();
        assert_eq!(Reader::current(), Some(reader));
    }
}
