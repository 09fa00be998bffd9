//! The folder where Hugging Face's programs keep files of the hub: contents under `blobs`, links to them under
//! `snapshots/COMMIT`, and what branches point to under `refs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::address::{Address, is_commit};

/// The part of the cache that belongs to one data set.
pub(super) struct CacheFolder {
    root: PathBuf,
    locks: PathBuf,
}

impl CacheFolder {
    pub(super) fn new(cache: &Path, address: &Address) -> Self {
        let name = format!("datasets--{}--{}", address.owner, address.name);
        Self {
            root: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|text| is_commit(text))
    }

    /// Notes which commit a revision is.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> io::Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        fs::write(path, commit)
    }

    /// The files of a commit, as far as they are here.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where the content `etag` is kept when it is whole.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where it is kept until then.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.blob(&format!("{etag}.incomplete"))
    }

    /// Keeps other programs from writing the same content until the file is dropped. Waits for them.
    pub(super) fn lock(&self, etag: &str) -> io::Result<fs::File> {
        fs::create_dir_all(&self.locks)?;
        fs::create_dir_all(self.root.join("blobs"))?;
        let file = fs::File::create(self.locks.join(format!("{etag}.lock")))?;
        file.lock()?;
        Ok(file)
    }

    /// Gives a content its name in a snapshot.
    pub(super) fn link(&self, etag: &str, commit: &str, name: &str) -> io::Result<()> {
        let path = self.snapshot(commit).join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        link_or_move(&self.blob(etag), etag, name.split('/').count() + 1, &path)
    }
}

/// A relative link, so that the cache can be moved.
#[cfg(unix)]
fn link_or_move(_blob: &Path, etag: &str, depth: usize, path: &Path) -> io::Result<()> {
    let target = format!("{}blobs/{etag}", "../".repeat(depth));
    std::os::unix::fs::symlink(target, path)
}

/// Links take rights that users may lack: the file itself moves, as Hugging Face's programs do it.
#[cfg(not(unix))]
fn link_or_move(blob: &Path, _etag: &str, _depth: usize, path: &Path) -> io::Result<()> {
    fs::rename(blob, path)
}
