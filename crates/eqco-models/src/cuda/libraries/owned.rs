//! What the libraries hand out, given back at the end.

/// A handle or a descriptor.
pub(super) struct Owned<T: Copy> {
    raw: T,
    give_back: fn(T),
}

impl<T: Copy> Owned<T> {
    /// `give_back` is called once, with `raw`.
    pub(super) fn new(raw: T, give_back: fn(T)) -> Self {
        Self { raw, give_back }
    }

    /// Valid as long as this is.
    pub(super) fn raw(&self) -> T {
        self.raw
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        (self.give_back)(self.raw);
    }
}
