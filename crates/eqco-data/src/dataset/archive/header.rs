//! One header of a tar archive: 512 bytes that tell name, kind and size of what follows.

/// Headers and contents begin at multiples of this many bytes.
pub(super) const BLOCK: usize = 512;

/// What a header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// GNU's: the content is the name of the next member.
    LongName,
    /// GNU's: the content is where the next member, a link, leads.
    LongLink,
    /// POSIX's: the content is settings of the next member.
    Pax,
    /// POSIX's: settings of all members that follow.
    GlobalPax,
    /// Links, devices, sparse files and whatever else there is, by its letter.
    Other(u8),
}

/// A header that has been checked against its own checksum.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// As it stands there, with `/` between folders.
    pub(super) name: Vec<u8>,
    /// Bytes of the content, as the header claims.
    pub(super) size: u64,
}

/// What is wrong with a part of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Flaw {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl Header {
    /// Reads a header; `None` is the empty block that ends an archive.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>, Flaw> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if block.starts_with(&[0x1f, 0x8b]) {
            let expected = "an uncompressed archive, whose images can be read in place";
            return Err(Flaw::new(expected, "a gzip file (unpack it with gunzip)"));
        }
        check_sum(block)?;
        let name = name(block);
        let kind = match block[156] {
            // Archives older than POSIX tell folders by the end of their names.
            0 | b'0' if name.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' => Kind::File,
            b'5' => Kind::Folder,
            b'L' => Kind::LongName,
            b'K' => Kind::LongLink,
            b'x' => Kind::Pax,
            b'g' => Kind::GlobalPax,
            other => Kind::Other(other),
        };
        let size = number(&block[124..136])?;
        Ok(Some(Self { kind, name, size }))
    }
}

/// The sum of all bytes, the checksum's own taken for spaces; some old programs summed them as signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), Flaw> {
    let bytes = || block[..148].iter().chain(&block[156..]);
    let unsigned: i64 = 8 * 32 + bytes().map(|&byte| i64::from(byte)).sum::<i64>();
    let signed: i64 = 8 * 32 + bytes().map(|&byte| i64::from(byte as i8)).sum::<i64>();
    match number(&block[148..156]) {
        Ok(sum) if [Ok(unsigned), Ok(signed)].contains(&i64::try_from(sum)) => Ok(()),
        _ => Err(Flaw::new(
            "a tar header with the right checksum",
            "something else",
        )),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// The name, behind its folders where POSIX's second field holds some.
fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    // GNU's archives have `ustar` and a space, and other things in the second field.
    let folders = until_nul(&block[345..500]);
    if &block[257..263] != b"ustar\0" || folders.is_empty() {
        return name.to_vec();
    }
    [folders, b"/", name].concat()
}

/// A number in octal digits, or GNU's form for large ones: a set highest bit, then the number in base 256.
fn number(field: &[u8]) -> Result<u64, Flaw> {
    let flaw = || Flaw::new("a number from 0 to 2^63", format!("{field:02x?}"));
    let value = match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // The bit below is the sign.
            if first & 0x40 != 0 {
                return Err(Flaw::new("a number from 0 to 2^63", "a negative one"));
            }
            rest.iter()
                .try_fold(u64::from(first & 0x3f), |value, &byte| {
                    value.checked_mul(256)?.checked_add(u64::from(byte))
                })
        }
        _ => {
            let digits = until_nul(field).trim_ascii();
            digits.iter().try_fold(0u64, |value, &digit| {
                let digit = (digit as char).to_digit(8)?;
                value.checked_mul(8)?.checked_add(u64::from(digit))
            })
        }
    };
    value
        .filter(|&value| i64::try_from(value).is_ok())
        .ok_or_else(flaw)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valid header of the tar crate, changed, with its checksum set anew.
    fn changed(change: impl FnOnce(&mut [u8; BLOCK])) -> Result<Option<Header>, Flaw> {
        let mut header = tar::Header::new_ustar();
        header.set_path("folder/image.jpg").unwrap();
        header.set_size(0o1234);
        change(header.as_mut_bytes());
        header.set_cksum();
        Header::parse(header.as_bytes())
    }

    fn found(header: Result<Option<Header>, Flaw>) -> String {
        header.unwrap_err().found
    }

    #[test]
    fn what_the_tar_crate_writes_is_read() {
        let header = changed(|_| ()).unwrap().unwrap();
        assert_eq!(header.name, b"folder/image.jpg");
        assert_eq!((header.kind, header.size), (Kind::File, 0o1234));
        let folders = changed(|block| block[345..348].copy_from_slice(b"a/b"));
        assert_eq!(folders.unwrap().unwrap().name, b"a/b/folder/image.jpg");
        let gnu = changed(|block| {
            block[257..265].copy_from_slice(b"ustar  \0");
            block[345..348].copy_from_slice(b"123");
        });
        assert_eq!(gnu.unwrap().unwrap().name, b"folder/image.jpg");
        let link = changed(|block| block[156] = b'2').unwrap().unwrap();
        assert_eq!(link.kind, Kind::Other(b'2'));
        assert_eq!(Header::parse(&[0; BLOCK]), Ok(None));
    }

    #[test]
    fn sizes_are_read_in_both_forms_or_refused() {
        let sized = |field: &[u8; 12]| changed(|block| block[124..136].copy_from_slice(field));
        let size = |field| sized(field).unwrap().unwrap().size;
        assert_eq!(size(b"00000000017\0"), 15);
        assert_eq!(size(b"        17 \0"), 15);
        assert_eq!(size(b"777777777777"), (1 << 36) - 1);
        assert_eq!(
            size(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]),
            (2 << 32) + 1
        );
        let largest = [0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(size(&largest), i64::MAX as u64);
        // 2^63, 2^64 + 1, 2^88 and more, -1, digits that are none.
        for field in [
            &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xbf; 12],
            b"00000000019\0",
            b"-0000000001\0",
            b"0x000000001\0",
        ] {
            assert!(sized(field).is_err(), "{field:?}");
        }
        assert_eq!(found(sized(&[0xff; 12])), "a negative one");
    }

    #[test]
    fn damaged_and_compressed_headers_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_path("image.jpg").unwrap();
        header.set_cksum();
        let mut block = *header.as_bytes();
        assert!(Header::parse(&block).is_ok());
        block[3] ^= 1;
        assert_eq!(found(Header::parse(&block)), "something else");
        block[..2].copy_from_slice(&[0x1f, 0x8b]);
        assert!(found(Header::parse(&block)).contains("gunzip"));
        assert!(Header::parse(&[0xff; BLOCK]).is_err());
    }
}
