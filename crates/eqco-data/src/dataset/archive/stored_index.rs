//! Indices that are built once and kept, beside their archives or in the user's cache folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::index::Index;
use super::index_file;
use super::positioned_file::Stamp;
use crate::DataError;

/// Where the index of some archives may lie: the first place that can be written to keeps it.
#[derive(Debug)]
pub(crate) struct Places(Vec<PathBuf>);

impl Places {
    /// `FIRST.eqco-index` beside the first archive, and a file in the cache folder.
    pub(crate) fn of(archives: &[PathBuf]) -> Self {
        let first = archives.first().map_or(Path::new("."), PathBuf::as_path);
        let mut name = first.file_name().unwrap_or_default().to_os_string();
        if archives.len() > 1 {
            name.push(format!("-and-{}-more", archives.len() - 1));
        }
        name.push(".eqco-index");
        let beside = first.with_file_name(&name);
        let in_cache = cache_folder().zip(first.canonicalize().ok());
        let in_cache = in_cache.map(|(folder, first)| {
            let unique = fnv(first.as_os_str().as_encoded_bytes());
            let name = name.to_string_lossy();
            folder.join("eqco").join(format!("{unique:016x}-{name}"))
        });
        Self([beside].into_iter().chain(in_cache).collect())
    }

    fn read(&self, contents: &str, stamps: &[Stamp]) -> Option<Index> {
        let mut indices = self.0.iter().filter_map(|place| index_in(place, contents));
        indices.find(|index| index.stamps() == stamps)
    }

    /// Keeps an index; where that fails, the next run has to build it anew, and is told why.
    fn write(&self, contents: &str, index: &Index) {
        let mut reasons = Vec::new();
        for place in &self.0 {
            match keep_index(place, contents, index) {
                Ok(()) => return,
                Err(error) => reasons.push(format!("{}: {error}", place.display())),
            }
        }
        tracing::warn!(
            "the index cannot be kept, so that every run will have to build it: {}",
            reasons.join("; ")
        );
    }
}

/// The index in a file, if it is one of `contents`.
pub(crate) fn index_in(place: &Path, contents: &str) -> Option<Index> {
    let file = File::open(place).ok()?;
    let size = file.metadata().ok()?.len();
    index_file::read(file, size, contents).ok().flatten()
}

/// Where programs keep what they can make again.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    variable("XDG_CACHE_HOME")
        .filter(absolute)
        .or_else(|| variable("LOCALAPPDATA").filter(absolute))
        .or_else(|| Some(variable("HOME").filter(absolute)?.join(".cache")))
}

