//! Hugging Face's data sets of images: Parquet files with a column `image<bytes, path>` and, mostly, one of labels.
//!
//! Written here and not with the `parquet` crate: that reader has no way to find a value's place in the file, allocates what
//! a page claims, and its tree takes more than a minute of compilation. The format is described in
//! github.com/apache/parquet-format.

mod codec;
mod columns;
mod files;
mod footer;
mod index;
mod levels;
mod page;
mod page_cache;
mod stored_file;
mod thrift;
mod values;

use std::borrow::Cow;
use std::path::Path;

use super::{Dataset, Split};
use crate::{DataError, Image, decode};
use index::{Index, NO_LABEL};
use page_cache::PageCache;
use stored_file::{Damage, damaged};
use values::{DecodedPage, Place};

pub use files::ParquetFiles;

/// Memory for decoded pages unless [`CACHE_VARIABLE`] says otherwise: 256 MiB.
pub const DEFAULT_CACHE_BYTES: usize = 256 << 20;

/// The environment variable for that memory, in MiB. It changes speed alone, never what is read.
pub const CACHE_VARIABLE: &str = "EQCO_PARQUET_CACHE_MIB";

/// The largest image that is read, as in a folder of images.
const MOST_IMAGE_BYTES: u32 = 256 << 20;

/// Images in Parquet files, as Hugging Face's `datasets` writes them: a column of structs with a field `bytes`, or of bytes, with
/// JPEG or PNG files, and a column of integers with labels or none. Which columns these are is told by the metadata under the
/// key `huggingface` (as are the names of the classes), else by types and names; a negative or missing label is none.
///
/// At opening the footers and the labels are read. After that
/// - an image in a page that is neither compressed nor encoded with a dictionary (what `datasets` writes since it has page
///   indices) is one read of exactly its bytes, once its page has been walked through;
/// - of any other page all is read and decoded for one image. Decoded pages are kept while the memory for them suffices, with
///   the one that was not used for the longest time leaving first, so that a set that fits is decoded once. For a larger set in
///   random order each image costs a page of one to some hundred images; a warning says so.
///
/// Memory: 8 bytes an image that has been read in place, 4 bytes a label, about 60 a page, and [`DEFAULT_CACHE_BYTES`] for
/// decoded pages, beside which each thread can hold one page more.
#[derive(Debug)]
pub struct Parquet {
    name: String,
    index: Index,
    cache: PageCache,
}

impl Parquet {
    /// Whether a path is a Parquet file, or a folder with such files in it or below.
    pub(super) fn is_at(path: &Path) -> Result<bool, DataError> {
        match path.is_dir() {
            true => files::has_any(path),
            false => Ok(files::is_parquet(&path.to_string_lossy())),
        }
    }

    /// Opens the files of a split below a folder, or a single file; `name` is for results.
    ///
    /// Files are told by their names: `train`, `test` or `validation` (or `val`, `valid`, `dev`) as a word of the file's or
    /// folder's name. Without any such word they are for training. A test part whose labels are all missing gives way to
    /// a validation part.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Layout`] if there are no files for the split, files of a series are missing, columns cannot
    /// be told, or a file is damaged or in an encoding that is not read; [`DataError::InvalidSetting`] for [`CACHE_VARIABLE`].
    pub fn open(path: &Path, name: &str, split: Split) -> Result<Self, DataError> {
        let files = if path.is_dir() {
            let found = ParquetFiles::find(path)?;
            found.ok_or_else(|| DataError::layout(path, "Parquet files", "none"))?
        } else {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            ParquetFiles::of_names(path, [file.into_owned()])?
        };
        let folder = if path.is_dir() {
            path
        } else {
            path.parent().unwrap_or(path)
        };
        let has_labels = |name: &str| Self::has_labels(&folder.join(name));
        let chosen = files.choose(split, has_labels)?;
        let paths = chosen.iter().map(|name| folder.join(name));
        let index = Index::read(paths)?;
        let opened = Self {
            name: name.to_owned(),
            index,
            cache: PageCache::new(cache_bytes()?),
        };
        opened.warn_of_decoding();
        Ok(opened)
    }

    /// Whether any image of a file has a label.
    ///
    /// # Errors
    /// Those of [`Parquet::open`].
    pub fn has_labels(file: &Path) -> Result<bool, DataError> {
        Ok(!Index::read([file.to_path_buf()])?.labels.is_empty())
    }

    /// The same data set with other memory for decoded pages, in bytes. A page that takes more is not read.
    pub fn with_cache_bytes(self, bytes: usize) -> Self {
        Self {
            cache: PageCache::new(bytes),
            ..self
        }
    }

