//! Why something did not come.

use std::io;

/// A reason, and what can be done about it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may come when it is asked for again.
    Passing,
    /// There is nothing of this name, or nothing that one may see.
    Absent,
    /// It will not come.
    Lasting,
}

impl Failure {
    pub(super) fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            hint: None,
        }
    }

    pub(super) fn lasting(reason: impl Into<String>) -> Self {
        Self::new(Kind::Lasting, reason)
    }

    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self::new(Kind::Passing, reason)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// A cache that could not be used.
    pub(super) fn of_cache(doing: &str, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the disk is full: free some space, give the cache less room with EQCO_SHARD_CACHE_GIB, or another disk with \
                 EQCO_SHARD_CACHE"
            }
            _ => "choose a folder on a local disk that you may write to with EQCO_SHARD_CACHE",
        };
        Self::lasting(format!("the cache cannot {doing}: {error}")).hint(hint)
    }
}
