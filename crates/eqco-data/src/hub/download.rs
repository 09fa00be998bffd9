//! One file from the hub into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::address::Address;
use super::cache::CacheFolder;
use super::client::{Client, Failure, header, lasting};

/// Tries in a row that bring nothing.
const MOST_TRIES: u32 = 5;

const BUFFER_BYTES: usize = 1 << 16;

/// Brings files of one commit.
pub(super) struct Downloader<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a CacheFolder,
    pub(super) address: &'a Address,
    pub(super) commit: &'a str,
    pub(super) progress: ProgressBar,
    /// Before the second try; each further one waits twice as long.
    pub(super) first_pause: Duration,
}

/// What the hub says about a file.
struct FileIdentity {
    /// The name of the content: its SHA-256 where the hub knows it, for large files.
    etag: String,
    bytes: u64,
}

impl Downloader<'_> {
    /// Makes sure that the file `name` is in the snapshot. What an earlier try left is gone on with.
    pub(super) fn bring(&self, name: &str) -> Result<(), Failure> {
        if self.cache.snapshot(self.commit).join(name).is_file() {
            return Ok(());
        }
        let path = format!(
            "datasets/{}/resolve/{}/{name}",
            self.address.id(),
            self.commit
        );
        let identity = self.with_tries(|| self.identity(&path))?;
        let _lock = self.cache.lock(&identity.etag)?;
        let blob = self.cache.blob(&identity.etag);
        self.progress.inc_length(identity.bytes);
        if fs::metadata(&blob).is_ok_and(|about| about.len() == identity.bytes) {
            self.progress.inc(identity.bytes);
        } else {
            let incomplete = self.cache.incomplete(&identity.etag);
            self.fill(&path, &incomplete, identity.bytes)?;
            check(&incomplete, &identity)?;
            fs::rename(&incomplete, &blob)?;
        }
        Ok(self.cache.link(&identity.etag, self.commit, name)?)
    }

    fn identity(&self, path: &str) -> Result<FileIdentity, Failure> {
        let answer = self.client.head(path)?;
        if header(&answer, "x-repo-commit").is_some_and(|commit| commit != self.commit) {
            return lasting("the server has another commit of this file");
        }
        let etag = header(&answer, "x-linked-etag").or(header(&answer, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let is_plain = |etag: &&str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=128).contains(&etag.len()) && etag.bytes().all(plain)
        };
        let bytes = header(&answer, "x-linked-size").or(header(&answer, "content-length"));
        match (
            etag.filter(is_plain),
            bytes.and_then(|bytes| bytes.parse().ok()),
        ) {
            (Some(etag), Some(bytes)) => Ok(FileIdentity {
                etag: etag.to_owned(),
                bytes,
            }),
            _ => lasting("the server tells no length and ETag of this file, as the hub does"),
        }
    }

    /// Asks until all bytes are there. A try that brought something does not count.
    fn fill(&self, path: &str, target: &Path, bytes: u64) -> Result<(), Failure> {
        let present = || fs::metadata(target).map_or(0, |about| about.len());
        if present() > bytes {
            fs::remove_file(target)?;
        }
        self.progress.inc(present());
        while present() < bytes {
            self.with_tries(|| {
                let before = present();
                match self.extend(path, target, before, bytes) {
                    Err(Failure::Passing(_)) if present() > before => Ok(()),
                    other => other,
                }
            })?;
        }
        // An empty file is asked for nothing.
        File::options().create(true).append(true).open(target)?;
        Ok(())
    }

    /// Appends what is missing, as far as it comes.
    fn extend(&self, path: &str, target: &Path, present: u64, bytes: u64) -> Result<(), Failure> {
        let answer = self.client.get(path, present)?;
        // A server without ranges sends the file from its start.
        let from_start = answer.status() != StatusCode::PARTIAL_CONTENT;
        let first = if from_start { 0 } else { present };
        if !from_start && first_of_range(&answer) != Some(present) {
            return lasting("the server sent another range than it was asked for");
        }
        let announced = answer.body().content_length();
        if announced.is_some_and(|length| length != bytes - first) {
            let length = announced.unwrap_or_default();
            return lasting(format!("{length} bytes instead of {}", bytes - first));
        }
        if from_start {
            self.progress.dec(present);
        }
        let target = OpenOptions::new()
            .create(true)
            .write(true)
            .append(!from_start)
            .truncate(from_start)
            .open(target)?;
        self.receive(answer, target, bytes - first)
    }

    fn receive(
        &self,
        answer: Response<Body>,
        mut target: File,
        mut missing: u64,
    ) -> Result<(), Failure> {
        let mut content = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        while missing > 0 {
            let count = content.read(&mut buffer);
            let count =
                count.map_err(|error| Failure::Passing(format!("connection lost: {error}")))?;
            if count == 0 {
                return Err(Failure::Passing(format!("{missing} bytes never came")));
            }
            if count as u64 > missing {
                return lasting("more bytes than the file has");
            }
            target.write_all(&buffer[..count])?;
            missing -= count as u64;
            self.progress.inc(count as u64);
        }
        Ok(())
    }

    /// Asks again where that may help.
    pub(super) fn with_tries<T>(
        &self,
        attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        with_tries(self.first_pause, attempt)
    }
}

/// Tries again, after longer and longer pauses, what may pass.
pub(super) fn with_tries<T>(
    mut pause: Duration,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    for _ in 1..MOST_TRIES {
        match attempt() {
            Err(Failure::Passing(_)) => thread::sleep(pause),
            other => return other,
        }
        pause *= 2;
    }
    match attempt() {
        Err(Failure::Passing(reason)) => {
            lasting(format!("{reason}; gave up after {MOST_TRIES} tries"))
        }
        other => other,
    }
}

/// Compares a content with its name, where that is its SHA-256. What is wrong is removed.
fn check(content: &Path, identity: &FileIdentity) -> Result<(), Failure> {
    let is_digest =
        identity.etag.len() == 64 && identity.etag.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_digest {
        return Ok(());
    }
    let (mut file, mut digest) = (File::open(content)?, Sha256::new());
    std::io::copy(&mut file, &mut digest)?;
    let digest: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if digest != identity.etag.to_ascii_lowercase() {
        fs::remove_file(content)?;
        let expected = &identity.etag;
        return lasting(format!(
            "content with the SHA-256 {digest} instead of {expected}"
        ));
    }
    Ok(())
}

/// FIRST of `Content-Range: bytes FIRST-LAST/TOTAL`.
fn first_of_range(answer: &Response<Body>) -> Option<u64> {
    let range = header(answer, "content-range")?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}
