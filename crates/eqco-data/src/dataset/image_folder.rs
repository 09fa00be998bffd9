//! Folders of JPEG, PNG and WebP files, with or without a folder per class.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::imagenet::validation_labels;
use super::{Dataset, Split};
use crate::{DataError, Image, decode};

const EXPECTED: &str =
    "images (.jpg, .jpeg, .png or .webp) in train/CLASS/, in CLASS/, or without classes";

/// Kaggle's ImageNet has its folders here, and its files with labels where this begins.
pub(super) const KAGGLE: &str = "ILSVRC/Data/CLS-LOC";

/// Image files in a folder. Files and classes are sorted by name; labels number the classes in
/// that order, as in torchvision's `ImageFolder`.
///
/// Layouts below the given path, the first that fits:
/// - `train/CLASS/*` and `test/CLASS/*` or `val/CLASS/*` (training images may also lie in `train/`
///   itself, without classes);
/// - `train/CLASS/*` and `val/*` (or `test/*`, without `val/`) with the labels of the latter in a file beside these folders:
///   `val_labels.txt` or `.csv`, Kaggle's `LOC_val_solution.csv`, or ILSVRC2012's development kit, unpacked or not;
/// - `CLASS/*`: training images only;
/// - `*`: unlabelled training images only.
///
/// All of this may lie in `ILSVRC/Data/CLS-LOC/`, where Kaggle puts ImageNet, whose `test/` has no labels.
///
/// Hidden entries and files with other extensions are ignored; folders below a class are not
/// looked into. The files are opened when they are asked for.
#[derive(Debug)]
pub struct ImageFolder {
    name: String,
    class_names: Vec<String>,
    /// One per class, or a single one.
    folders: Vec<PathBuf>,
    /// Position in `folders` and file name; short, because ImageNet has 1.3 million of them.
    files: Vec<(u32, Box<std::ffi::OsStr>)>,
}

impl ImageFolder {
    /// Lists the files of a split; `name` is for results.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Layout`] if there is no image, no test folder where one
    /// is asked for, or a test class without a training class; [`DataError::Labels`] if a file with labels does not fit.
    pub fn open(path: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        let kaggle = path.join(KAGGLE);
        let path = if kaggle.is_dir() { &kaggle } else { path };
        match split {
            Split::Train => Self::open_train(path, name),
            Split::Test => Self::open_test(path, name),
        }
    }

    fn open_train(path: &Path, name: &str) -> Result<Self, DataError> {
        let is_there = |name: &&str| path.join(name).is_dir();
        if is_there(&"train") {
            return Self::list(&path.join("train"), name);
        }
        if ["test", "val"].iter().any(is_there) {
            let found = "a folder for testing alone";
            return Err(DataError::layout(path, "a folder train/", found));
        }
        Self::list(path, name)
    }

    fn open_test(path: &Path, name: &str) -> Result<Self, DataError> {
        let sub_folder = |name: &str| Some(path.join(name)).filter(|folder| folder.is_dir());
        let train = sub_folder("train").map(|train| Self::list(&train, name));
        let train = train.transpose()?;
        let classes = train.as_ref().map(|train| &*train.class_names);
        let mut folders = [sub_folder("test"), sub_folder("val")]
            .into_iter()
            .flatten();
        let Some(mut folder) = folders.next() else {
            let expected = "a folder test/ or val/ with images for testing";
            return Err(DataError::layout(path, expected, "none"));
        };
        let mut opened = Self::list(&folder, name)?;
        // Images for testing without classes, where those for training have none either, are asked for nothing.
        let wants_classes = classes.is_none_or(|classes| !classes.is_empty());
        if opened.class_names.is_empty() && wants_classes {
            if let Some(val) = folders.next() {
                opened = Self::list(&val, name)?;
                folder = val;
            }
            opened.label_by_file(path, &folder, classes)?;
        }
        if let Some(train) = train {
            opened.number_classes_like(&train, &folder)?;
        }
        Ok(opened)
    }

    /// Labels the images of one folder without classes if there is a file with labels in `path`.
    fn label_by_file(
        &mut self,
        path: &Path,
        folder: &Path,
        classes: Option<&[String]>,
    ) -> Result<(), DataError> {
        if !self.class_names.is_empty() {
            return Ok(());
        }
        let names = self.files.iter().map(|(_, file)| file.to_string_lossy());
        let names: Vec<_> = names.collect();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        if let Some((classes, labels)) = validation_labels(path, &names, classes)? {
            // A label is the number of a folder, here of the same one for all.
            self.folders = vec![folder.to_path_buf(); classes.len()];
            for ((number, _), label) in self.files.iter_mut().zip(labels) {
                *number = u32::from(label);
            }
            self.class_names = classes;
        }
        Ok(())
    }

