//! The header, names and indices of a packed file.

use eqco_data::dataset::packed::format::{ENTRY_BYTES, HEADER_BYTES};
use eqco_data::{Format, Split};

use crate::{files, input, reading};

/// Whether all checksums are set right, as far as the header's numbers lead to something.
pub const REPAIR: u8 = 1;

/// Whether the header's length is that of the file, too.
pub const REPAIR_LENGTH: u8 = 2;

/// The first byte holds [`REPAIR`] and [`REPAIR_LENGTH`], the rest is a file.
pub fn check(data: &[u8]) {
    let (choice, file) = input::choice(data);
    let mut file = file.to_vec();
    if choice & REPAIR_LENGTH != 0 && file.len() >= HEADER_BYTES {
        let length = file.len() as u64;
        file[16..24].copy_from_slice(&length.to_le_bytes());
    }
    if choice & REPAIR != 0 {
        repair(&mut file);
    }
    files::with(&[("set.eqco", &file)], |root| {
        for split in [Split::Train, Split::Test] {
            reading::open_and_read(&root.join("set.eqco"), split, Format::Packed);
        }
    });
}

fn repair(file: &mut [u8]) {
    if file.len() < HEADER_BYTES {
        return;
    }
    let number = |file: &[u8], at: usize| {
        let bytes = file[at..at + 8].try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let [names, names_bytes, train, test] = [24, 32, 40, 48].map(|at| number(file, at));
    let index = names.saturating_add(names_bytes);
    let middle = index.saturating_add(train.saturating_mul(ENTRY_BYTES));
    let end = middle.saturating_add(test.saturating_mul(ENTRY_BYTES));
    for (place, part) in [(12, names..index), (56, index..middle), (60, middle..end)] {
        if let Some(bytes) = file.get(part) {
            let sum = crc32c::crc32c(bytes);
            file[place..place + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let sum = crc32c::crc32c(&file[..64]);
    file[64..68].copy_from_slice(&sum.to_le_bytes());
}
