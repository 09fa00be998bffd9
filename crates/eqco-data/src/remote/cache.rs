//! The folder of shards: whole ones, which may go when others need their room, and parts of those that are coming.
//!
//! Several programs share it. Whoever reads a shard, or fetches one, holds a lock on its file; what is not locked may be removed.
//! A part is counted with the bytes that it will have, so that the shards never have more than they are allowed. Files get and
//! lose their names under the lock of the folder, but for damaged ones.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::address::Address;
use super::failure::Failure;
use super::objects::Identity;
use crate::dataset::archive::{PositionedFile, fnv};

/// The longest name of a shard that stands in the name of its file.
const LONGEST_NAME: usize = 80;

/// The cache, as far as this program uses it.
#[derive(Clone, Debug)]
pub(super) struct ShardCache {
    folder: PathBuf,
    budget: u64,
}

/// A shard of a certain version.
#[derive(Clone, Debug)]
pub(super) struct Key {
    name: String,
    size: u64,
}

/// A whole shard, which stays for as long as this does.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) file: PositionedFile,
    locked: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What was used last goes last. The time is a matter of speed alone.
        let _ = self.locked.set_modified(SystemTime::now());
    }
}

/// A shard that is coming. Nobody else writes to it.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    /// Bytes that are there.
    pub(super) written: u64,
}

/// Whether a part may be written.
pub(super) enum Begun {
    Part(Part),
    /// Another program or data set fetches this shard.
    Elsewhere,
    /// All others are in use.
    NoRoom,
}

impl Key {
    pub(super) fn new(address: &Address, identity: &Identity) -> Self {
        let Identity { size, version } = identity;
        let hash = fnv(format!("{}\n{size}\n{version}", address.text).as_bytes());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_'].contains(&c);
        let name = address.name().trim_end_matches(".tar").chars();
        let name = name
            .map(|c| if is_plain(c) { c } else { '_' })
            .take(LONGEST_NAME);
        Self {
            name: format!("{hash:016x}-{}", name.collect::<String>()),
            size: *size,
        }
    }
}

impl ShardCache {
    pub(super) fn new(folder: &Path, budget: u64) -> Self {
        Self {
            folder: folder.to_path_buf(),
            budget,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Where the index of a shard is kept, which stays when the shard goes.
    pub(super) fn index_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.eqco-index", key.name))
    }

    fn whole_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.tar", key.name))
    }

    fn part_path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.{}.part", key.name, key.size))
    }

    /// The bytes of a shard that is on its way; 0 if it is not.
    pub(super) fn come(&self, key: &Key) -> u64 {
        fs::metadata(self.part_path(key)).map_or(0, |about| about.len())
    }

    /// A shard, if it is here.
    pub(super) fn hold(&self, key: &Key) -> io::Result<Option<Held>> {
        let path = self.whole_path(key);
        let locked = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        locked.lock_shared()?;
        // Until it was locked, it may have been removed.
        if !path.exists() {
            return Ok(None);
        }
        if locked.metadata()?.len() != key.size {
            fs::remove_file(&path)?;
            return Ok(None);
        }
        locked.set_modified(SystemTime::now())?;
        match PositionedFile::open(&path) {
            Ok(file) => Ok(Some(Held { file, locked })),
            Err(_) => Ok(None),
        }
    }

    /// Makes room for a shard and begins it, or goes on with what is there of it.
    pub(super) fn begin(&self, key: &Key) -> io::Result<Begun> {
        fs::create_dir_all(&self.folder)?;
        let _folder = self.lock_folder()?;
        let path = self.part_path(key);
        let mut open = OpenOptions::new();
        open.read(true).append(true);
        // Without the folder's lock, a part may become whole or grow, but none is begun.
        let file = match path.exists() {
            true => match open.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Begun::Elsewhere);
                }
                opened => opened?,
            },
            false if !self.make_room(key.size)? => return Ok(Begun::NoRoom),
            false => open.create_new(true).open(&path)?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Begun::Elsewhere),
            locked => locked?,
        }
        if !path.exists() {
            return Ok(Begun::Elsewhere);
        }
        let written = file.metadata()?.len();
        let mut part = Part {
            file,
            path,
            written,
        };
        if written > key.size {
            part.restart()?;
        }
        Ok(Begun::Part(part))
    }

    /// A part that has all of its bytes becomes a shard.
    pub(super) fn finish(&self, key: &Key, part: &Part) -> io::Result<()> {
        // After a power failure there must be no file of the right length with other bytes.
        part.file.sync_data()?;
        // Whoever counts must not miss it under both of its names.
        let _folder = self.lock_folder()?;
        fs::rename(&part.path, self.whole_path(key))
    }

    fn lock_folder(&self) -> io::Result<File> {
        let lock = File::create(self.folder.join(".lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// Removes shards until there is room for so many bytes, those that were not used for longest first; whether there is.
    fn make_room(&self, bytes: u64) -> io::Result<bool> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // Another program may just have renamed or removed it.
            if let Some((counted, used)) = counted(&path) {
                files.push((used, path, counted));
            }
        }
        let mut total: u64 = files.iter().map(|file| file.2).sum();
        files.sort_unstable();
        for (_, path, counted) in files {
            if total.saturating_add(bytes) <= self.budget {
                break;
            }
            if remove_unused(&path)? {
                total -= counted;
            }
        }
        Ok(total.saturating_add(bytes) <= self.budget)
    }
}

/// With how many bytes a file of the cache counts, and when it was used; `None` for what is no shard.
fn counted(path: &Path) -> Option<(u64, SystemTime)> {
    let about = fs::metadata(path).ok()?;
    let name = path.file_name()?.to_str()?;
    let bytes = match name.strip_suffix(".part") {
        Some(rest) => rest
            .rsplit_once('.')?
            .1
            .parse::<u64>()
            .ok()?
            .max(about.len()),
        None => name.ends_with(".tar").then_some(about.len())?,
    };
    Some((bytes, about.modified().ok()?))
}

/// Removes a file that nobody has locked; whether it is gone.
fn remove_unused(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        opened => opened?,
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(false),
        locked => locked?,
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

impl Part {
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what has come.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.written = 0;
        Ok(())
    }
}

/// What could not be done with the cache.
pub(super) fn cache_failure(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::of_cache(doing, &error)
}
