//! Manifests of data sets.

use crate::manifest::Manifest;

/// The input is the text of a manifest.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Manifest::parse("input", &text) {
        Ok(manifest) => {
            assert!(!manifest.files.is_empty());
            let largest = manifest.files.iter().map(|file| file.bytes).max();
            assert!(Some(manifest.download_bytes()) >= largest);
        }
        Err(error) => assert!(!format!("{error:#}").is_empty()),
    }
}
