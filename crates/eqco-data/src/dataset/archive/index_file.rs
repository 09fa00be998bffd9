//! An index as a file, so that archives are walked over once.
//!
//! `EQCOINDX`, version, checksum; then the lengths of all parts and the parts, numbers with the lowest byte first.

use std::io::{self, BufReader, BufWriter, Read, Write};

use flate2::Crc;

use super::index::Index;
use super::positioned_file::Stamp;

const MAGIC: &[u8; 8] = b"EQCOINDX";

/// Goes up whenever the form, or what is put into an index, changes.
const VERSION: u32 = 1;

/// No part of an index is larger.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Writes `index` with the text that says what it is an index of.
pub(super) fn write(index: &Index, contents: &str, out: impl Write) -> io::Result<()> {
    let mut out = Summed {
        inner: BufWriter::new(out),
        crc: Crc::new(),
    };
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    for count in [
        contents.len(),
        index.stamps.len(),
        index.len(),
        index.names.len(),
    ] {
        out.write_all(&(count as u64).to_le_bytes())?;
    }
    out.write_all(contents.as_bytes())?;
    for stamp in &index.stamps {
        out.write_all(&stamp.size.to_le_bytes())?;
        out.write_all(&stamp.modified.to_le_bytes())?;
    }
    put(&mut out, &index.archive_ends, u32::to_le_bytes)?;
    put(&mut out, &index.offsets, u64::to_le_bytes)?;
    put(&mut out, &index.lengths, u32::to_le_bytes)?;
    put(&mut out, &index.labels, u16::to_le_bytes)?;
    put(&mut out, &index.name_ends, u32::to_le_bytes)?;
    out.write_all(index.names.as_bytes())?;
    let sum = out.crc.sum();
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()
}

/// Reads an index of `contents`, whose file has `size` bytes; `None` if it is one of something else, of another version, or
/// damaged. No more memory is taken than the file has bytes.
pub(super) fn read(input: impl Read, size: u64, contents: &str) -> io::Result<Option<Index>> {
    let mut input = Summed {
        inner: BufReader::with_capacity(1 << 16, input),
        crc: Crc::new(),
    };
    let Some([text, archives, images, names]) = read_counts(&mut input, size)? else {
        return Ok(None);
    };
    if text != contents.len() {
        return Ok(None);
    }
    let read_text = take(&mut input, text, u8::from_le_bytes)?;
    if read_text != contents.as_bytes() {
        return Ok(None);
    }
    let stamps = take(&mut input, archives * 2, u64::from_le_bytes)?;
    let stamps = stamps.chunks_exact(2);
    let index = Index {
        stamps: stamps
            .map(|pair| Stamp {
                size: pair[0],
                modified: pair[1],
            })
            .collect(),
        archive_ends: take(&mut input, archives, u32::from_le_bytes)?,
        offsets: take(&mut input, images, u64::from_le_bytes)?,
        lengths: take(&mut input, images, u32::from_le_bytes)?,
        labels: take(&mut input, images, u16::from_le_bytes)?,
        name_ends: take(&mut input, images, u32::from_le_bytes)?,
        names: match String::from_utf8(take(&mut input, names, u8::from_le_bytes)?) {
            Ok(names) => names,
            Err(_) => return Ok(None),
        },
    };
    let sum = input.crc.sum();
    let mut stored = [0; 4];
    input.inner.read_exact(&mut stored)?;
    let whole = stored == sum.to_le_bytes() && is_sound(&index);
    Ok(whole.then_some(index))
}

/// How long all parts are, if the file is an index of this version and as long as they are together.
fn read_counts(input: &mut Summed<impl Read>, size: u64) -> io::Result<Option<[usize; 4]>> {
    let mut start = [0; 12];
    input.read_exact(&mut start)?;
    if &start[..8] != MAGIC || start[8..] != VERSION.to_le_bytes() {
        return Ok(None);
    }
    let mut counts = [0; 4];
    for count in &mut counts {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        *count = u64::from_le_bytes(bytes);
    }
    let [text, archives, images, names] = counts;
    // None is larger than a file is, so that sums of them stay far below 2^64.
    let fits = counts.iter().all(|&count| count <= size.min(MOST_BYTES))
        && 12 + 32 + text + archives * 20 + images * 18 + names + 4 == size;
    Ok(fits.then_some(counts.map(|count| count as usize)))
}

/// Whether everything that numbers in the index point at is there.
fn is_sound(index: &Index) -> bool {
    let count = index.len() as u32;
    let names_end = index.name_ends.last().copied().unwrap_or(0);
    let mut begin = 0;
    index.archive_ends.is_sorted()
        && index.archive_ends.last().copied().unwrap_or(0) == count
        && names_end as usize == index.names.len()
        && index.name_ends.iter().all(|&end| {
            let increases = end >= begin && index.names.is_char_boundary(end as usize);
            begin = end;
            increases
        })
        && (0..index.len()).all(|number| {
            let entry = index.entry(number);
            let end = entry.offset.checked_add(u64::from(entry.length));
            end.is_some_and(|end| end <= index.stamps[entry.archive].size)
        })
}

