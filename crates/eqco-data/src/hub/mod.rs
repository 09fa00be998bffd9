//! Data sets of the Hugging Face hub: their Parquet files, kept in the cache that Hugging Face's other programs use.
//!
//! A client of our own, of some hundred lines: the crate `hf-hub` takes six minutes of compilation, with a C toolchain and cmake,
//! and licences that this project does not allow, and begins a download that broke from its start.

mod address;
#[cfg(test)]
mod birds;
mod cache;
mod client;
mod download;
#[cfg(test)]
mod server;
mod settings;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::dataset::{Parquet, ParquetFiles};
use crate::{DataError, Split};
use address::{Address, is_commit, is_safe_path};
use cache::CacheFolder;
use client::{Client, Failure, lasting};
use download::{Downloader, with_tries};

pub use settings::{HubSettings, Token};

/// The most bytes of an answer that lists files.
const MOST_LISTING_BYTES: u64 = 64 << 20;

/// A repository's files at a commit.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<ListedFile>,
}

#[derive(Debug, Deserialize)]
struct ListedFile {
    rfilename: String,
}

/// The hub, or a server that answers like it.
pub struct Hub {
    settings: HubSettings,
    first_pause: Duration,
}

impl Hub {
    /// A hub with these settings.
    pub fn new(settings: HubSettings) -> Self {
        Self {
            settings,
            first_pause: Duration::from_secs(1),
        }
    }

    /// Opens a split of `hf://datasets/OWNER/NAME[@REVISION][/SUBSET]`, after downloading those of its files that are not in the
    /// cache. The name of the data set is `OWNER/NAME[/SUBSET]@COMMIT`, with the commit that the revision was. Which files belong
    /// to a split is told by their names ([`Parquet::open`]).
    ///
    /// Offline, the cache alone is used, and the revision is what it was when it was last asked for.
    ///
    /// # Errors
    /// [`DataError::Hub`] if the address is none, access is refused, the set, revision or files are not there, or the connection
    /// does not last; those of [`Parquet::open`]. No error holds the token.
    pub fn open(&self, source: &str, split: Split) -> Result<Parquet, DataError> {
        let address = Address::parse(source);
        let address = address.map_err(|reason| hub_error(source, lasting_of(reason)))?;
        let cache = CacheFolder::new(&self.settings.cache, &address);
        let (commit, folder) = if self.settings.offline {
            self.find(&address, &cache)
        } else {
            self.bring(&address, &cache, split)
        }
        .map_err(|stop| match stop {
            Stop::Hub(failure) => hub_error(&address.text(), failure),
            Stop::Data(error) => error,
        })?;
        let slash = if address.subset.is_empty() { "" } else { "/" };
        let name = format!("{}{slash}{}@{commit}", address.id(), address.subset);
        Parquet::open(&folder, &name, split)
    }

    /// The folder of a set in the cache.
    fn find(&self, address: &Address, cache: &CacheFolder) -> Result<(String, PathBuf), Stop> {
        let commit = cache.commit(&address.revision);
        let folder = commit.map(|commit| (cache.snapshot(&commit).join(&address.subset), commit));
        match folder {
            Some((folder, commit)) if folder.is_dir() => Ok((commit, folder)),
            _ => {
                let hint = Some("unset HF_HUB_OFFLINE once, so that it can be downloaded");
                let reason = format!("it is not in {}", self.settings.cache.display());
                Err(Failure::Lasting(reason, hint).into())
            }
        }
    }

    /// Downloads what is missing of a split, and returns the commit and its folder.
    fn bring(
        &self,
        address: &Address,
        cache: &CacheFolder,
        split: Split,
    ) -> Result<(String, PathBuf), Stop> {
        let client = Client::new(&self.settings);
        let listing = with_tries(self.first_pause, || list(&client, address))?;
        let folder = cache.snapshot(&listing.sha).join(&address.subset);
        let names = listing.siblings.iter().map(|file| file.rfilename.as_str());
        let below: Vec<_> = names.filter_map(|name| address.below(name)).collect();
        let is_unsafe = |name: &&&str| name.ends_with(".parquet") && !is_safe_path(name);
        if let Some(name) = below.iter().find(is_unsafe) {
            let reason = format!("a file called `{name}`, which cannot be kept here");
            return Err(lasting_of(reason).into());
        }
        let below = below.into_iter().filter(|name| is_safe_path(name));
        let files =
            ParquetFiles::of_names(&PathBuf::from(address.text()), below.map(str::to_owned));
        let files = files.map_err(|error| match error {
            DataError::Layout { found, .. } if found == "none" => no_parquet(address),
            error => error,
        })?;
        let downloader = Downloader {
            client: &client,
            cache,
            address,
            commit: &listing.sha,
            progress: progress_bar(),
            first_pause: self.first_pause,
        };
        let bring = |name: &str| {
            let slash = if address.subset.is_empty() { "" } else { "/" };
            downloader.bring(&format!("{}{slash}{name}", address.subset))
        };
        let chosen = files.choose(split, |name| {
            bring(name).map_err(|failure| hub_error(&address.text(), failure))?;
            Parquet::has_labels(&folder.join(name))
        })?;
        for (number, name) in chosen.iter().enumerate() {
            let message = format!("{} of {} files", number + 1, chosen.len());
            downloader.progress.set_message(message);
            bring(name)?;
        }
        downloader.progress.finish_and_clear();
        cache
            .set_commit(&address.revision, &listing.sha)
            .map_err(Failure::from)?;
        Ok((listing.sha, folder))
    }
}

/// Either kind of reason to end.
enum Stop {
    Hub(Failure),
    Data(DataError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Hub(failure)
    }
}

impl From<DataError> for Stop {
    fn from(error: DataError) -> Self {
        Stop::Data(error)
    }
}

/// Asks which commit a revision is, and which files it has.
fn list(client: &Client, address: &Address) -> Result<Listing, Failure> {
    let revision = address.revision.replace('/', "%2F");
    let path = format!("api/datasets/{}/revision/{revision}", address.id());
    let answer = client.get(&path, 0)?.into_body();
    let bytes = answer
        .into_with_config()
        .limit(MOST_LISTING_BYTES)
        .read_to_vec();
    let bytes =
        bytes.map_err(|error| Failure::Passing(format!("a list that broke off: {error}")))?;
    match serde_json::from_slice::<Listing>(&bytes) {
        Ok(listing) if is_commit(&listing.sha) => Ok(listing),
        _ => lasting("the server's answer is no list of files: check HF_ENDPOINT"),
    }
}

fn lasting_of(reason: String) -> Failure {
    Failure::Lasting(reason, None)
}

fn hub_error(address: &str, failure: Failure) -> DataError {
    let (reason, hint) = match failure {
        Failure::Passing(reason) => (reason, None),
        Failure::Lasting(reason, hint) => (reason, hint.map(str::to_owned)),
    };
    DataError::Hub {
        address: address.to_owned(),
        reason,
        hint,
    }
}

fn no_parquet(address: &Address) -> DataError {
    let Address { owner, name, .. } = address;
    let hint = format!(
        "the hub converts many sets: try hf://datasets/{owner}/{name}@refs/convert/parquet, or with /SUBSET behind it"
    );
    DataError::Hub {
        address: address.text(),
        reason: "there is no Parquet file".to_owned(),
        hint: Some(hint),
    }
}

/// Vanishes when standard error is not a terminal.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
