//! Takes an archive apart without trusting a word of it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};
use zip::ZipArchive;

use super::manifest::{RemoteFile, Unpack};
use crate::unix_files;

/// Bytes that may still be written.
///
/// A few kilobytes can unpack to terabytes, so each data set states its size.
pub struct Budget {
    left: u64,
}

impl Budget {
    /// Allows `bytes` in all.
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        let Some(left) = self.left.checked_sub(bytes) else {
            bail!(
                "it unpacks to more than the manifest's max_unpacked_bytes: \
                 {bytes} bytes are next and {} are left",
                self.left
            );
        };
        self.left = left;
        Ok(())
    }
}

/// Unpacks the verified `source` into the existing folder `target`.
pub fn unpack(file: &RemoteFile, source: &Path, target: &Path, budget: &mut Budget) -> Result<()> {
    let input = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
    let length = input.metadata()?.len();
    let input = BufReader::new(input);
    match file.unpack {
        Unpack::Keep {} => {
            budget.spend(length)?;
            fs::copy(source, target.join(&file.name))?;
            Ok(())
        }
        Unpack::Tar { strip_components } => unpack_tar(input, target, strip_components, budget),
        Unpack::Zip { strip_components } => unpack_zip(input, target, strip_components, budget),
        Unpack::TarGz { strip_components } => {
            let input = MultiGzDecoder::new(input);
            unpack_tar(input, target, strip_components, budget)
        }
    }
    .with_context(|| format!("cannot unpack {}", source.display()))
}

fn unpack_tar(
    input: impl Read,
    target: &Path,
    strip_components: usize,
    budget: &mut Budget,
) -> Result<()> {
    let mut archive = Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let recorded = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let Some(relative) = safe_path(&recorded, strip_components)? else {
            continue;
        };
        let path = target.join(relative);
        match kind {
            EntryType::Directory => fs::create_dir_all(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                budget.spend(entry.size())?;
                write_file(&mut entry, &path)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            // No data set needs links or devices, and a link may lead out of the folder.
            other => bail!("entry {recorded:?} is neither file nor folder but {other:?}"),
        }
    }
    Ok(())
}

fn unpack_zip(
    input: impl Read + Seek,
    target: &Path,
    strip_components: usize,
    budget: &mut Budget,
) -> Result<()> {
    let mut archive = ZipArchive::new(input)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let recorded = PathBuf::from(entry.name()?.as_ref());
        ensure!(
            entry.is_dir() || entry.is_file(),
            "entry {recorded:?} is neither file nor folder"
        );
        let Some(relative) = safe_path(&recorded, strip_components)? else {
            continue;
        };
        if entry.is_file() {
            let (path, size) = (target.join(relative), entry.size());
            budget.spend(size)?;
            // The size is the archive's word: not a byte more than that.
            write_file(&mut entry.by_ref().take(size), &path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            if entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0) {
                unix_files::make_executable(&path)?;
            }
        }
    }
    Ok(())
}

fn write_file(input: &mut impl Read, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    io::copy(input, &mut File::create(path)?)?;
    Ok(())
}

