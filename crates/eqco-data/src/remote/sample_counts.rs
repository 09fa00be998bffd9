//! How many samples each shard has, where somebody has counted: WebDataset's `index.json` beside the shards.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::address::Address;
use super::failure::{Failure, Kind};
use super::objects::Objects;

/// The largest file that is read, in bytes: 200 for each of 300,000 shards.
pub(super) const MOST_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct CountedShards {
    shardlist: Vec<CountedShard>,
}

#[derive(Deserialize)]
struct CountedShard {
    url: String,
    nsamples: u32,
}

/// The counts that a file tells for these shards, which it has to know all of, by their names alone: such files are written
/// before shards are uploaded.
pub(super) fn parse(text: &[u8], shards: &[&Address]) -> Result<Vec<u32>, String> {
    let counted: CountedShards = serde_json::from_slice(text).map_err(|error| {
        format!(
            "expected {{\"shardlist\": [{{\"url\": ..., \"nsamples\": ...}}, ...]}}, found {error}"
        )
    })?;
    let mut counts = BTreeMap::new();
    for shard in &counted.shardlist {
        let name = shard.url.rsplit('/').next().unwrap_or_default();
        if counts.insert(name, shard.nsamples).is_some() {
            return Err(format!("expected each shard once, found `{name}` twice"));
        }
    }
    let count = |shard: &&Address| {
        let count = counts.get(shard.name()).copied();
        count.ok_or_else(|| format!("expected all shards, found none called `{}`", shard.name()))
    };
    shards.iter().map(count).collect()
}

/// The names that such a file may have: `index.json`, or with what the names of the shards begin with.
pub(super) fn names(shards: &[&Address]) -> Vec<String> {
    let mut names = vec!["index.json".to_owned()];
    let first = shards.first().map_or("", |shard| shard.name());
    let is_common = |end: &usize| {
        let begin = &first.as_bytes()[..*end];
        shards
            .iter()
            .all(|shard| shard.name().as_bytes().starts_with(begin))
    };
    let common = (0..=first.len()).rev().find(is_common).unwrap_or(0);
    let common = first
        .get(..common)
        .unwrap_or_default()
        .trim_end_matches(".tar");
    let common = common.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
    if !common.is_empty() {
        names.extend([format!("{common}-index.json"), format!("{common}.json")]);
    }
    names
}

/// A small file; `None` if it is not there.
pub(super) async fn small_file(
    objects: &Objects,
    address: &Address,
    most: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut coming = match objects.get(address, 0).await {
        Err(failure) if failure.kind == Kind::Absent => return Ok(None),
        coming => coming?,
    };
    let too_large = || Failure::lasting(format!("`{}`: more than {most} bytes", address.text));
    if coming.identity.size > most {
        return Err(too_large());
    }
    let mut text = Vec::new();
    while let Some(bytes) = coming.next().await? {
        text.extend_from_slice(&bytes);
        if text.len() as u64 > most {
            return Err(too_large());
        }
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::super::address::shards;
    use super::*;

    fn addresses(pattern: &str) -> Vec<Address> {
        shards(pattern).unwrap()
    }

    #[test]
    fn counts_go_by_names() {
        let shards = addresses("s3://b/train-{0..1}.tar");
        let shards: Vec<_> = shards.iter().collect();
        let counts = |text: &str| parse(text.as_bytes(), &shards);
        let text = r#"{"name": "x", "shardlist": [
            {"url": "train-1.tar", "nsamples": 7, "filesize": 1},
            {"url": "gs://elsewhere/train-0.tar", "nsamples": 5},
            {"url": "val-0.tar", "nsamples": 9}]}"#;
        assert_eq!(counts(text).unwrap(), [5, 7]);
        for (text, expected) in [
            (
                r#"{"shardlist": [{"url": "train-1.tar", "nsamples": 7}]}"#,
                "none called `train-0.tar`",
            ),
            (
                r#"{"shardlist": [{"url": "a", "nsamples": 7}, {"url": "b/a", "nsamples": 7}]}"#,
                "`a` twice",
            ),
            (
                r#"{"shardlist": [{"url": "a", "nsamples": -7}]}"#,
                "found invalid value",
            ),
            ("[", "found EOF"),
        ] {
            let problem = counts(text).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn files_are_looked_for_by_what_shards_share() {
        for (pattern, expected) in [
            (
                "s3://b/train-{00..12}.tar",
                vec!["index.json", "train-index.json", "train.json"],
            ),
            ("s3://b/{000..123}.tar", vec!["index.json"]),
            (
                "s3://b/cc-ä-{1..2}.tar",
                vec!["index.json", "cc-index.json", "cc.json"],
            ),
        ] {
            let shards = addresses(pattern);
            assert_eq!(names(&shards.iter().collect::<Vec<_>>()), expected);
        }
    }
}
