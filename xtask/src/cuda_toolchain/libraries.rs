//! The names under which a linker looks for libraries.
//!
//! Wheels hold `libcublas.so.13`, which programs open; `-lcublas` looks for `libcublas.so`. cuDNN comes in a folder of its own
//! beside the toolkit, where neither linker nor compiler looks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::unix_files;

/// Makes all libraries and headers beside `toolkit` known within it; true when something had to be done.
pub fn link(toolkit: &Path) -> Result<bool> {
    let (libraries, headers) = (toolkit.join("lib"), toolkit.join("include"));
    let mut changed = make_link(Path::new("lib"), &toolkit.join("lib64"))?;
    for name in names(&libraries)? {
        if let Some(plain) = plain_name(&name) {
            changed |= make_link(Path::new(&name), &libraries.join(plain))?;
        }
    }
    for other in neighbours(toolkit)? {
        // As seen from `lib` or `include` of the toolkit.
        let from_there = Path::new("../..").join(other.file_name().unwrap_or_default());
        for name in names(&other.join("lib"))? {
            let target = from_there.join("lib").join(&name);
            if let Some(plain) = plain_name(&name) {
                changed |= make_link(&target, &libraries.join(&name))?;
                changed |= make_link(&target, &libraries.join(plain))?;
            }
        }
        for name in names(&other.join("include"))? {
            let target = from_there.join("include").join(&name);
            changed |= make_link(&target, &headers.join(&name))?;
        }
    }
    Ok(changed)
}

/// `libcublas.so` for `libcublas.so.13`, and `None` for what is no library with a version.
///
/// `libnvrtc.alt.so.13` is a second build of the library beside it, not another library.
fn plain_name(name: &str) -> Option<String> {
    let (stem, _version) = name.split_once(".so.")?;
    let library = stem.starts_with("lib") && !stem.ends_with(".alt");
    library.then(|| format!("{stem}.so"))
}

/// The folders beside `toolkit`, sorted.
fn neighbours(toolkit: &Path) -> Result<Vec<PathBuf>> {
    let parent = toolkit.parent().unwrap_or(toolkit);
    let mut folders: Vec<_> = names(parent)?
        .iter()
        .map(|name| parent.join(name))
        .filter(|path| path.is_dir() && path.file_name() != toolkit.file_name())
        .collect();
    folders.sort();
    Ok(folders)
}

/// What `folder` holds: files and folders of the wheels, not our links. Nothing where there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let told = || format!("cannot list {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(told)? {
        let entry = entry.with_context(told)?;
        if !entry.file_type().with_context(told)?.is_symlink() {
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
    }
    Ok(names)
}

fn make_link(target: &Path, path: &Path) -> Result<bool> {
    unix_files::link(target, path).with_context(|| {
        let (path, target) = (path.display(), target.display());
        format!("cannot make {path} a link to {target}")
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Empty files below a new folder.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn plain_names_are_those_the_linker_looks_for() {
        for (name, plain) in [
            ("libcublas.so.13", Some("libcublas.so")),
            ("libnvrtc-builtins.so.13.0", Some("libnvrtc-builtins.so")),
            ("libnvrtc.alt.so.13", None),
            ("libcudart_static.a", None),
            ("libcublas.so", None),
            ("notes.so.1", None),
        ] {
            assert_eq!(plain_name(name).as_deref(), plain, "{name}");
        }
    }

    #[test]
    fn libraries_and_headers_are_found_in_the_toolkit() {
        let root = tree(&[
            "cu13/lib/libcublas.so.13",
            "cu13/lib/libnvrtc.alt.so.13",
            "cu13/include/cuda.h",
            "cudnn/lib/libcudnn.so.9",
            "cudnn/include/cudnn.h",
        ]);
        let toolkit = root.path().join("cu13");
        assert!(link(&toolkit).unwrap());
        let target = |path: &str| fs::read_link(toolkit.join(path)).unwrap();
        for (path, expected) in [
            ("lib64", "lib"),
            ("lib/libcublas.so", "libcublas.so.13"),
            ("lib/libcudnn.so", "../../cudnn/lib/libcudnn.so.9"),
            ("lib/libcudnn.so.9", "../../cudnn/lib/libcudnn.so.9"),
            ("include/cudnn.h", "../../cudnn/include/cudnn.h"),
        ] {
            assert_eq!(target(path), Path::new(expected), "{path}");
            assert!(toolkit.join(path).exists(), "{path} leads nowhere");
        }
        assert_eq!(fs::read_dir(toolkit.join("lib")).unwrap().count(), 5);
        assert!(
            !link(&toolkit).unwrap(),
            "the second time nothing is left to do"
        );
    }
}
