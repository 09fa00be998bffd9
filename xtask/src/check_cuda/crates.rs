//! Which crates have code for GPUs: those whose `Cargo.toml` has a feature `cuda`, and with code for several of them a feature
//! `nccl`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

/// The features that bring in code for GPUs, `CRATE/FEATURE`, of all crates in `root/crates`, sorted.
pub fn features_for_gpus(root: &Path) -> Result<Vec<String>> {
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
        names.extend(of(&manifest));
    }
    ensure!(
        !names.is_empty(),
        "no crate in {} has a feature `cuda`, so that there is nothing to check",
        folder.display()
    );
    names.sort();
    Ok(names)
}

fn of(manifest: &Table) -> Vec<String> {
    let package = manifest.get("package");
    let name = package.and_then(|package| package.get("name"));
    let (Some(name), Some(features)) = (name.and_then(Value::as_str), manifest.get("features"))
    else {
        return Vec::new();
    };
    let present = ["cuda", "nccl"].into_iter();
    let present = present.filter(|feature| features.get(feature).is_some());
    present.map(|feature| format!("{name}/{feature}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_found_by_their_feature() {
        let root = tempfile::tempdir().unwrap();
        for (name, features) in [
            ("b", "cuda = []\nnccl = [\"cuda\"]"),
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
            features_for_gpus(root.path()).unwrap(),
            ["eqco-a/cuda", "eqco-b/cuda", "eqco-b/nccl"]
        );
        fs::remove_dir_all(root.path().join("crates/a")).unwrap();
        fs::remove_dir_all(root.path().join("crates/b")).unwrap();
        let told = features_for_gpus(root.path()).unwrap_err().to_string();
        assert!(told.contains("nothing to check"), "{told}");
    }

    #[test]
    fn the_loss_the_process_group_and_both_programs_are_among_them() {
        let names = features_for_gpus(&crate::repository::root()).unwrap();
        for known in [
            "eqco-core/cuda",
            "eqco-eval/cuda",
            "eqco-models/nccl",
            "eqco-train/nccl",
        ] {
            assert!(names.iter().any(|name| name == known), "{names:?}");
        }
    }
}
