//! A look at a library file before it is opened: the system's loader maps a file that was cut off without complaint, and
//! the process dies of the first page that is not there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Length of a 64-bit ELF file's header.
const HEADER: usize = 64;

/// Refuses an ELF file that is shorter than its own header says. Files that cannot be read, and other formats, are the
/// loader's to judge.
///
/// # Errors
/// What was expected and what was found.
pub(super) fn check_length(path: &Path) -> Result<(), String> {
    let Ok(mut file) = File::open(path) else {
        return Ok(());
    };
    let Ok(length) = file.metadata().map(|metadata| metadata.len()) else {
        return Ok(());
    };
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(_) => return Err(format!("{length} bytes are too few for a library")),
    }
    match end_of_sections(&header) {
        Some(end) if end > length => Err(format!(
            "the file is cut off: expected at least {end} bytes, found {length}"
        )),
        _ => Ok(()),
    }
}

/// Where the table of sections ends, which linkers write last; `None` of anything but little-endian 64-bit ELF.
fn end_of_sections(header: &[u8; HEADER]) -> Option<u64> {
    const MAGIC_64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
    header.starts_with(MAGIC_64_LITTLE).then(|| {
        let word = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let start = (0x28..0x30)
            .rev()
            .fold(0, |value, at| value << 8 | u64::from(header[at]));
        u64::saturating_add(start, word(0x3a) * word(0x3c))
    })
}
