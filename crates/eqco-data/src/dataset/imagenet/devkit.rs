//! The labels of ImageNet's validation images from ILSVRC2012's development kit.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::super::archive::{Members, PositionedFile};
use super::meta;
use super::validation_labels::read_text;
use crate::DataError;

/// A line with a number for each validation image, in the order of their names.
const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";

/// Tells which class (WNID) a number means. No list of sorted classes does: the numbers are in another order.
const META: &str = "meta.mat";

const PACKED: &str = "ILSVRC2012_devkit_t12.tar.gz";

/// Ten times what the archive unpacks to.
const MOST_BYTES: u64 = 64 << 20;

/// The two files, and where they were found.
struct Devkit {
    path: PathBuf,
    ground_truth: String,
    meta: Vec<u8>,
}

/// The WNID of every image in `files`, with the path of what says so; `None` if there is no development kit in `folder`.
pub(super) fn wnids(
    folder: &Path,
    files: &[&str],
) -> Result<Option<(PathBuf, Vec<String>)>, DataError> {
    let Some(kit) = unpacked(folder)?.map_or_else(|| packed(folder), |kit| Ok(Some(kit)))? else {
        return Ok(None);
    };
    let synsets = meta::synsets(&kit.meta)
        .map_err(|found| DataError::labels(&kit.path, "the synsets in meta.mat", found))?;
    let lines: Vec<&str> = kit.ground_truth.lines().map(str::trim).collect();
    let wnid = |file: &&str| {
        let line = image_number(file).and_then(|number| lines.get(number.checked_sub(1)?));
        let Some(line) = line else {
            let expected = format!(
                "images ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{:08}.JPEG",
                lines.len()
            );
            return Err(DataError::labels(&kit.path, expected, format!("`{file}`")));
        };
        let synset = line
            .parse()
            .ok()
            .and_then(|number: u32| synsets.get(&number));
        synset.cloned().ok_or_else(|| {
            let expected = format!("numbers of the {} synsets in meta.mat", synsets.len());
            DataError::labels(&kit.path, expected, format!("`{line}`"))
        })
    };
    let wnids = files.iter().map(wnid).collect::<Result<_, _>>()?;
    Ok(Some((kit.path, wnids)))
}

/// The number in `ILSVRC2012_val_00000001.JPEG`.
fn image_number(file: &str) -> Option<usize> {
    let name = file.rsplit('/').next()?;
    let number = name.strip_prefix("ILSVRC2012_val_")?;
    number.split('.').next()?.parse().ok()
}

fn unpacked(folder: &Path) -> Result<Option<Devkit>, DataError> {
    let folders = ["", "data", "ILSVRC2012_devkit_t12/data"].map(|inner| folder.join(inner));
    let with_truth = folders
        .into_iter()
        .find(|folder| folder.join(GROUND_TRUTH).is_file());
    let Some(folder) = with_truth else {
        return Ok(None);
    };
    let meta_path = folder.join(META);
    if !meta_path.is_file() {
        let expected = "meta.mat of the same development kit beside it, in whose order classes are numbered there";
        return Err(DataError::labels(
            folder.join(GROUND_TRUTH),
            expected,
            "none",
        ));
    }
    let mut meta = Vec::new();
    File::open(&meta_path)
        .and_then(|file| file.take(MOST_BYTES).read_to_end(&mut meta))
        .map_err(|error| DataError::io(&meta_path, error))?;
    let path = folder.join(GROUND_TRUTH);
    Ok(Some(Devkit {
        ground_truth: read_text(&path)?,
        meta,
        path,
    }))
}

fn packed(folder: &Path) -> Result<Option<Devkit>, DataError> {
    let path = folder.join(PACKED);
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| {
            GzDecoder::new(file)
                .take(MOST_BYTES)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| DataError::io(&path, error))?;
    let archive = PositionedFile::in_memory(&path, bytes);
    let (mut ground_truth, mut meta) = (None, None);
    for member in Members::of(&archive) {
        let member = member?;
        let wanted = match member.name.rsplit('/').next() {
            Some(GROUND_TRUTH) => &mut ground_truth,
            Some(META) => &mut meta,
            _ => continue,
        };
        *wanted = Some(archive.bytes(member.offset, member.size as u32)?);
    }
    let (Some(ground_truth), Some(meta)) = (ground_truth, meta) else {
        let expected = format!("{GROUND_TRUTH} and {META}");
        return Err(DataError::labels(path, expected, "at most one of them"));
    };
    Ok(Some(Devkit {
        ground_truth: String::from_utf8_lossy(&ground_truth).into_owned(),
        meta,
        path,
    }))
}
