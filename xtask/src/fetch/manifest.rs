//! The description of a data set, or of programs: `data/NAME.toml` and `data/toolchain/NAME.toml`.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use hyper::Uri;
use serde::Deserialize;

/// What `data/NAME.toml` says. NAME is both the data set's name and the folder it lands in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The file's stem; not a key of the file.
    #[serde(skip)]
    pub name: String,
    /// What it is, in one line.
    pub title: String,
    /// Where its authors describe it.
    pub homepage: String,
    /// The terms that it may be used under, as far as its authors state any.
    pub licence: String,
    /// How the unpacked files are laid out.
    pub format: Format,
    /// Most bytes that all files together may unpack to.
    pub max_unpacked_bytes: u64,
    /// What is downloaded.
    #[serde(rename = "file")]
    pub files: Vec<RemoteFile>,
}

/// Layout of an unpacked data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// MNIST's IDX files, with or without gzip.
    Idx,
    /// Records of one label byte and 3x32x32 pixel bytes.
    CifarBinary,
    /// One sub-folder a class, below `train` and `test` or `val`.
    ImageFolder,
    /// No images: kernels that the programs open at run time.
    SharedLibrary,
    /// No images: what a build needs besides Rust.
    Toolkit,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Idx => "IDX files",
            Self::CifarBinary => "CIFAR's binary records",
            Self::ImageFolder => "a folder of images a class",
            Self::SharedLibrary => "a shared library",
            Self::Toolkit => "compiler, headers and libraries",
        })
    }
}

/// One file to download.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// File name on disk.
    pub name: String,
    /// Addresses of the same bytes, tried in this order.
    pub urls: Vec<String>,
    /// Exact length.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// The same content in another wrapping, which `--from` takes as well.
    pub repacked: Option<Identity>,
    /// What is done with it once it is verified.
    pub unpack: Unpack,
}

/// Length and hash, which together say that a file is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Exact length.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// What is done with a verified file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum Unpack {
    /// Stays as it is.
    Keep {},
    /// A tar archive.
    Tar {
        /// Leading folders that are dropped from each path.
        #[serde(default)]
        strip_components: usize,
    },
    /// A zip archive, such as a Python wheel.
    Zip {
        /// Leading folders that are dropped from each path; a path that is no longer is left out.
        #[serde(default)]
        strip_components: usize,
    },
    /// A gzipped tar archive.
    TarGz {
        /// Leading folders that are dropped from each path.
        #[serde(default)]
        strip_components: usize,
    },
}

impl RemoteFile {
    /// What the downloaded file must be.
    pub fn identity(&self) -> Identity {
        Identity {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }
}

impl Manifest {
    /// Reads `folder/NAME.toml`; an unknown name is answered with the known ones.
    pub fn load(folder: &Path, name: &str) -> Result<Self> {
        let known = names(folder)?;
        if !known.iter().any(|known_name| known_name == name) {
            bail!(
                "no data set is called `{name}`\nhint: known are {}",
                known.join(", ")
            );
        }
        let path = folder.join(format!("{name}.toml"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(name, &text).with_context(|| format!("{} is not right", path.display()))
    }

    /// Parses and checks a manifest's text.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut manifest: Self = toml::from_str(text)?;
        manifest.name = name.to_owned();
        ensure!(!manifest.files.is_empty(), "it lists no file");
        for file in &manifest.files {
            check_file(file).with_context(|| format!("file `{}`", file.name))?;
        }
        Ok(manifest)
    }

    /// Bytes to download.
    pub fn download_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The names of all manifests in `folder`, sorted.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn check_file(file: &RemoteFile) -> Result<()> {
    let plain =
        !file.name.is_empty() && !file.name.starts_with('.') && !file.name.contains(['/', '\\']);
    ensure!(plain, "`name` must be a plain file name");
    ensure!(!file.urls.is_empty(), "`urls` is empty");
    for url in &file.urls {
        check_address(&url.parse::<Uri>().with_context(|| format!("`{url}`"))?)?;
    }
    check_identity(&file.identity())?;
    file.repacked.as_ref().map_or(Ok(()), check_identity)
}

fn check_identity(identity: &Identity) -> Result<()> {
    ensure!(identity.bytes > 0, "`bytes` is 0");
    let is_hash = identity.sha256.len() == 64
        && identity
            .sha256
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(is_hash, "`sha256` must be 64 lower-case hex digits");
    Ok(())
}

/// Refuses every address but https, and http to this very machine.
pub fn check_address(address: &Uri) -> Result<()> {
    let host = address.host().unwrap_or_default();
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match address.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => bail!("`{address}` is not an https address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        title = "Two images"
        homepage = "https://example.org"
        licence = "MIT"
        format = "image-folder"
        max_unpacked_bytes = 1000

        [[file]]
        name = "a.tgz"
        urls = ["https://example.org/a.tgz"]
        bytes = 12
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        unpack = { kind = "tar-gz", strip_components = 1 }
    "#;

    fn complaint(text: &str) -> String {
        format!("{:#}", Manifest::parse("two", text).unwrap_err())
    }

    #[test]
    fn a_good_manifest_is_read() {
        let manifest = Manifest::parse("two", GOOD).unwrap();
        assert_eq!(manifest.name, "two");
        assert_eq!(manifest.format, Format::ImageFolder);
        assert_eq!(manifest.download_bytes(), 12);
        assert_eq!(
            manifest.files[0].unpack,
            Unpack::TarGz {
                strip_components: 1
            }
        );
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("bytes = 12", "bytes = 0", "`bytes` is 0"),
            ("\"a.tgz\"", "\"../a.tgz\"", "plain file name"),
            (
                "https://example.org/a",
                "http://example.org/a",
                "not an https",
            ),
            ("https://example.org/a", "file:///etc/a", "invalid format"),
            ("0000\"", "000\"", "64 lower-case hex digits"),
            ("licence", "license", "unknown field `license`"),
            ("\"tar-gz\"", "\"rar\"", "unknown variant `rar`"),
        ];
        for (from, to, expected) in cases {
            assert_ne!(GOOD, GOOD.replacen(from, to, 1), "{from} is not there");
            let got = complaint(&GOOD.replacen(from, to, 1));
            assert!(got.contains(expected), "{from} -> {to}: {got}");
        }
    }

    #[test]
    fn http_is_for_this_machine_alone() {
        for (address, allowed) in [
            ("https://example.org/x", true),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080/x", true),
            ("http://localhost/x", true),
            ("http://127.0.0.1.example.org/x", false),
            ("http://example.org/x", false),
            ("/x", false),
        ] {
            let verdict = check_address(&address.parse().unwrap());
            assert_eq!(verdict.is_ok(), allowed, "{address}");
        }
    }

    #[test]
    fn every_manifest_of_this_repository_is_right() {
        let folder = crate::repository::root().join("data");
        let names = names(&folder).unwrap();
        for expected in ["cifar10", "fashion-mnist", "imagenette"] {
            assert!(names.iter().any(|name| name == expected), "{expected}");
        }
        for name in names {
            Manifest::load(&folder, &name).unwrap();
        }
    }
}
