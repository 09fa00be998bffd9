//! One file over the network: in segments, several at a time, going on where it was cut.
//!
//! Each segment is a file of its own, `NAME.FIRST-END.part`, and its length is the progress: there
//! is no other state to keep in step with it. A later run may take another mirror, or the file may
//! have changed on the server meanwhile; the hash of the whole decides, not an ETag.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::{Response, StatusCode};
use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::http::{HttpClient, content_range};
use super::manifest::RemoteFile;
use super::{digest, full_disk};

/// How patient and how greedy a download is.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Length of a segment.
    pub segment_bytes: u64,
    /// Most connections at a time.
    pub connections: usize,
    /// Tries in a row that bring nothing before a segment fails.
    pub attempts: u32,
    /// Pause after the first failed try; it doubles with each further one.
    pub first_pause: Duration,
    /// Longest wait for an answer or for the next bytes.
    pub patience: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            connections: 8,
            attempts: 6,
            first_pause: Duration::from_millis(500),
            patience: Duration::from_secs(30),
        }
    }
}

/// What all downloads of a run share.
#[derive(Clone)]
pub struct Downloader {
    client: HttpClient,
    slots: Arc<Semaphore>,
    manners: Manners,
    progress: ProgressBar,
}

/// A piece of a file: `range` of the remote bytes, collected in `path`.
#[derive(Debug, Clone)]
struct Part {
    range: Range<u64>,
    path: PathBuf,
}

/// Why a try failed, and whether another one may help.
enum Failure {
    Passing(Error),
    Lasting(Error),
}

impl Downloader {
    /// Counts the bytes that arrive on `progress`.
    pub fn new(manners: Manners, progress: ProgressBar) -> Result<Self> {
        Ok(Self {
            client: HttpClient::new(manners.patience)?,
            slots: Arc::new(Semaphore::new(manners.connections)),
            manners,
            progress,
        })
    }

    /// Brings `file` into the existing `folder` and returns its path once length and hash are right.
    ///
    /// A file that an earlier run completed is not asked for. Addresses are tried in order. A file with
    /// the wrong hash is removed with its parts, so that the next try starts afresh.
    pub async fn download(&self, file: RemoteFile, folder: PathBuf) -> Result<PathBuf> {
        if is_there(&file, &folder).await? {
            self.progress.inc(file.bytes);
            return Ok(folder.join(&file.name));
        }
        let mut complaints = Vec::new();
        for address in &file.urls {
            match self.download_from(address, &file, &folder).await {
                Ok(path) => return Ok(path),
                Err(error) if full_disk::is_the_cause(&error) => return Err(error),
                Err(error) => complaints.push(format!("{address}: {error:#}")),
            }
        }
        bail!(
            "cannot download {}: {}\nhint: files brought by other means are taken with --from PATH",
            file.name,
            complaints.join("; ")
        )
    }

    async fn download_from(
        &self,
        address: &str,
        file: &RemoteFile,
        folder: &Path,
    ) -> Result<PathBuf> {
        let parts = match self.serves_ranges(address, file.bytes).await? {
            true => parts(file, folder, self.manners.segment_bytes),
            false => parts(file, folder, file.bytes),
        };
        self.progress.inc(parts.iter().map(Part::present).sum());
        let outcome = self.fill_all(address, &parts).await;
        if outcome.is_err() {
            self.progress.dec(parts.iter().map(Part::present).sum());
        }
        outcome?;
        let target = folder.join(&file.name);
        let expected = file.identity();
        let (joined_parts, joined) = (parts.clone(), target.clone());
        let got = tokio::task::spawn_blocking(move || {
            let paths: Vec<_> = joined_parts.iter().map(|part| &part.path).collect();
            digest::join(&paths, &joined)
        });
        let verdict = digest::check(&expected, &got.await??);
        for part in &parts {
            fs::remove_file(&part.path)?;
        }
        if verdict.is_err() {
            fs::remove_file(&target)?;
            self.progress.dec(file.bytes);
        }
        verdict.map(|()| target)
    }

    /// Asks for one byte: does the server answer ranges, and is the file as long as it should be?
    async fn serves_ranges(&self, address: &str, expected_bytes: u64) -> Result<bool> {
        let attempt = async || {
            let _slot = self.slots.acquire().await;
            let answer = self.client.get_range(address, 0..1).await;
            let answer = answer.map_err(Failure::Passing)?;
            check_status(answer.status())?;
            Ok(answer)
        };
        let answer = self.with_retries(attempt).await?;
        if let Some(bytes) = total_bytes(&answer) {
            ensure!(
                bytes == expected_bytes,
                "the server's file has {bytes} bytes, expected {expected_bytes}"
            );
        }
        Ok(answer.status() == StatusCode::PARTIAL_CONTENT)
    }

    /// The first failure ends the other parts too; what has come of them stays.
    async fn fill_all(&self, address: &str, parts: &[Part]) -> Result<()> {
        let mut running = JoinSet::new();
        for part in parts {
            let (downloader, address, part) = (self.clone(), address.to_owned(), part.clone());
            running.spawn_local(async move { downloader.fill(&address, &part).await });
        }
        while let Some(outcome) = running.join_next().await {
            outcome??;
        }
        Ok(())
    }