    /// Lists `CLASS/*`, or `*` if no sub-folder has images.
    fn list(folder: &Path, name: &str) -> Result<Self, DataError> {
        let entries = Entries::read(folder)?;
        let mut listed = Self {
            name: name.to_owned(),
            class_names: Vec::new(),
            folders: Vec::new(),
            files: Vec::new(),
        };
        for class in entries.folders {
            let class_folder = folder.join(&class);
            let images = Entries::read(&class_folder)?.images;
            if !images.is_empty() {
                listed
                    .class_names
                    .push(class.to_string_lossy().into_owned());
                listed.add_files(class_folder, images);
            }
        }
        if listed.class_names.is_empty() {
            if entries.images.is_empty() {
                return Err(DataError::layout(folder, EXPECTED, "no image"));
            }
            listed.add_files(folder.to_path_buf(), entries.images);
        }
        Ok(listed)
    }

    fn add_files(&mut self, folder: PathBuf, files: Vec<OsString>) {
        let number = self.folders.len() as u32;
        self.folders.push(folder);
        self.files.extend(
            files
                .into_iter()
                .map(|file| (number, file.into_boxed_os_str())),
        );
    }

    /// Gives the classes of a test folder the labels that they have in training.
    fn number_classes_like(&mut self, train: &Self, folder: &Path) -> Result<(), DataError> {
        let mut labels = Vec::new();
        for class in &self.class_names {
            let label = train.class_names.iter().position(|other| other == class);
            labels.push(label.ok_or_else(|| {
                let expected = format!("the {} classes of train/", train.class_names.len());
                DataError::layout(folder, expected, format!("another class `{class}`"))
            })?);
        }
        if labels.is_empty() && !train.class_names.is_empty() {
            return Err(DataError::layout(
                folder,
                "one folder per class, as in train/, or a file with labels such as val_labels.txt \
                 beside train/",
                "none",
            ));
        }
        let mut folders = vec![PathBuf::new(); train.class_names.len().max(self.folders.len())];
        for (number, path) in std::mem::take(&mut self.folders).into_iter().enumerate() {
            folders[labels.get(number).copied().unwrap_or(number)] = path;
        }
        for (number, _) in &mut self.files {
            *number = labels
                .get(*number as usize)
                .map_or(*number, |&label| label as u32);
        }
        self.folders = folders;
        self.class_names.clone_from(&train.class_names);
        Ok(())
    }

    fn path(&self, index: usize) -> PathBuf {
        let (folder, file) = &self.files[index];
        self.folders[*folder as usize].join(file.as_ref())
    }
}

/// The visible sub-folders and image files of a folder, sorted.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) folders: Vec<OsString>,
    pub(super) images: Vec<OsString>,
}

impl Entries {
    pub(super) fn read(folder: &Path) -> Result<Self, DataError> {
        let io_error = |error| DataError::io(folder, error);
        let mut entries = Self::default();
        for entry in folder.read_dir().map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let mut kind = entry.file_type().map_err(io_error)?;
            if kind.is_symlink() {
                // A link to nowhere is listed as a file, so that reading it reports it.
                kind = entry
                    .path()
                    .metadata()
                    .map_or(kind, |target| target.file_type());
            }
            if kind.is_dir() {
                entries.folders.push(name);
            } else if has_image_extension(&name) && (kind.is_file() || kind.is_symlink()) {
                entries.images.push(name);
            }
        }
        entries.folders.sort_unstable();
        entries.images.sort_unstable();
        Ok(entries)
    }
}

/// Whether a path with `/` between folders is that of a visible file with the extension of an image.
pub(super) fn is_image(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    !name.starts_with('.') && has_image_extension(name.as_ref())
}

fn has_image_extension(name: &std::ffi::OsStr) -> bool {
    let extension = Path::new(name)
        .extension()
        .map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| {
        ["jpg", "jpeg", "png", "webp"]
            .iter()
            .any(|known| extension == *known)
    })
}

impl Dataset for ImageFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        (!self.class_names.is_empty()).then_some(self.files[index].0)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        decode::read_file(&self.path(index))
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        decode::read_bytes(&self.path(index)).map(|bytes| Some(bytes.into()))
    }

    fn describe(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }
}
