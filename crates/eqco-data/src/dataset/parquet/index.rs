//! Where the images of a data set lie, and their labels.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::codec::Codec;
use super::columns::{Columns, Leaf, leaves};
use super::footer::{ColumnChunk, Footer};
use super::page::{Chunk, Encoding, Page};
use super::stored_file::{Damage, OpenFile, StoredFile, damaged};
use super::values::{Place, integers, places_in_file};
use crate::DataError;

/// Stands for an image without a label.
pub(super) const NO_LABEL: u32 = u32::MAX;

/// More classes than any set of images has.
const MOST_CLASSES: i64 = 1 << 20;

/// Fewer bytes a row of a file are no images, but a claim that would cost memory.
const LEAST_ROW_BYTES: u64 = 16;

/// The most memory for a page of labels while they are read.
const MOST_LABEL_PAGE_BYTES: usize = 64 << 20;

/// All files of a split.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) files: Vec<StoredFile>,
    pub(super) groups: Vec<Group>,
    pub(super) rows: u32,
    /// One a row, or none at all if no row has one.
    pub(super) labels: Vec<u32>,
    pub(super) class_names: Vec<String>,
    /// Bytes of images that can only be read by decoding pages.
    pub(super) bytes_to_decode: u64,
}

/// The images of a row group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) file: u32,
    /// The number of its first row in the data set and in the file.
    first_row: u32,
    pub(super) first_of_file: usize,
    pub(super) chunk: Chunk,
    /// Found when the first of its images is asked for.
    pages: OnceLock<GroupPages>,
}

/// The pages of a row group's images.
#[derive(Debug)]
pub(super) struct GroupPages {
    pub(super) dictionary: Option<Page>,
    pub(super) data: Vec<DataPage>,
}

/// A page of images.
#[derive(Debug)]
pub(super) struct DataPage {
    page: Page,
    /// The number of its first row in the row group.
    first_row: u32,
    /// Found when the first of its images is asked for, if they can be read in place.
    places: OnceLock<Box<[Place]>>,
}

