//! Is this file the right one? Length first, then SHA-256.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::manifest::Identity;

/// Copies `sources`, one after the other, into `target` and returns what arrived there.
pub fn join(sources: &[impl AsRef<Path>], target: &Path) -> Result<Identity> {
    let mut output =
        File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
    let mut sum = Sum::default();
    for source in sources {
        let source = source.as_ref();
        sum.read_through(source, |chunk| output.write_all(chunk))
            .with_context(|| format!("cannot copy {}", source.display()))?;
    }
    output.sync_all()?;
    Ok(sum.finish())
}

/// Length and hash of `path`.
pub fn identity(path: &Path) -> Result<Identity> {
    let mut sum = Sum::default();
    sum.read_through(path, |_| Ok(()))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sum.finish())
}

/// Says what differs when `got` is not `expected`.
pub fn check(expected: &Identity, got: &Identity) -> Result<()> {
    ensure!(
        got.bytes == expected.bytes,
        "expected {} bytes, got {}",
        expected.bytes,
        got.bytes
    );
    ensure!(
        got.sha256 == expected.sha256,
        "expected sha256 {}, got {}",
        expected.sha256,
        got.sha256
    );
    Ok(())
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    hasher: Sha256,
}

impl Sum {
    fn read_through(
        &mut self,
        path: &Path,
        mut receive: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut input = File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = input.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.bytes += count as u64;
            self.hasher.update(&buffer[..count]);
            receive(&buffer[..count])?;
        }
    }

    fn finish(self) -> Identity {
        let digest = self.hasher.finalize();
        Identity {
            bytes: self.bytes,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const HASH_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn joined_parts_hash_like_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let parts = [folder.path().join("1"), folder.path().join("2")];
        std::fs::write(&parts[0], "ab").unwrap();
        std::fs::write(&parts[1], "c").unwrap();
        let whole = folder.path().join("whole");

        let joined = join(&parts, &whole).unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), b"abc");
        assert_eq!(joined.bytes, 3);
        assert_eq!(joined.sha256, HASH_OF_ABC);
        assert_eq!(identity(&whole).unwrap(), joined);
    }

    #[test]
    fn a_difference_is_told() {
        let expected = Identity {
            bytes: 3,
            sha256: HASH_OF_ABC.to_owned(),
        };
        let longer = Identity {
            bytes: 4,
            ..expected.clone()
        };
        let other = Identity {
            sha256: "0".repeat(64),
            ..expected.clone()
        };
        check(&expected, &expected).unwrap();
        let told = check(&expected, &longer).unwrap_err().to_string();
        assert_eq!(told, "expected 3 bytes, got 4");
        let told = check(&expected, &other).unwrap_err().to_string();
        assert!(told.contains("got 0000"), "{told}");
    }
}