    fn warn_of_decoding(&self) {
        let (bytes, budget) = (self.index.bytes_to_decode, self.cache.budget as u64);
        if bytes > budget {
            tracing::warn!(
                "{}: {} MiB of its images are compressed or in dictionaries, more than the {} MiB of memory for decoded pages: \
                 each image costs decoding a page of several; `eqco-train pack` makes a copy that is quick to read, and \
                 {CACHE_VARIABLE} sets that memory",
                self.name,
                bytes >> 20,
                budget >> 20
            );
        }
    }

    /// The file of image `index`.
    fn bytes(&self, index: usize) -> Result<Vec<u8>, Damage> {
        let (number, row) = self.index.locate(index);
        let group = &self.index.groups[number];
        let file = self.index.files[group.file as usize].open()?;
        let pages = group.pages(&file)?;
        let (page_number, row) = pages.locate(row);
        let page = &pages.data[page_number];
        if page.is_in_place(&group.chunk) {
            let place = page.place(&file, &group.chunk, row)?;
            let place = checked(place)?;
            let offset = page.offset() + u64::from(place.start);
            return file.read(offset, place.len as usize);
        }
        let most = self.cache.budget;
        let decoded = |part: Option<u32>, page: &page::Page| {
            let key = (number as u32, part);
            let decode = || DecodedPage::read(page, &file, &group.chunk, most);
            self.cache.get(key, decode)
        };
        let data = decoded(Some(page_number as u32), page.page())?;
        let entry = match &*data {
            DecodedPage::Strings { bytes, places } => return cut(bytes, places.get(row)),
            DecodedPage::Entries(entries) => entries[row],
        };
        if entry == values::NULL_ENTRY {
            return cut(&[], Some(&Place::NULL));
        }
        let Some(dictionary) = &pages.dictionary else {
            return damaged("places in a dictionary that is not there");
        };
        match &*decoded(None, dictionary)? {
            DecodedPage::Strings { bytes, places } => cut(bytes, places.get(entry as usize)),
            DecodedPage::Entries(_) => damaged("a dictionary without values"),
        }
    }
}

/// A copy of one value.
fn cut(bytes: &[u8], place: Option<&Place>) -> Result<Vec<u8>, Damage> {
    let Some(&place) = place else {
        return damaged("a place beyond its dictionary");
    };
    let Place { start, len } = checked(place)?;
    Ok(bytes[start as usize..][..len as usize].to_vec())
}

/// Refuses nulls and what is too large for an image.
fn checked(place: Place) -> Result<Place, Damage> {
    if place == Place::NULL {
        return damaged("there is no image in this row");
    }
    if place.len > MOST_IMAGE_BYTES {
        return damaged(format!(
            "{} bytes; the limit is {MOST_IMAGE_BYTES}",
            place.len
        ));
    }
    Ok(place)
}

fn cache_bytes() -> Result<usize, DataError> {
    let Some(text) = std::env::var_os(CACHE_VARIABLE) else {
        return Ok(DEFAULT_CACHE_BYTES);
    };
    let text = text.to_string_lossy();
    let bytes = text
        .parse()
        .ok()
        .and_then(|mib: usize| mib.checked_mul(1 << 20));
    bytes.ok_or_else(|| DataError::setting(CACHE_VARIABLE, "a number of MiB", text))
}

impl Dataset for Parquet {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.index.rows as usize
    }

    fn class_names(&self) -> &[String] {
        &self.index.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        let label = self.index.labels.get(index).copied();
        label.filter(|&label| label != NO_LABEL)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let name = self.describe(index);
        let bytes = self
            .bytes(index)
            .map_err(|damage| of_image(damage, &name))?;
        decode::decode(&bytes, &name)
    }

    fn encoded(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, DataError> {
        let bytes = self.bytes(index);
        let bytes = bytes.map_err(|damage| of_image(damage, &self.describe(index)))?;
        Ok(Some(bytes.into()))
    }

    fn describe(&self, index: usize) -> String {
        let (number, row) = self.index.locate(index);
        let group = &self.index.groups[number];
        let path = self.index.files[group.file as usize].path.display();
        format!("{path}, row {}", group.first_of_file + row)
    }
}

fn of_image(damage: Damage, image: &str) -> DataError {
    match damage {
        Damage::Io(error) => DataError::io(image, error),
        Damage::Format(reason) => DataError::Decode {
            image: image.to_owned(),
            reason,
        },
    }
}
