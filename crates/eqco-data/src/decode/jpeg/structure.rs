//! Where a JPEG file really ends, from its markers alone (ITU-T T.81, annex B).

use memchr::memchr;

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// What the markers of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Structure {
    /// Position after the end marker. Whatever follows does not belong to the image.
    pub(super) end: usize,
    /// Whether all pixels are in a single scan that is not progressive.
    pub(super) one_sequential_scan: bool,
}

impl Structure {
    /// Walks from marker to marker; thumbnails inside segments are stepped over.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        let mut position = 2;
        let mut sequential = false;
        let mut scans = 0;
        loop {
            let (marker, after) = next_marker(bytes, position).ok_or("truncated: no end marker")?;
            match marker {
                END_OF_IMAGE => {
                    return Ok(Self {
                        end: after,
                        one_sequential_scan: sequential && scans == 1,
                    });
                }
                // Markers without a segment: start of image, TEM, restarts.
                0xd8 | 0x01 | 0xd0..=0xd7 => position = after,
                _ => {
                    let length = bytes
                        .get(after..after + 2)
                        .ok_or("truncated inside a header")?;
                    // Extended sequential is read as baseline is.
                    sequential |= marker == 0xc0 || marker == 0xc1;
                    scans += usize::from(marker == START_OF_SCAN);
                    position = after + usize::from(u16::from_be_bytes([length[0], length[1]]));
                }
            }
        }
    }
}

/// The next marker at or after `position` and the position after it. Steps over image data, in
/// which 0xff is followed by 0x00.
fn next_marker(bytes: &[u8], mut position: usize) -> Option<(u8, usize)> {
    loop {
        let rest = bytes.get(position..)?;
        position += memchr(0xff, rest)? + 1;
        match *bytes.get(position)? {
            0x00 => position += 1,
            // A fill byte: the marker is still to come.
            0xff => {}
            marker => return Some((marker, position + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start, a comment with an end marker inside, a frame header, one scan with a stuffed byte
    /// and a restart, the end, and something after it.
    const FILE: &[u8] = &[
        0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0xff, 0xc0, 0, 3, 9, 0xff, 0xda, 0, 2, 1, 0xff,
        0, 2, 0xff, 0xd0, 3, 0xff, 0xff, 0xd9, 7, 7,
    ];

    #[test]
    fn finds_the_real_end() {
        let expected = Structure {
            end: FILE.len() - 2,
            one_sequential_scan: true,
        };
        assert_eq!(Structure::of(FILE), Ok(expected));
        for cut in 2..FILE.len() - 2 {
            assert!(Structure::of(&FILE[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn progressive_files_are_told_apart() {
        let mut progressive = FILE.to_vec();
        progressive[9] = 0xc2;
        assert!(!Structure::of(&progressive).unwrap().one_sequential_scan);
    }
}