    /// A try that brought something does not count as a failed one.
    async fn fill(&self, address: &str, part: &Part) -> Result<()> {
        loop {
            let before = part.present();
            if before == part.wanted() {
                return Ok(());
            }
            let attempt = async || {
                let _slot = self.slots.acquire().await;
                match self.extend(address, part).await {
                    Err(Failure::Passing(_)) if part.present() > before => Ok(()),
                    other => other,
                }
            };
            self.with_retries(attempt).await?;
            if part.present() < part.wanted() {
                tokio::time::sleep(self.manners.first_pause).await;
            }
        }
    }

    /// Asks for what `part` lacks and appends it as it comes.
    async fn extend(&self, address: &str, part: &Part) -> Result<(), Failure> {
        let present = part.present();
        let first = part.range.start + present;
        let answer = self.client.get_range(address, first..part.range.end).await;
        let answer = answer.map_err(Failure::Passing)?;
        check_status(answer.status())?;
        // A server without ranges sends the file from its start.
        let answered_first = match answer.status() {
            StatusCode::PARTIAL_CONTENT => content_range(&answer).map(|(first, _)| first),
            _ => Some(0),
        };
        let from_start = answered_first == Some(part.range.start);
        if answered_first != Some(first) && !from_start {
            return Err(Failure::Lasting(anyhow!("the server sent another range")));
        }
        if from_start {
            self.progress.dec(present);
        }
        let output = part.open(from_start).map_err(Failure::Lasting)?;
        let room = if from_start {
            part.wanted()
        } else {
            part.wanted() - present
        };
        self.receive(answer.into_body(), output, room).await
    }

    async fn receive(
        &self,
        mut body: Incoming,
        mut output: File,
        mut room: u64,
    ) -> Result<(), Failure> {
        while room > 0 {
            let frame = tokio::time::timeout(self.manners.patience, body.frame())
                .await
                .map_err(|_| Failure::Passing(anyhow!("the server stopped sending")))?
                .ok_or_else(|| Failure::Passing(anyhow!("{room} bytes never came")))?
                .map_err(|error| Failure::Passing(error.into()))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            // A short write to the page cache: not worth a trip to another thread.
            output
                .write_all(&bytes[..taken])
                .context("cannot write what was downloaded")
                .map_err(Failure::Lasting)?;
            room -= taken as u64;
            self.progress.inc(taken as u64);
        }
        Ok(())
    }

    async fn with_retries<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        let mut pause = self.manners.first_pause;
        let mut tries = 1;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(error)) if tries >= self.manners.attempts => {
                    return Err(error.context(format!("gave up after {tries} tries")));
                }
                Err(Failure::Passing(_)) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }
}

impl Part {
    fn wanted(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Bytes on disk; none when the file cannot be looked at.
    fn present(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |data| data.len().min(self.wanted()))
    }

    fn open(&self, from_start: bool) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .write(true)
            .append(!from_start)
            .truncate(from_start)
            .open(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Is `file` in `folder`, whole and right?
async fn is_there(file: &RemoteFile, folder: &Path) -> Result<bool> {
    let path = folder.join(&file.name);
    if !path.is_file() {
        return Ok(false);
    }
    let got = tokio::task::spawn_blocking(move || digest::identity(&path)).await??;
    Ok(got == file.identity())
}

fn parts(file: &RemoteFile, folder: &Path, segment_bytes: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < file.bytes {
        let end = file.bytes.min(start + segment_bytes);
        parts.push(Part {
            range: start..end,
            path: folder.join(format!("{}.{start}-{end}.part", file.name)),
        });
        start = end;
    }
    parts
}

/// Length of the whole file, where the answer tells it.
fn total_bytes<B>(answer: &Response<B>) -> Option<u64> {
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        return content_range(answer)?.1;
    }
    let length = answer.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn check_status(status: StatusCode) -> Result<(), Failure> {
    let error = anyhow!("the server answered {status}");
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Passing(error)),
        _ if status.is_server_error() => Err(Failure::Passing(error)),
        _ => Err(Failure::Lasting(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::manifest::Unpack;

    #[test]
    fn parts_cover_a_file_without_gap_or_overlap() {
        for (bytes, segment_bytes) in [(1, 10), (10, 10), (11, 10), (29, 10)] {
            let file = RemoteFile {
                name: "f".to_owned(),
                urls: Vec::new(),
                bytes,
                sha256: String::new(),
                repacked: None,
                unpack: Unpack::Keep {},
            };
            let ranges: Vec<u64> = parts(&file, Path::new("."), segment_bytes)
                .into_iter()
                .flat_map(|part| part.range)
                .collect();
            assert_eq!(ranges, (0..bytes).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, may_pass) in [
            (404, false),
            (403, false),
            (416, false),
            (429, true),
            (503, true),
        ] {
            let verdict = check_status(StatusCode::from_u16(status).unwrap());
            let passing = matches!(verdict, Err(Failure::Passing(_)));
            assert_eq!(passing, may_pass, "{status}");
            assert!(verdict.is_err(), "{status}");
        }
    }
}
