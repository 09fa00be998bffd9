//! Which crates have code for GPUs: those whose `Cargo.toml` has a feature `cuda`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

/// The names of all crates in `root/crates` with a feature `cuda`, sorted.
pub fn with_feature_cuda(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("crates");
    let told = || format!("cannot list {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(told)? {
        let path = entry.with_context(told)?.path().join("Cargo.toml");
        if !path.is_file() {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Table = text
            .parse()
            .with_context(|| format!("{} is no TOML", path.display()))?;
        names.extend(name_if_for_gpus(&manifest));
    }
    ensure!(
        !names.is_empty(),
        "no crate in {} has a feature `cuda`, so that there is nothing to check",
        folder.display()
    );
    names.sort();
    Ok(names)
}

fn name_if_for_gpus(manifest: &Table) -> Option<String> {
    manifest.get("features")?.get("cuda")?;
    let name = manifest
        .get("package")?
        .get("name")
        .and_then(Value::as_str)?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_found_by_their_feature() {
        let root = tempfile::tempdir().unwrap();
        for (name, features) in [
            ("b", "cuda = []"),
            ("a", "cuda = [\"x/cuda\"]"),
            ("c", "other = []"),
        ] {
            let folder = root.path().join("crates").join(name);
            fs::create_dir_all(&folder).unwrap();
            let text = format!("[package]\nname = \"eqco-{name}\"\n[features]\n{features}\n");
            fs::write(folder.join("Cargo.toml"), text).unwrap();
        }
        fs::create_dir(root.path().join("crates/no-crate")).unwrap();
        assert_eq!(
            with_feature_cuda(root.path()).unwrap(),
            ["eqco-a", "eqco-b"]
        );
        fs::remove_dir_all(root.path().join("crates/a")).unwrap();
        fs::remove_dir_all(root.path().join("crates/b")).unwrap();
        let told = with_feature_cuda(root.path()).unwrap_err().to_string();
        assert!(told.contains("nothing to check"), "{told}");
    }

    #[test]
    fn the_loss_and_both_programs_are_among_them() {
        let names = with_feature_cuda(&crate::repository::root()).unwrap();
        for expected in ["eqco-core", "eqco-eval", "eqco-models", "eqco-train"] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
    }
}
