//! Compression of pages.

use std::io::Read;

use super::stored_file::{Damage, damaged};

/// How the pages of a column are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Snappy,
    Gzip,
    Zstd,
    /// LZ4 blocks without a frame.
    Lz4,
}

impl Codec {
    /// By the number in the format's enumeration.
    pub(super) fn of(number: i32) -> Result<Self, String> {
        let name = match number {
            0 => return Ok(Codec::Plain),
            1 => return Ok(Codec::Snappy),
            2 => return Ok(Codec::Gzip),
            6 => return Ok(Codec::Zstd),
            7 => return Ok(Codec::Lz4),
            3 => "LZO",
            4 => "Brotli",
            5 => "LZ4 in Hadoop's frames",
            _ => "a compression of a later version",
        };
        Err(format!("pages compressed with {name}"))
    }

    /// The `size` bytes that `stored` stands for.
    ///
    /// A size that these bytes cannot stand for is refused before it is allocated, or memory grows with what comes.
    pub(super) fn decompress(self, stored: &[u8], size: usize) -> Result<Vec<u8>, Damage> {
        let bytes = match self {
            Codec::Plain => stored.to_vec(),
            Codec::Snappy => {
                // Three bytes of a copy stand for 64 at most.
                expandable(stored, size, 32)?;
                if snap::raw::decompress_len(stored).ok() != Some(size) {
                    return damaged("Snappy data of another length than its page");
                }
                let mut decoder = snap::raw::Decoder::new();
                let bytes = decoder.decompress_vec(stored);
                bytes.or_else(|error| damaged(format!("no Snappy data: {error}")))?
            }
            Codec::Lz4 => {
                expandable(stored, size, 256)?;
                let bytes = lz4_flex::block::decompress(stored, size);
                bytes.or_else(|error| damaged(format!("no LZ4 data: {error}")))?
            }
            Codec::Gzip => grow(flate2::read::MultiGzDecoder::new(stored), size)?,
            Codec::Zstd => {
                let frames = ruzstd::decoding::StreamingDecoder::new(stored);
                grow(
                    frames.or_else(|error| damaged(format!("no zstd data: {error}")))?,
                    size,
                )?
            }
        };
        if bytes.len() != size {
            return damaged(format!(
                "{} bytes in a page that claims {size}",
                bytes.len()
            ));
        }
        Ok(bytes)
    }
}

fn expandable(stored: &[u8], size: usize, most: usize) -> Result<(), Damage> {
    if size > stored.len().saturating_mul(most) {
        let stored = stored.len();
        return damaged(format!("{stored} bytes that claim to stand for {size}"));
    }
    Ok(())
}

/// All that comes, but not more than one byte too many.
fn grow(source: impl Read, size: usize) -> Result<Vec<u8>, Damage> {
    let mut bytes = Vec::new();
    let read = source.take(size as u64 + 1).read_to_end(&mut bytes);
    read.or_else(|error| damaged(format!("damaged compressed data: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_that_cannot_be_are_refused() {
        let content = [7; 1000];
        let packed = [
            (Codec::Plain, content.to_vec()),
            (
                Codec::Snappy,
                snap::raw::Encoder::new().compress_vec(&content).unwrap(),
            ),
            (Codec::Lz4, lz4_flex::block::compress(&content)),
        ];
        for (codec, stored) in packed {
            assert_eq!(
                codec.decompress(&stored, 1000).unwrap(),
                content,
                "{codec:?}"
            );
            for claim in [0, 999, 1001, 1 << 30, usize::MAX] {
                assert!(
                    codec.decompress(&stored, claim).is_err(),
                    "{codec:?}, {claim}"
                );
            }
        }
        for codec in [Codec::Snappy, Codec::Gzip, Codec::Zstd, Codec::Lz4] {
            assert!(
                codec.decompress(b"neither of them", 1 << 31).is_err(),
                "{codec:?}"
            );
            assert!(codec.decompress(b"", 1).is_err(), "{codec:?}");
        }
    }
}
