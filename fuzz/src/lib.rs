//! What each fuzz target does with its bytes, and where its first inputs come from.
//!
//! A target hands the bytes to the function that a user's file would reach, through a file where there would be one. It may
//! return an error; it must not panic, hang, or take much more memory than the file has bytes. What can be said about a
//! success is asserted. Checksums and lengths that a random change nearly always breaks are set right in half of the
//! inputs, as somebody would who wants to deceive.

mod files;
mod input;
#[path = "../../xtask/src/fetch/manifest.rs"]
#[allow(dead_code)]
mod manifest;
mod reading;
pub mod seeds;
pub mod targets;
