//! Where shards are kept, how much room they have, and how long a server is waited for.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::DataError;
use crate::dataset::archive::cache_folder;

/// The folder of the cache; `eqco/shards` in the user's cache folder otherwise.
const FOLDER_VARIABLE: &str = "EQCO_SHARD_CACHE";

/// Its room in GiB.
const ROOM_VARIABLE: &str = "EQCO_SHARD_CACHE_GIB";

const GIB: u64 = 1 << 30;

/// How shards are fetched and kept.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// The folder of the cache, which several programs may share. It must lie on a disk on which files can be locked.
    pub cache: PathBuf,
    /// The most bytes that shards in the cache have together, those that are being fetched included.
    pub cache_bytes: u64,
    /// How often something is asked for before it is given up. A try that brought a MiB does not count.
    pub tries: u32,
    /// The pause before the second try; each further one is twice as long, up to a minute.
    pub first_pause: Duration,
    /// How long a server may be silent.
    pub patience: Duration,
    /// Who asks for objects of `s3://`, and where they are.
    pub s3: S3Settings,
}

/// Variables of AWS's programs by their names. Their values cannot be printed.
#[derive(Clone, Default)]
pub struct S3Settings(Vec<(String, String)>);

impl S3Settings {
    /// Variables such as `AWS_ACCESS_KEY_ID`; others are left out.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = variables.into_iter();
        Self(
            ours.filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
                .collect(),
        )
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&name[..], &value[..]))
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| name);
        formatter.debug_list().entries(names).finish()
    }
}

impl RemoteSettings {
    /// From `EQCO_SHARD_CACHE` (a folder), `EQCO_SHARD_CACHE_GIB` (its room, 32 otherwise) and AWS's variables.
    ///
    /// # Errors
    /// [`DataError::Remote`] with what is wrong with one of them, or if there is no folder to keep shards in.
    pub fn from_environment() -> Result<Self, DataError> {
        let variables = std::env::vars_os();
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut settings = Self::in_folder(
            std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from),
            std::env::var_os(ROOM_VARIABLE),
        )
        .map_err(|reason| DataError::Remote {
            address: "the cache of shards".to_owned(),
            reason,
            hint: Some(format!(
                "set {FOLDER_VARIABLE} to a folder, and {ROOM_VARIABLE} to its room"
            )),
        })?;
        settings.s3 = S3Settings::new(variables.filter_map(text));
        Ok(settings)
    }

    fn in_folder(folder: Option<PathBuf>, gib: Option<OsString>) -> Result<Self, String> {
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let usual = || Some(cache_folder()?.join("eqco").join("shards"));
        let cache = folder.or_else(usual).ok_or_else(|| {
            format!(
                "there is no folder to keep shards in: {FOLDER_VARIABLE} is not set, nor is HOME"
            )
        })?;
        let cache_bytes = match gib.filter(|gib| !gib.is_empty()) {
            None => 32 * GIB,
            Some(gib) => bytes_of(&gib.to_string_lossy())?,
        };
        Ok(Self {
            cache,
            cache_bytes,
            tries: 8,
            first_pause: Duration::from_secs(1),
            patience: Duration::from_secs(60),
            s3: S3Settings::default(),
        })
    }
}

/// The bytes of so many GiB, which may be parts of one.
fn bytes_of(gib: &str) -> Result<u64, String> {
    let number = gib.trim().parse::<f64>().ok();
    let bytes = number.map(|number| number * GIB as f64);
    // Below 2^63, beyond which no file system goes.
    let bytes = bytes.filter(|bytes| (1.0..9.0e18).contains(bytes));
    bytes
        .map(|bytes| bytes as u64)
        .ok_or_else(|| format!("{ROOM_VARIABLE}: expected a number of GiB above 0, got `{gib}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_read_from_its_variable() {
        let settings =
            |gib: Option<&str>| RemoteSettings::in_folder(Some("/c".into()), gib.map(Into::into));
        assert_eq!(settings(None).unwrap().cache_bytes, 32 << 30);
        assert_eq!(settings(Some("0.5")).unwrap().cache_bytes, 512 << 20);
        assert_eq!(settings(Some("500")).unwrap().cache_bytes, 500 << 30);
        for wrong in ["0", "-1", "many", "nan", "1e30"] {
            let error = settings(Some(wrong)).unwrap_err();
            assert!(
                error.contains("EQCO_SHARD_CACHE_GIB") && error.contains(wrong),
                "{error}"
            );
        }
        assert_eq!(settings(None).unwrap().cache, PathBuf::from("/c"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = S3Settings::new([
            pair("AWS_SECRET_ACCESS_KEY", "secret"),
            pair("AWS_SESSION_TOKEN", ""),
            pair("HOME", "/root"),
        ]);
        assert_eq!(format!("{settings:?}"), "[\"AWS_SECRET_ACCESS_KEY\"]");
        assert_eq!(settings.iter().count(), 1);
    }
}
