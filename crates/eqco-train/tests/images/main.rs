//! The commands that look at images or pack them: what they print, what they write, what they refuse.

mod inspect;
mod pack;
#[path = "../../../eqco-data/tests/source_forms/mod.rs"]
mod source_forms;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eqco_data::{Image, encode};
use serde_json::Value;

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-train"));
    command
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("CARGO_MANIFEST_DIR");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

/// What a command that succeeds prints.
fn succeeded(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command that fails says on stderr.
fn failed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder `hostile` with eight files that end like images, three of which cannot be decoded.
fn hostile_folder(root: &Path) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../eqco-data/tests/golden/files");
    let golden = |name: &str| fs::read(golden.join(name)).unwrap();
    let cut = golden("444.jpg");
    let picture = Image::new(9, 5, (0..135).collect()).unwrap();
    let files: [(&str, Vec<u8>); 8] = [
        ("a/cmyk.jpg", golden("cmyk.jpg")),
        ("a/cut.jpg", cut[..cut.len() * 3 / 4].to_vec()),
        ("a/empty.jpg", Vec::new()),
        ("a/png.JPEG", golden("rgb.png")),
        ("a/text.jpg", b"dear sir or madam".to_vec()),
        ("b/grey.jpg", golden("grey.jpg")),
        ("b/plain.jpg", golden("420.jpg")),
        ("b/small.png", encode::png(&picture).unwrap()),
    ];
    let folder = root.join("hostile");
    for (name, bytes) in files {
        let path = folder.join("train").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}
