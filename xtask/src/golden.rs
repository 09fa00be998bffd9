//! `cargo xtask golden`: stored reference values, computed anew by the libraries we compare with.
//!
//! Each `python/golden_TOPIC.py` writes its own files below the crate whose tests read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{python, repository};

/// Write the stored reference values of other libraries anew.
#[derive(clap::Args)]
pub struct Arguments {
    /// Topics to write; all when none is named
    topics: Vec<String>,
    /// Say which topics there are
    #[arg(long)]
    list: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let scripts = repository::root().join("python");
    let known = topics(&scripts)?;
    if arguments.list {
        for topic in known {
            println!("{topic}");
        }
        return Ok(());
    }
    let chosen = choose(&arguments.topics, &known)?;
    let packages = [
        "cv2",
        "datasets",
        "numpy",
        "pyarrow",
        "safetensors",
        "scipy",
        "torch",
        "torchvision",
    ];
    let Some(python) = python::with_packages(&packages)? else {
        bail!(
            "no Python here has the packages of python/requirements.txt\nhint: {}",
            python::HINT
        );
    };
    for topic in chosen {
        println!("golden: {topic}");
        let mut command = Command::new(&python);
        command
            .arg(scripts.join(format!("golden_{topic}.py")))
            .current_dir(repository::root());
        repository::run(&mut command)?;
    }
    Ok(())
}

/// All TOPIC with a `golden_TOPIC.py` in `scripts`, sorted.
fn topics(scripts: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(scripts).with_context(|| format!("cannot list {}", scripts.display()))?;
    let mut topics = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if let Some(topic) = name
            .strip_prefix("golden_")
            .and_then(|rest| rest.strip_suffix(".py"))
        {
            topics.push(topic.to_owned());
        }
    }
    topics.sort();
    Ok(topics)
}

fn choose(asked: &[String], known: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        return Ok(known.to_vec());
    }
    for topic in asked {
        if !known.contains(topic) {
            bail!(
                "no golden values are called `{topic}`\nhint: known are {}",
                known.join(", ")
            );
        }
    }
    Ok(asked.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_scripts_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "golden_ops.py",
            "golden_loss.py",
            "train.py",
            "golden_x.txt",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(topics(folder.path()).unwrap(), ["loss", "ops"]);
    }

    #[test]
    fn unknown_topics_are_answered_with_the_known_ones() {
        let known = ["loss".to_owned(), "ops".to_owned()];
        assert_eq!(choose(&[], &known).unwrap(), known);
        assert_eq!(choose(&known[1..], &known).unwrap(), ["ops"]);
        let told = choose(&["op".to_owned()], &known).unwrap_err().to_string();
        assert!(told.contains("known are loss, ops"), "{told}");
    }
}
