//! A disk that is full: no other address and no other try will help, room will.

use std::io;
use std::path::Path;

use anyhow::{Error, anyhow};
use indicatif::HumanBytes;

use super::manifest::Manifest;

/// Did an operation fail because the disk, or the share of it that is ours, is full?
pub fn is_the_cause(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    })
}

/// `error`, with the room that `manifest` takes below `out` where room is what is missing.
pub fn explain(error: Error, manifest: &Manifest, out: &Path) -> Error {
    if !is_the_cause(&error) {
        return error;
    }
    let most = manifest.max_unpacked_bytes + manifest.download_bytes();
    anyhow!(
        "{error:#}\n\
         hint: {} has room for no more; up to {} are needed there. Make room, or choose another folder, and try again: \
         what has come so far is kept",
        out.display(),
        HumanBytes(most)
    )
}
