//! Rules on the `Cargo.toml` files: versions stand once, and the crates form layers.

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::{Finding, TrackedFile};

/// Which of our crates each of our crates may depend on. ARCHITECTURE.md says why.
const LAYERS: [(&str, &[&str]); 8] = [
    ("eqco-cuda-build", &[]),
    ("eqco-core", &["eqco-cuda-build"]),
    ("eqco-data", &[]),
    ("eqco-models", &["eqco-core", "eqco-cuda-build"]),
    ("eqco-eval", &["eqco-core", "eqco-data", "eqco-models"]),
    (
        "eqco-train",
        &["eqco-core", "eqco-data", "eqco-models", "eqco-eval"],
    ),
    (
        "eqco-tests",
        &[
            "eqco-core",
            "eqco-data",
            "eqco-models",
            "eqco-eval",
            "eqco-train",
        ],
    ),
    ("xtask", &[]),
];
/// Crates that know no tensors.
const WITHOUT_TENSORS: [&str; 3] = ["eqco-cuda-build", "eqco-data", "xtask"];

/// Checks every tracked manifest of a member crate.
pub fn check(files: &[TrackedFile]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files {
        if !file.path.ends_with("/Cargo.toml") {
            continue;
        }
        let text = file.text().unwrap_or_default();
        let manifest: Table = text
            .parse()
            .with_context(|| format!("{} is no TOML", file.path))?;
        // A workspace of its own has no place in the layers of this one, and nothing to inherit.
        if manifest.contains_key("workspace") {
            continue;
        }
        for (name, dependency) in dependencies(&manifest) {
            let line = line_of(text, name);
            findings.extend(declared_in_the_workspace(file, line, name, dependency));
            findings.extend(downwards(file, line, &manifest, name));
        }
    }
    Ok(findings)
}

/// `name.workspace = true`: the version stands in the root table alone.
fn declared_in_the_workspace(
    file: &TrackedFile,
    line: usize,
    name: &str,
    dependency: &Value,
) -> Option<Finding> {
    let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
    let message = format!("`{name}` is not taken from [workspace.dependencies]");
    (!inherited).then(|| file.finding(line, message))
}

/// A crate depends on lower layers only.
fn downwards(file: &TrackedFile, line: usize, manifest: &Table, name: &str) -> Option<Finding> {
    let package = manifest.get("package")?.get("name")?.as_str()?;
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == package) else {
        let message = format!("`{package}` has no place in the layers of xtask's tidy");
        return Some(file.finding(1, message));
    };
    let is_ours = name == "xtask" || name.starts_with("eqco-");
    let has_tensors = name.starts_with("candle-");
    let refused = (is_ours && !allowed.contains(&name))
        || (has_tensors && WITHOUT_TENSORS.contains(&package));
    let message = format!("`{package}` must not depend on `{name}`");
    refused.then(|| file.finding(line, message))
}

/// The entries of all dependency tables, those of a target included.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let per_target = targets.into_iter().flat_map(Table::values);
    let holders = per_target.filter_map(Value::as_table);
    let mut found = Vec::new();
    for holder in holders.chain([manifest]) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = holder.get(kind).and_then(Value::as_table);
            found.extend(
                table
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.as_str(), value)),
            );
        }
    }
    found
}

/// The line that declares `name`, or 1.
fn line_of(text: &str, name: &str) -> usize {
    let declares = |line: &str| {
        let line = line.trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '.', '=', '"', '\'']))
    };
    text.lines().position(declares).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(package: &str, tables: &str) -> Vec<(usize, String)> {
        let text = format!("[package]\nname = \"{package}\"\n{tables}");
        let file = TrackedFile::new("crates/x/Cargo.toml", &text);
        let findings = check(&[file]).unwrap();
        findings
            .into_iter()
            .map(|finding| (finding.line, finding.message))
            .collect()
    }

    #[test]
    fn versions_outside_of_the_root_are_found() {
        let tables = "[dependencies]\nserde.workspace = true\nhalf = \"2\"\n\
                      [target.'cfg(unix)'.dev-dependencies]\nlibc = { version = \"1\" }\n";
        let found = findings("eqco-core", tables);
        let expected = |line, name| {
            (
                line,
                format!("`{name}` is not taken from [workspace.dependencies]"),
            )
        };
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&expected(5, "half")), "{found:?}");
        assert!(found.contains(&expected(7, "libc")), "{found:?}");
    }

    #[test]
    fn dependencies_against_the_layers_are_found() {
        for (package, name) in [
            ("eqco-core", "eqco-models"),
            ("eqco-models", "eqco-data"),
            ("eqco-data", "eqco-core"),
            ("eqco-data", "candle-core"),
            ("eqco-eval", "eqco-train"),
            ("xtask", "eqco-data"),
            ("xtask", "eqco-cuda-build"),
            ("xtask", "candle-nn"),
        ] {
            let found = findings(
                package,
                &format!("[dependencies]\n{name}.workspace = true\n"),
            );
            let message = format!("`{package}` must not depend on `{name}`");
            assert_eq!(found, [(4, message)]);
        }
    }

    #[test]
    fn dependencies_along_the_layers_pass() {
        for (package, name) in [
            ("eqco-models", "eqco-core"),
            ("eqco-core", "eqco-cuda-build"),
            ("eqco-train", "eqco-eval"),
            ("eqco-core", "candle-core"),
            ("eqco-tests", "eqco-train"),
        ] {
            let table = format!("[dependencies.{name}]\nworkspace = true\n");
            assert_eq!(findings(package, &table), []);
        }
    }

    #[test]
    fn a_workspace_of_its_own_is_left_alone() {
        let tables =
            "[workspace]\n[dependencies]\nlibfuzzer-sys = \"0.4\"\neqco-data = { path = \"..\" }\n";
        assert_eq!(findings("eqco-fuzz", tables), []);
    }

    #[test]
    fn a_crate_that_nobody_has_placed_is_found() {
        let found = findings("eqco-new", "[dependencies]\nserde.workspace = true\n");
        assert!(found[0].1.contains("`eqco-new` has no place"), "{found:?}");
    }
}