impl Index {
    /// Reads footers and labels of files, in this order.
    pub(super) fn read(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, DataError> {
        let mut index = Self::default();
        let mut labels = Vec::new();
        for path in paths {
            let at_path = |damage| at_opening(damage, &path);
            let file = StoredFile::find(&path).map_err(at_path)?;
            index.add(&file, &mut labels).map_err(at_path)?;
            index.files.push(file);
        }
        let Some(first) = index.files.first().map(|file| file.path.clone()) else {
            return Err(DataError::layout("", "Parquet files", "none"));
        };
        if index.rows == 0 {
            return Err(DataError::layout(&first, "at least one row", "none"));
        }
        let set = index.set_labels(labels);
        set.map_err(|found| {
            let expected = "labels that number the classes from 0 on";
            DataError::layout(&first, expected, found)
        })?;
        Ok(index)
    }

    /// Adds the row groups of a file, and its labels.
    fn add(&mut self, file: &StoredFile, labels: &mut Vec<Option<i64>>) -> Result<(), Damage> {
        let file = file.open()?;
        let footer = Footer::read(&file)?;
        let leaves = leaves(&footer.schema).map_err(Damage::Format)?;
        let columns = Columns::choose(&leaves, &footer).map_err(Damage::Format)?;
        if !self.files.is_empty() && columns.class_names != self.class_names {
            return damaged("other names of classes than in the files before it");
        }
        let mut first_of_file = 0;
        for group in footer.groups {
            let rows = u32::try_from(group.rows).unwrap_or(u32::MAX);
            let (total, size) = (u64::from(rows) + first_of_file as u64, file.about.size);
            if total > size / LEAST_ROW_BYTES {
                return damaged(format!("{total} rows claimed in {size} bytes"));
            }
            if group.columns.len() != leaves.len() {
                return damaged("a row group with other columns than the file");
            }
            let image = &group.columns[columns.image];
            let chunk = checked(image, rows, &leaves[columns.image], size)?;
            if needs_decoding(image, &chunk) {
                self.bytes_to_decode += u64::try_from(image.plain_bytes).unwrap_or(0);
            }
            match columns.label {
                Some(label) => {
                    let leaf = &leaves[label];
                    let chunk = checked(&group.columns[label], rows, leaf, size)?;
                    let width = leaf.integer_bytes().unwrap_or(8);
                    labels.extend(integers(&chunk, &file, width, MOST_LABEL_PAGE_BYTES)?);
                }
                None => labels.extend(std::iter::repeat_n(None, rows as usize)),
            }
            self.push_group(chunk, rows, &mut first_of_file)?;
        }
        self.class_names = columns.class_names;
        Ok(())
    }

    fn push_group(
        &mut self,
        chunk: Chunk,
        rows: u32,
        first_of_file: &mut usize,
    ) -> Result<(), Damage> {
        if rows == 0 {
            return Ok(());
        }
        self.groups.push(Group {
            file: self.files.len() as u32,
            first_row: self.rows,
            first_of_file: *first_of_file,
            chunk,
            pages: OnceLock::new(),
        });
        *first_of_file += rows as usize;
        match self.rows.checked_add(rows) {
            Some(rows) => self.rows = rows,
            None => return damaged("more than 4,294,967,295 rows up to here"),
        }
        Ok(())
    }

    /// Checks labels against the names of the classes; where there are none, numbers are the names.
    fn set_labels(&mut self, labels: Vec<Option<i64>>) -> Result<(), String> {
        // Hugging Face writes -1 where labels are kept secret.
        let known = labels.iter().flatten().filter(|label| **label >= 0);
        let Some(&largest) = known.max() else {
            self.class_names = Vec::new();
            return Ok(());
        };
        if self.class_names.is_empty() {
            if largest >= MOST_CLASSES {
                return Err(format!("the label {largest}"));
            }
            self.class_names = (0..=largest).map(|class| class.to_string()).collect();
        }
        let count = self.class_names.len();
        if largest >= count as i64 {
            return Err(format!("the label {largest} beside {count} names"));
        }
        let label = |label: Option<i64>| label.and_then(|label| u32::try_from(label).ok());
        let labels = labels.into_iter().map(|l| label(l).unwrap_or(NO_LABEL));
        self.labels = labels.collect();
        Ok(())
    }

    /// The row group of an image, and its row in there.
    pub(super) fn locate(&self, index: usize) -> (usize, usize) {
        let number = self
            .groups
            .partition_point(|group| group.first_row as usize <= index)
            - 1;
        (number, index - self.groups[number].first_row as usize)
    }
}

/// A column with its numbers checked.
fn checked(column: &ColumnChunk, rows: u32, leaf: &Leaf, size: u64) -> Result<Chunk, Damage> {
    if column.is_elsewhere {
        return damaged("a column that lies in another file");
    }
    if column.values != i64::from(rows) {
        let values = column.values;
        return damaged(format!("{values} values in a row group of {rows} rows"));
    }
    // Some writers say 0 where there is no dictionary.
    let dictionary = column.dictionary_offset.filter(|&offset| offset > 0);
    let start = dictionary.unwrap_or(i64::MAX).min(column.data_offset);
    let range = u64::try_from(start)
        .ok()
        .zip(u64::try_from(column.stored_bytes).ok());
    let end = range.and_then(|(start, length)| start.checked_add(length));
    match (range, end) {
        (Some((start, _)), Some(end)) if end <= size => Ok(Chunk {
            start,
            end,
            codec: Codec::of(column.codec).map_err(Damage::Format)?,
            rows,
            max_definition: leaf.max_definition,
        }),
        _ => damaged(format!(
            "a column of {} bytes at {start}, in a file of {size} bytes",
            column.stored_bytes
        )),
    }
}

/// As far as the footer can tell: its encodings include those of dictionaries.
fn needs_decoding(column: &ColumnChunk, chunk: &Chunk) -> bool {
    chunk.codec != Codec::Plain
        || column
            .encodings
            .iter()
            .any(|&encoding| [2, 8].contains(&encoding))
}

fn at_opening(damage: Damage, path: &Path) -> DataError {
    match damage {
        Damage::Io(error) => DataError::io(path, error),
        Damage::Format(found) => DataError::layout(path, "a Parquet file of images", found),
    }
}

impl Group {
    pub(super) fn pages(&self, file: &OpenFile<'_>) -> Result<&GroupPages, Damage> {
        if let Some(pages) = self.pages.get() {
            return Ok(pages);
        }
        let found = self.chunk.pages(file)?;
        let mut first_row = 0;
        let data = found.data.into_iter().map(|page| {
            let first = first_row;
            first_row += page.values;
            DataPage {
                page,
                first_row: first,
                places: OnceLock::new(),
            }
        });
        let pages = GroupPages {
            dictionary: found.dictionary,
            data: data.collect(),
        };
        // Another thread may have found the same meanwhile.
        Ok(self.pages.get_or_init(|| pages))
    }
}

impl GroupPages {
    /// The page of a row, and its row in there.
    pub(super) fn locate(&self, row: usize) -> (usize, usize) {
        let number = self
            .data
            .partition_point(|page| page.first_row as usize <= row)
            - 1;
        (number, row - self.data[number].first_row as usize)
    }
}

impl DataPage {
    pub(super) fn page(&self) -> &Page {
        &self.page
    }

    pub(super) fn offset(&self) -> u64 {
        self.page.offset
    }

    /// Whether its values lie in the file as they are.
    pub(super) fn is_in_place(&self, chunk: &Chunk) -> bool {
        self.page.encoding == Encoding::Plain && self.page.is_uncompressed(chunk.codec)
    }

    /// Where the value of a row lies, counted from the beginning of the page, which is in place.
    pub(super) fn place(
        &self,
        file: &OpenFile<'_>,
        chunk: &Chunk,
        row: usize,
    ) -> Result<Place, Damage> {
        if let Some(places) = self.places.get() {
            return Ok(places[row]);
        }
        let places = places_in_file(&self.page, file, chunk)?;
        Ok(self.places.get_or_init(|| places.into())[row])
    }
}