/// The hash of Fowler, Noll and Vo, which stays the same from one version of Rust to the next.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes beside the place and renames, so that no other process reads half an index.
pub(crate) fn keep_index(place: &Path, contents: &str, index: &Index) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    // A data set's own folder is there; the cache folder may not be.
    fs::create_dir_all(folder)?;
    let mut beside = place.as_os_str().to_os_string();
    beside.push(format!(".{}.part", std::process::id()));
    let written = File::create(&beside)
        .and_then(|file| index_file::write(index, contents, file))
        .and_then(|()| fs::rename(&beside, place));
    if written.is_err() {
        // The reason is in the first error.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The index of some archives: the stored one if it is of these files as they are, or else what `build` makes, which is stored.
///
/// `kind` says how archives are indexed: an index of another kind is not taken.
pub(crate) fn stored_or_built(
    places: &Places,
    kind: &str,
    archives: &[PathBuf],
    build: impl FnOnce() -> Result<Index, DataError>,
) -> Result<Index, DataError> {
    let stamps = archives.iter().map(|path| Stamp::of(path));
    let stamps = stamps.collect::<Result<Vec<_>, _>>()?;
    let contents = contents(kind, archives);
    if let Some(index) = places.read(&contents, &stamps) {
        return Ok(index);
    }
    tracing::info!(
        "reading the headers in {} ({} files), once: this takes as long as reading the files from a hard disk, and much less \
         from an SSD",
        archives
            .first()
            .map_or(Path::new(""), PathBuf::as_path)
            .display(),
        archives.len()
    );
    let index = build()?;
    places.write(&contents, &index);
    Ok(index)
}

/// What an index is of: how it was made, and the archives by name.
fn contents(kind: &str, archives: &[PathBuf]) -> String {
    let mut contents = kind.to_owned();
    for path in archives {
        contents.push('\n');
        contents.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with some bytes, and how often its index has been built.
    struct Archive {
        folder: tempfile::TempDir,
        paths: Vec<PathBuf>,
        built: usize,
    }

    impl Archive {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let paths = vec![folder.path().join("a.tar")];
            fs::write(&paths[0], [0; 2048]).unwrap();
            Self {
                folder,
                paths,
                built: 0,
            }
        }

        /// The length of the only entry, which tells how often an index had been built.
        fn open(&mut self, places: &Places, kind: &str) -> u32 {
            let (paths, built) = (&self.paths, &mut self.built);
            let index = stored_or_built(places, kind, paths, || {
                *built += 1;
                let mut index = Index::default();
                index.push(&paths[0], ("image.png", 0), (512, *built as u64))?;
                index.end_archive(Stamp::of(&paths[0])?);
                Ok(index)
            });
            index.unwrap().entry(0).length
        }
    }

    #[test]
    fn an_index_is_built_once_and_again_when_it_is_stale() {
        let mut archive = Archive::new();
        let beside = archive.folder.path().join("a.tar.eqco-index");
        let places = Places::of(&archive.paths);
        assert_eq!(places.0[0], beside);
        assert_eq!([1, 1].map(|_| archive.open(&places, "plain")), [1, 1]);
        assert_eq!(archive.open(&places, "other"), 2);

        // Another size, then the same size at another time.
        fs::write(&archive.paths[0], [0; 2560]).unwrap();
        assert_eq!([1, 1].map(|_| archive.open(&places, "other")), [3, 3]);
        let file = File::options().write(true).open(&archive.paths[0]).unwrap();
        let earlier =
            file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(3);
        file.set_modified(earlier).unwrap();
        assert_eq!([1, 1].map(|_| archive.open(&places, "other")), [4, 4]);

        let mut damaged = fs::read(&beside).unwrap();
        damaged[50] ^= 1;
        fs::write(&beside, damaged).unwrap();
        assert_eq!([1, 1].map(|_| archive.open(&places, "other")), [5, 5]);
        let files = archive.folder.path().read_dir().unwrap();
        assert_eq!(files.count(), 2, "nothing but the archive and its index");
    }

    #[test]
    fn the_cache_folder_keeps_what_cannot_lie_beside() {
        let mut archive = Archive::new();
        // A file where a folder would have to be: nobody can write below it, not even root.
        let impossible = archive.paths[0].join("a.tar.eqco-index");
        let cached = archive.folder.path().join("cache/eqco/1-a.tar.eqco-index");
        let places = Places(vec![impossible.clone(), cached.clone()]);
        assert_eq!([1, 1].map(|_| archive.open(&places, "plain")), [1, 1]);
        assert!(cached.is_file());
        // With no place at all, it is built every time.
        let places = Places(vec![impossible]);
        assert_eq!([1, 1].map(|_| archive.open(&places, "plain")), [2, 3]);
    }

    #[test]
    fn places_in_the_cache_differ_by_folder() {
        let (one, two) = (Archive::new(), Archive::new());
        let [one, two] = [&one, &two].map(|archive| Places::of(&archive.paths).0.pop().unwrap());
        assert_ne!(one, two);
        let several = [PathBuf::from("x/s-0.tar"), PathBuf::from("x/s-1.tar")];
        let beside = Path::new("x/s-0.tar-and-1-more.eqco-index");
        assert_eq!(Places::of(&several).0[0], beside);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
