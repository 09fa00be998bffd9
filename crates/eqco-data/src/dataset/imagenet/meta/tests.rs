//! SciPy's files, whole and damaged.

use super::*;

const COMPRESSED_FILE: &[u8] = include_bytes!("../../../../tests/golden/devkit/meta.mat");
const PLAIN_FILE: &[u8] = include_bytes!("../../../../tests/golden/devkit/meta_uncompressed.mat");

#[test]
fn what_scipy_writes_is_read_compressed_or_not() {
    let expected = [
        (1, "n02119789"),
        (2, "n02100735"),
        (3, "n02110185"),
        (4, "n01440764"),
        (300, "n02096294"),
        (1001, "n00001740"),
        (1002, "n02075296"),
    ];
    for file in [COMPRESSED_FILE, PLAIN_FILE] {
        let found = synsets(file).unwrap();
        let found = found.iter().map(|(&number, wnid)| (number, wnid.as_str()));
        assert!(found.eq(expected));
    }
}

#[test]
fn other_files_and_parts_of_files_are_refused() {
    assert!(synsets(b"").is_err());
    assert!(synsets(&[0; 4096]).unwrap_err().contains("version 5"));
    let without = &PLAIN_FILE[..128];
    assert_eq!(
        synsets(without).unwrap_err(),
        "no array of structures `synsets`"
    );
    for file in [COMPRESSED_FILE, PLAIN_FILE] {
        for length in (0..file.len()).step_by(7) {
            assert!(synsets(&file[..length]).is_err(), "{length} bytes");
        }
    }
}

#[test]
fn damage_never_panics_and_takes_no_memory_by_claim() {
    let whole = synsets(PLAIN_FILE).unwrap();
    let mut other = 0;
    for at in 128..PLAIN_FILE.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut file = PLAIN_FILE.to_vec();
            file[at] = value;
            other += usize::from(synsets(&file).as_ref() != Ok(&whole));
        }
    }
    assert!(other > 500, "{other}");
    let mut huge = PLAIN_FILE[..128].to_vec();
    huge.extend([MATRIX, u32::MAX].map(u32::to_le_bytes).as_flattened());
    assert_eq!(synsets(&huge).unwrap_err(), "an element that is cut short");
}
