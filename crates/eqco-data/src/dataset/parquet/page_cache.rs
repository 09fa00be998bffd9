//! Decoded pages, as many as a budget of memory allows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::values::DecodedPage;

/// A row group, and a page of it; `None` is its dictionary.
pub(super) type PageKey = (u32, Option<u32>);

/// Keeps the pages that were used last. Pages are never larger together than the budget.
#[derive(Debug)]
pub(super) struct PageCache {
    /// Bytes.
    pub(super) budget: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    pages: HashMap<PageKey, (Arc<DecodedPage>, u64)>,
    /// Keys in the order of their last use, which is numbered.
    by_use: BTreeMap<u64, PageKey>,
    uses: u64,
    bytes: usize,
}

impl PageCache {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            held: Mutex::default(),
        }
    }

    /// The page `key`, decoded by `decode` if it is not here. Threads that miss the same page decode it each.
    pub(super) fn get<E>(
        &self,
        key: PageKey,
        decode: impl FnOnce() -> Result<DecodedPage, E>,
    ) -> Result<Arc<DecodedPage>, E> {
        if let Some(page) = self.lock().find(key) {
            return Ok(page);
        }
        let page = Arc::new(decode()?);
        self.lock().keep(key, Arc::clone(&page), self.budget);
        Ok(page)
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing in there panics between two changes that belong together.
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Held {
    fn find(&mut self, key: PageKey) -> Option<Arc<DecodedPage>> {
        let (page, last) = self.pages.get_mut(&key)?;
        self.by_use.remove(last);
        self.uses += 1;
        *last = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(page))
    }

    fn keep(&mut self, key: PageKey, page: Arc<DecodedPage>, budget: usize) {
        let size = page.bytes();
        if size > budget || self.pages.contains_key(&key) {
            return;
        }
        while self.bytes + size > budget {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            let gone = self.pages.remove(&oldest);
            self.bytes -= gone.map_or(0, |(page, _)| page.bytes());
        }
        self.uses += 1;
        self.bytes += size;
        self.by_use.insert(self.uses, key);
        self.pages.insert(key, (page, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of `count` entries, 4 bytes each.
    fn page(count: usize) -> Result<DecodedPage, ()> {
        Ok(DecodedPage::Entries(vec![0; count]))
    }

    #[test]
    fn the_budget_is_kept_and_what_was_used_last_stays() {
        let cache = PageCache::new(100);
        for number in 0..2 {
            cache.get((number, None), || page(10)).unwrap();
        }
        assert_eq!(cache.bytes(), 80);
        // The first is used again, so that the second makes room for a third.
        cache.get((0, None), || Err("decoded again")).unwrap();
        cache.get((2, Some(0)), || page(12)).unwrap();
        assert_eq!(cache.bytes(), 88);
        cache.get((0, None), || Err("decoded again")).unwrap();
        assert_eq!(cache.get((1, None), || Err("gone")).unwrap_err(), "gone");
        // What is larger than all of it is given, not kept.
        assert_eq!(cache.get((3, None), || page(26)).unwrap().bytes(), 104);
        assert_eq!(cache.bytes(), 88);
        for number in 0..1000 {
            cache
                .get((number, Some(1)), || page(number as usize % 25))
                .unwrap();
            assert!(cache.bytes() <= 100);
        }
    }
}
