//! For tests: a data set `who/birds` as the hub would serve it.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::server::{Asked, Reply};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub(super) fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    fs::read(folder.join(format!("{name}.parquet"))).unwrap()
}

pub(super) fn etag(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The files of the set: names and golden files.
const FILES: [(&str, &str); 4] = [
    ("data/train-00000-of-00002.parquet", "plain-v1"),
    ("data/train-00001-of-00002.parquet", "zstd-v1"),
    ("data/test-00000-of-00001.parquet", "secret-labels"),
    (
        "data/validation-00000-of-00001.parquet",
        "snappy-dictionary",
    ),
];

fn listing() -> Reply {
    let names = FILES
        .iter()
        .map(|(name, _)| format!("{{\"rfilename\": \"{name}\"}}"));
    let names = names.chain([r#"{"rfilename": "README.md"}"#.to_owned()]);
    let names = names.collect::<Vec<_>>().join(", ");
    Reply {
        content: format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{names}]}}").into_bytes(),
        ..Reply::default()
    }
}

/// What the hub answers when all is well; contents come from another path.
pub(super) fn answer(asked: &Asked) -> Reply {
    if asked.path.starts_with("api/datasets/who/birds/revision/") {
        return listing();
    }
    let path = asked.path.strip_prefix("content/").map(str::to_owned);
    let resolved = format!("datasets/who/birds/resolve/{COMMIT}/");
    let name = path.as_deref().or(asked.path.strip_prefix(&resolved));
    let Some((name, golden_name)) = FILES.iter().find(|(known, _)| name == Some(*known)) else {
        return Reply::status("404 Not Found").with("X-Error-Code", "EntryNotFound");
    };
    let content = golden(golden_name);
    if path.is_some() {
        return Reply::file(&content, asked);
    }
    Reply::status("302 Found")
        .with("X-Linked-Etag", format!("\"{}\"", etag(&content)))
        .with("X-Linked-Size", content.len())
        .with("X-Repo-Commit", COMMIT)
        .with("Location", format!("/content/{name}"))
}
