//! Footer and pages of Parquet files.

use eqco_data::{Format, Split};

use crate::{files, input, reading};

const MAGIC: &[u8] = b"PAR1";

/// The first byte says whether the rest is a file (0), or pages and a footer, to be made one: see [`from_parts`].
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let file = match choice & 1 {
        0 => data.to_vec(),
        _ => from_parts(data),
    };
    files::with(&[("train.parquet", &file)], |root| {
        reading::open_and_read(&root.join("train.parquet"), Split::Train, Format::Parquet);
    });
}

/// A file with the right length behind its footer: pages and footer as [`input::two`] takes them apart, footer first.
fn from_parts(data: &[u8]) -> Vec<u8> {
    let (footer, pages) = input::two(data);
    let length = (footer.len() as u32).to_le_bytes();
    [MAGIC, pages, footer, &length, MAGIC].concat()
}

/// The input that makes a given file of parts; `None` for one with a footer of 64 KiB or more.
pub fn to_parts(file: &[u8]) -> Option<Vec<u8>> {
    let (rest, tail) = file.split_last_chunk::<8>()?;
    let length = u32::from_le_bytes(tail[..4].try_into().ok()?) as usize;
    let (pages, footer) = rest.split_at(rest.len().checked_sub(length)?);
    if length > usize::from(u16::MAX) {
        return None;
    }
    Some([&[1][..], &input::join(footer, pages.strip_prefix(MAGIC)?)].concat())
}