/// A stream and the checksum of what has passed.
struct Summed<S> {
    inner: S,
    crc: Crc,
}

impl<W: Write> Summed<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Summed<R> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.crc.update(bytes);
        Ok(())
    }
}

/// Numbers that are encoded at a time.
const CHUNK: usize = 4096;

fn put<T: Copy, const N: usize>(
    out: &mut Summed<impl Write>,
    numbers: &[T],
    encode: fn(T) -> [u8; N],
) -> io::Result<()> {
    for chunk in numbers.chunks(CHUNK) {
        let bytes: Vec<[u8; N]> = chunk.iter().map(|&number| encode(number)).collect();
        out.write_all(bytes.as_flattened())?;
    }
    Ok(())
}

fn take<T, const N: usize>(
    input: &mut Summed<impl Read>,
    count: usize,
    decode: fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let mut numbers = Vec::with_capacity(count);
    let mut bytes = [[0; N]; CHUNK];
    while numbers.len() < count {
        let chunk = &mut bytes[..CHUNK.min(count - numbers.len())];
        input.read_exact(chunk.as_flattened_mut())?;
        numbers.extend(chunk.iter().map(|&number| decode(number)));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::index::UNLABELLED;
    use super::*;

    fn small() -> Index {
        let mut index = Index::default();
        for (number, name) in ["a/1.jpg", "a/2.jpg", "ü.png"].into_iter().enumerate() {
            let label = [0, 7, UNLABELLED][number];
            let place = (512 + 1024 * number as u64, 100);
            index.push(Path::new("t"), (name, label), place).unwrap();
        }
        let stamp = Stamp {
            size: 4096,
            modified: 5,
        };
        index.end_archive(stamp);
        index
    }

    fn written(index: &Index) -> Vec<u8> {
        let mut file = Vec::new();
        write(index, "of this", &mut file).unwrap();
        file
    }

    fn read_back(file: &[u8], contents: &str) -> Option<Index> {
        read(file, file.len() as u64, contents).ok().flatten()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let index = small();
        let file = written(&index);
        assert_eq!(read_back(&file, "of this").as_ref(), Some(&index));
        assert_eq!(read_back(&file, "of that"), None);
        assert_eq!(
            read_back(&written(&Index::default()), "of this"),
            Some(Index::default())
        );
    }

    #[test]
    fn any_other_byte_and_any_missing_one_is_noticed() {
        let file = written(&small());
        for at in 0..file.len() {
            assert_eq!(read_back(&file[..at], "of this"), None);
            let mut damaged = file.clone();
            damaged[at] ^= 0x41;
            assert_eq!(read_back(&damaged, "of this"), None, "byte {at}");
        }
    }

    #[test]
    fn numbers_that_lead_outside_are_noticed_behind_a_right_checksum() {
        for change in [
            |index: &mut Index| index.offsets[2] = 3997,
            |index: &mut Index| index.offsets[0] = u64::MAX,
            |index: &mut Index| index.lengths[1] = u32::MAX,
            |index: &mut Index| index.name_ends[0] = 15,
            |index: &mut Index| index.name_ends[2] = 16,
            |index: &mut Index| index.name_ends[1] = 15,
            |index: &mut Index| index.archive_ends[0] = 2,
        ] {
            let mut index = small();
            change(&mut index);
            assert_eq!(read_back(&written(&index), "of this"), None);
        }
        let mut edge = small();
        edge.offsets[2] = 3996;
        assert!(read_back(&written(&edge), "of this").is_some());
    }

    /// As many images as ImageNet has for training, with names as long as its.
    fn imagenet_sized() -> Index {
        let mut index = Index::default();
        for number in 0..1_281_167u64 {
            let (class, image) = (number / 1282, number % 1282);
            let name = format!("n{:08}/n{:08}_{image:05}.JPEG", class, class);
            let place = (number * 110_592, 110_000);
            index
                .push(Path::new("t"), (&name, class as u16), place)
                .unwrap();
        }
        let stamp = Stamp {
            size: 1 << 40,
            modified: 0,
        };
        index.end_archive(stamp);
        index
    }

    #[test]
    fn all_of_imagenet_takes_64_megabytes_of_memory_and_as_many_on_disk() {
        let index = imagenet_sized();
        let file = written(&index);
        let images = 1_281_167;
        assert_eq!(file.len(), 12 + 32 + 7 + 20 + images * (18 + 30) + 4);
        drop(index);
        let index = read_back(&file, "of this").unwrap();
        assert_eq!(index.memory(), images * (8 + 4 + 2 + 4 + 30) + 20);
        assert!(index.memory() < 64_000_000);
        let last = index.entry(images - 1);
        assert_eq!(last.name, "n00000999/n00000999_00448.JPEG");
        assert_eq!(last.offset, 1_281_166 * 110_592);
    }
}
