//! ImageNet's training and validation images as their publishers pack them, and the labels of the latter.

mod devkit;
mod meta;
mod validation_labels;

use std::path::Path;

use super::Split;
use super::archive::{
    ArchiveImages, Index, MOST_CLASSES, Member, Members, Places, PositionedFile, UNLABELLED,
    stored_or_built,
};
use super::image_folder::is_image;
use crate::DataError;

pub(super) use validation_labels::validation_labels;

/// Of 1,000 archives `WNID.tar`, each with the images of a class.
const TRAIN: &str = "ILSVRC2012_img_train.tar";

/// Of 50,000 images without folders.
const VAL: &str = "ILSVRC2012_img_val.tar";

/// Whether a path is that of one of the two archives.
pub(super) fn is_archive(path: &Path) -> bool {
    path.is_file() && [TRAIN, VAL].iter().any(|name| path.ends_with(name))
}

/// Whether a folder holds one of the two archives.
pub(super) fn is_in(folder: &Path) -> bool {
    [TRAIN, VAL].iter().any(|name| folder.join(name).is_file())
}

/// Opens a split from the archives in the folder `path`, or in that of the archive `path`.
///
/// Classes are numbered, and images sorted, as in a folder into which they are unpacked. Labels of validation images come from
/// what [`validation_labels`] finds beside the archive.
pub(super) fn open(path: &Path, title: &str, split: Split) -> Result<ArchiveImages, DataError> {
    let folder = match path.is_file() {
        true => path.parent().unwrap_or(Path::new("")),
        false => path,
    };
    let archive = |name: &str| {
        let archive = folder.join(name);
        if archive.is_file() {
            return Ok(archive);
        }
        Err(DataError::layout(
            folder,
            format!("the archive {name}"),
            "no such file",
        ))
    };
    if split == Split::Train {
        let train = archive(TRAIN)?;
        let index = train_index(&train)?;
        let classes = class_names(&index);
        return ArchiveImages::new(title, classes, vec![train], index);
    }
    let val = archive(VAL)?;
    let mut index = val_index(&val)?;
    let classes = match archive(TRAIN) {
        Ok(train) => Some(class_names(&train_index(&train)?)),
        Err(_) => None,
    };
    let names: Vec<&str> = index.names().collect();
    let labels = validation_labels(folder, &names, classes.as_deref())?;
    let Some((classes, labels)) = labels else {
        let expected = format!("labels of the images in {VAL}");
        return Err(DataError::labels(folder, expected, "no file with labels"));
    };
    index.set_labels(labels);
    ArchiveImages::new(title, classes, vec![val], index)
}

fn train_index(path: &Path) -> Result<Index, DataError> {
    let archives = [path.to_path_buf()];
    stored_or_built(&Places::of(&archives), "imagenet train", &archives, || {
        let file = PositionedFile::open(path)?;
        let mut index = Index::default();
        for (label, (class, archive)) in class_archives(&file)?.iter().enumerate() {
            let before = index.len();
            for image in Members::within(&file, archive) {
                add(&mut index, path, &format!("{class}/"), label as u16, image?)?;
            }
            if index.len() == before {
                let found = format!("none in `{}`", archive.name);
                return Err(DataError::archive(path, "images of every class", found));
            }
        }
        finished(index, &file)
    })
}

fn val_index(path: &Path) -> Result<Index, DataError> {
    let archives = [path.to_path_buf()];
    stored_or_built(&Places::of(&archives), "imagenet val", &archives, || {
        let file = PositionedFile::open(path)?;
        let mut index = Index::default();
        for image in Members::of(&file) {
            add(&mut index, path, "", UNLABELLED, image?)?;
        }
        finished(index, &file)
    })
}

/// The archives of the classes, by class.
fn class_archives(file: &PositionedFile) -> Result<Vec<(String, Member)>, DataError> {
    let mut archives = Vec::new();
    for member in Members::of(file) {
        let member = member?;
        let class = member.name.strip_suffix(".tar");
        let Some(class) = class.filter(|class| !class.contains('/')) else {
            let found = format!("`{}`", member.name);
            let expected = "one archive WNID.tar for each class";
            return Err(DataError::archive(file.path(), expected, found));
        };
        archives.push((class.to_owned(), member));
    }
    archives.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    if archives.len() > MOST_CLASSES {
        let expected = format!("at most {MOST_CLASSES} classes");
        return Err(DataError::archive(
            file.path(),
            expected,
            archives.len().to_string(),
        ));
    }
    if let Some(pair) = archives.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let found = format!("two of `{}`", pair[0].0);
        return Err(DataError::archive(
            file.path(),
            "one archive for each class",
            found,
        ));
    }
    Ok(archives)
}

/// Lists a member if it is an image.
fn add(
    index: &mut Index,
    path: &Path,
    folder: &str,
    label: u16,
    image: Member,
) -> Result<(), DataError> {
    if !is_image(&image.name) {
        return Ok(());
    }
    let name = format!("{folder}{}", image.name);
    index.push(path, (&name, label), (image.offset, image.size))
}

/// Sorts what has been listed; that is at least one image, each once.
fn finished(mut index: Index, file: &PositionedFile) -> Result<Index, DataError> {
    index.end_archive(file.stamp());
    let index = index.sorted();
    if index.len() == 0 {
        let expected = "images (.JPEG, .jpg or .png)";
        return Err(DataError::archive(file.path(), expected, "none"));
    }
    let twice = index.names().zip(index.names().skip(1));
    if let Some((name, _)) = twice.into_iter().find(|(one, next)| one == next) {
        let found = format!("two of `{name}`");
        return Err(DataError::archive(file.path(), "each image once", found));
    }
    Ok(index)
}

/// The names of the classes whose images are listed, which are those of their folders.
fn class_names(index: &Index) -> Vec<String> {
    let mut classes: Vec<String> = Vec::new();
    for name in index.names() {
        let class = name.split('/').next().unwrap_or_default();
        if classes.last().is_none_or(|last| last != class) {
            classes.push(class.to_owned());
        }
    }
    classes
}
