//! What the environment keeps secret stays there: neither output nor run folder ever holds it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{SMALL, program, read};

/// Where tokens and keys are usually kept, and where a token would stand in an address.
const SECRETS: [(&str, &str); 5] = [
    ("HF_TOKEN", "hf_SECRETsecretSECRETsecret01"),
    ("HUGGING_FACE_HUB_TOKEN", "hf_SECRETsecretSECRETsecret02"),
    ("AWS_ACCESS_KEY_ID", "AKIASECRETSECRETSE03"),
    (
        "AWS_SECRET_ACCESS_KEY",
        "SECRETsecretSECRETsecretSECRETsecret04",
    ),
    ("AWS_SESSION_TOKEN", "SECRETsecretSECRETsecret05"),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

fn holds_secret(bytes: &[u8]) -> bool {
    let holds = |secret: &str| {
        bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes())
    };
    SECRETS.iter().any(|(_, secret)| holds(secret))
}

#[test]
fn no_secret_of_the_environment_gets_into_output_or_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let runs: [&[&str]; 5] = [
        &["--out=run", "--epochs=1", "--profile"],
        &["--resume=run", "--epochs=2"],
        &["--out=diverged", "--epochs=2", "--lr=1e30"],
        &[
            "--out=none",
            "--set=data.source=hf://datasets/someone/something",
        ],
        &["--out=none", "--set=data.source=nowhere"],
    ];
    let commands = runs.map(|run| [&SMALL[..], run].concat());
    let others = [
        vec!["doctor"],
        vec!["show-config"],
        vec!["replay", "diverged/nonfinite-step-000000001.json"],
    ];
    let mut spoken = 0;
    for arguments in commands.iter().chain(&others) {
        let mut command = program(folder.path());
        // Everything that the program can be made to say.
        command
            .args(arguments)
            .envs(SECRETS)
            .env("RUST_LOG", "trace")
            .env("HF_HUB_OFFLINE", "1");
        let output = command.output().unwrap();
        assert!(
            !holds_secret(&output.stdout),
            "{arguments:?}: {:?}",
            read(&output)
        );
        assert!(
            !holds_secret(&output.stderr),
            "{arguments:?}: {:?}",
            read(&output)
        );
        spoken += output.stdout.len() + output.stderr.len();
    }
    assert!(spoken > 2000, "{spoken}");
    let files = files(folder.path());
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        assert!(
            !holds_secret(&fs::read(&file).unwrap()),
            "{}",
            file.display()
        );
    }
    assert!(holds_secret(b"a hf_SECRETsecretSECRETsecret01 b"));
}
