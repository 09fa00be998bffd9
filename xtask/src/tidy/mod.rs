//! `cargo xtask tidy`: this repository's own rules, over the files that git tracks.
//!
//! A rule is a function from a file to its findings; `sources` holds the rules on text, names and
//! sizes, `dependencies` the rules on who may depend on whom.

mod dependencies;
mod sources;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::repository;

/// A tracked file, as the rules see it.
#[derive(Debug)]
struct TrackedFile {
    /// Path from the repository's root, with `/`.
    path: String,
    bytes: Vec<u8>,
}

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl TrackedFile {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            bytes: text.into(),
        }
    }

    /// The content, when it is text.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Runs the verb.
pub fn run() -> Result<()> {
    let files = tracked_files(&repository::root())?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(sources::check(file));
    }
    findings.extend(dependencies::check(&files)?);
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(
        findings.is_empty(),
        "tidy: {} findings in {} files",
        findings.len(),
        files.len()
    );
    Ok(())
}

fn tracked_files(root: &Path) -> Result<Vec<TrackedFile>> {
    let listing = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    if !listing.status.success() {
        let told = String::from_utf8_lossy(&listing.stderr);
        bail!("`git ls-files` failed: {}", told.trim());
    }
    let mut files = Vec::new();
    for path in listing.stdout.split(|byte| *byte == 0) {
        let path = String::from_utf8_lossy(path).into_owned();
        // A file that is deleted but still tracked has nothing to say.
        if let Ok(bytes) = std::fs::read(root.join(&path)) {
            files.push(TrackedFile { path, bytes });
        }
    }
    Ok(files)
}