/// The path below the target folder: without the leading folders, and `None` when nothing is left.
///
/// Refused: absolute paths, and `..` anywhere, even where it would stay inside.
fn safe_path(recorded: &Path, strip_components: usize) -> Result<Option<PathBuf>> {
    let mut names = Vec::new();
    for component in recorded.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => bail!("entry {recorded:?} leads out of the folder"),
        }
    }
    // A backslash is a plain character here and a separator elsewhere: refuse it everywhere.
    ensure!(
        !recorded.to_string_lossy().contains('\\'),
        "entry {recorded:?} holds a backslash"
    );
    let kept: PathBuf = names.into_iter().skip(strip_components).collect();
    Ok(Some(kept).filter(|path| !path.as_os_str().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip archive with one file of 1,000 zeros.
    fn zip_of(name: &str) -> Result<io::Cursor<Vec<u8>>> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::SimpleFileOptions::default())?;
        io::Write::write_all(&mut writer, &[0; 1000])?;
        Ok(writer.finish()?)
    }

    #[test]
    fn a_zip_loses_its_leading_folders() -> Result<()> {
        let target = tempfile::tempdir()?;
        let mut budget = Budget::new(1500);
        unpack_zip(
            zip_of("data/lib/kernels.so")?,
            target.path(),
            2,
            &mut budget,
        )?;
        assert_eq!(fs::read(target.path().join("kernels.so"))?, [0; 1000]);
        assert_eq!(budget.left, 500);
        let too_much = unpack_zip(zip_of("more")?, target.path(), 0, &mut budget);
        assert!(
            too_much
                .unwrap_err()
                .to_string()
                .contains("1000 bytes are next and 500")
        );
        unpack_zip(zip_of("short/name")?, target.path(), 2, &mut budget)?;
        assert_eq!(
            (budget.left, fs::read_dir(target.path())?.count()),
            (500, 1)
        );
        Ok(())
    }

    #[test]
    fn a_zip_that_leads_out_of_the_folder_is_refused() -> Result<()> {
        let target = tempfile::tempdir()?;
        let inner = target.path().join("inner");
        fs::create_dir(&inner)?;
        let outcome = unpack_zip(zip_of("../evil")?, &inner, 0, &mut Budget::new(1500));
        assert!(
            outcome
                .unwrap_err()
                .to_string()
                .contains("leads out of the folder")
        );
        assert!(!target.path().join("evil").exists());
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn programs_in_a_zip_can_be_run() -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, mode) in [("nvcc", 0o755), ("cuda.h", 0o644)] {
            let options = zip::write::SimpleFileOptions::default().unix_permissions(mode);
            writer.start_file(name, options)?;
        }
        let target = tempfile::tempdir()?;
        unpack_zip(writer.finish()?, target.path(), 0, &mut Budget::new(0))?;
        for (name, runs) in [("nvcc", true), ("cuda.h", false)] {
            let mode = fs::metadata(target.path().join(name))?.permissions().mode();
            assert_eq!(mode & 0o100 != 0, runs, "{name}");
        }
        Ok(())
    }

    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// One archive member; the path is put into the header as it is, whatever it says.
    fn append(archive: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("target").unwrap();
        }
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }

    fn tar_of(members: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, path, content) in members {
            append(&mut archive, *kind, path, content);
        }
        archive.into_inner().unwrap()
    }

    fn unpack_bytes(bytes: &[u8], strip: usize, limit: u64) -> (tempfile::TempDir, Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let outcome = unpack_tar(bytes, &inner, strip, &mut Budget::new(limit));
        (folder, outcome)
    }

    #[test]
    fn files_and_folders_land_where_they_belong() {
        let bytes = tar_of(&[
            (EntryType::Directory, "set/train/", b""),
            (EntryType::Regular, "set/train/a.txt", b"alpha"),
            (EntryType::Regular, "./set/b.txt", b"beta"),
        ]);
        let (folder, outcome) = unpack_bytes(&bytes, 1, 9);
        outcome.unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join("inner").join(path)).unwrap();
        assert_eq!(read("train/a.txt"), "alpha");
        assert_eq!(read("b.txt"), "beta");
    }

    #[test]
    fn gzip_in_several_members_is_read_to_its_end() {
        let bytes = tar_of(&[(EntryType::Regular, "a.txt", b"alpha")]);
        let (head, tail) = bytes.split_at(300);
        let mut packed = Vec::new();
        for part in [head, tail] {
            let mut encoder = GzEncoder::new(&mut packed, Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let input = MultiGzDecoder::new(packed.as_slice());
        unpack_tar(input, folder.path(), 0, &mut Budget::new(5)).unwrap();
        assert_eq!(fs::read(folder.path().join("a.txt")).unwrap(), b"alpha");
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in [
            "../out.txt",
            "a/../../out.txt",
            "/tmp/out.txt",
            "a/..",
            "..\\out.txt",
        ] {
            let bytes = tar_of(&[(EntryType::Regular, path, b"x")]);
            let (folder, outcome) = unpack_bytes(&bytes, 0, 100);
            let error = format!("{:#}", outcome.expect_err(path));
            assert!(error.contains("entry"), "{path}: {error}");
            let outside: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(outside.len(), 1, "{path} wrote outside of its folder");
        }
    }

    #[test]
    fn links_and_devices_are_refused() {
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Fifo,
            EntryType::Char,
        ] {
            let bytes = tar_of(&[(kind, "entry", b"")]);
            let (folder, outcome) = unpack_bytes(&bytes, 0, 100);
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("neither file nor folder"), "{error}");
            assert!(!folder.path().join("inner/entry").is_symlink());
        }
    }

    #[test]
    fn more_than_the_budget_is_refused_before_it_is_written() {
        let bytes = tar_of(&[
            (EntryType::Regular, "a", b"12345"),
            (EntryType::Regular, "b", b"12345"),
        ]);
        let (folder, outcome) = unpack_bytes(&bytes, 0, 9);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("5 bytes are next and 4 are left"), "{error}");
        assert!(!folder.path().join("inner/b").exists());
    }

    #[test]
    fn an_archive_cut_short_is_an_error() {
        let bytes = tar_of(&[(EntryType::Regular, "a", &[7; 2000])]);
        let (_folder, outcome) = unpack_bytes(&bytes[..1000], 0, 10_000);
        assert!(outcome.is_err());
    }
}
