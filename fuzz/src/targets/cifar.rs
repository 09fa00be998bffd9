//! The binary files of CIFAR-10 and CIFAR-100.

use eqco_data::{Format, Split};

use crate::{files, input, reading};

/// Whether it is CIFAR-100.
pub const FINE: u8 = 1;

/// Whether what is left of the last record is filled up.
pub const REPAIR: u8 = 2;

/// The first byte holds [`FINE`] and [`REPAIR`], then come the names of the classes and a file of records.
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let (names, records) = input::two(data);
    let is_fine = choice & FINE != 0;
    let mut records = records.to_vec();
    if choice & REPAIR != 0 {
        let record = 3072 + if is_fine { 2 } else { 1 };
        records.resize(records.len().next_multiple_of(record), 1);
    }
    let (names_file, records_file, format) = match is_fine {
        true => ("fine_label_names.txt", "test.bin", Format::Cifar100),
        false => ("batches.meta.txt", "test_batch.bin", Format::Cifar10),
    };
    files::with(&[(names_file, names), (records_file, &records)], |root| {
        reading::open_and_read(root, Split::Test, format);
    });
}
