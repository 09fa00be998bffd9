//! Addresses of shards, and the patterns that name many of them.

use object_store::path::Path as ObjectPath;

use crate::dataset::open::REMOTE_SCHEMES;
use crate::dataset::shards::expand;

/// The longest address that is taken, in bytes.
const LONGEST: usize = 4096;

/// `http`, `https` or `s3`, in any case.
fn scheme(source: &str) -> Option<&'static str> {
    let (scheme, _) = source.split_once("://")?;
    let mut known = REMOTE_SCHEMES.into_iter();
    known.find(|known| known.eq_ignore_ascii_case(scheme))
}

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// `SCHEME://HOST[:PORT]`.
    Web(String),
    /// A bucket of S3, or of a store that speaks like it.
    Bucket(String),
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) origin: Origin,
    pub(super) path: ObjectPath,
    /// As it was given.
    pub(super) text: String,
}

impl Address {
    /// Reads `http(s)://HOST/PATH` or `s3://BUCKET/PATH`.
    ///
    /// # Errors
    /// What is wrong, without the part in which a password may stand.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, host, path) = parts(text)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_plain) {
            return Err("no host or bucket".to_owned());
        }
        if path.starts_with('/') {
            return Err("no path of an object: it begins with `/`".to_owned());
        }
        let path = match scheme {
            "s3" => ObjectPath::parse(path),
            _ => ObjectPath::from_url_path(path),
        };
        let path = path.map_err(|error| format!("no path of an object: {error}"))?;
        let origin = match scheme {
            "s3" => Origin::Bucket(host.to_owned()),
            scheme => Origin::Web(format!("{scheme}://{host}")),
        };
        Ok(Self {
            origin,
            path,
            text: text.to_owned(),
        })
    }

    /// What lies beside this object, or in the folder above it with `levels` = 1.
    pub(super) fn beside(&self, name: &str, levels: usize) -> Option<Self> {
        let (scheme, rest) = self.text.split_once("://")?;
        let mut folder = rest;
        for _ in 0..=levels {
            folder = &folder[..folder.rfind('/')?];
        }
        Self::parse(&format!("{scheme}://{folder}/{name}")).ok()
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }
}

/// Scheme, host and path of an address or of a pattern of addresses, in which no secret can stand.
fn parts(text: &str) -> Result<(&str, &str, &str), String> {
    let scheme = scheme(text).filter(|_| text.len() <= LONGEST);
    let scheme = scheme.ok_or("no address like https://HOST/PATH or s3://BUCKET/PATH")?;
    let rest = &text[scheme.len() + 3..];
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err("a user or password in an address would be kept with every run".to_owned());
    }
    if text.contains(['?', '#']) {
        return Err(
            "`?` and `#` cannot stand in an address: what follows would be kept with every run"
                .to_owned(),
        );
    }
    Ok((scheme, host, path))
}

/// The addresses that a pattern like `https://HOST/train-{000000..000123}.tar` names, each once, by name.
///
/// # Errors
/// What is wrong with the pattern or with one of them.
pub(super) fn shards(source: &str) -> Result<Vec<Address>, String> {
    // Before anything of it is shown.
    parts(source)?;
    let mut texts = expand(source)?;
    texts.sort_unstable();
    if let Some(pair) = texts.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("`{}` twice", pair[0]));
    }
    let shard = |text: &String| {
        let address = Address::parse(text)?;
        let end = address.name().to_ascii_lowercase();
        match end.ends_with(".tar") && end.len() > 4 {
            true => Ok(address),
            false => Err(format!("`{}` is no shard (*.tar)", address.name())),
        }
    };
    texts.iter().map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_an_origin_and_a_path() {
        let web = Address::parse("HTTPS://host:8080/a%20b/c.tar").unwrap();
        assert_eq!(web.origin, Origin::Web("https://host:8080".to_owned()));
        assert_eq!(web.path.as_ref(), "a b/c.tar");
        let bucket = Address::parse("s3://my.bucket/a/b.tar").unwrap();
        assert_eq!(bucket.origin, Origin::Bucket("my.bucket".to_owned()));
        assert_eq!(bucket.path.as_ref(), "a/b.tar");
        assert_eq!(
            bucket.beside("index.json", 0).unwrap().text,
            "s3://my.bucket/a/index.json"
        );
        assert_eq!(bucket.beside("x", 1).unwrap().path.as_ref(), "x");
        assert_eq!(bucket.beside("x", 2), None);
        assert!(Address::parse("hf://datasets/a/b").is_err());
    }

    #[test]
    fn patterns_name_shards_by_name() {
        let found = shards("s3://b/{train-{9..11},val-0}.tar").unwrap();
        let names: Vec<_> = found.iter().map(Address::name).collect();
        assert_eq!(
            names,
            ["train-10.tar", "train-11.tar", "train-9.tar", "val-0.tar"]
        );
        assert_eq!(shards("http://{a,b}/0.tar").unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_shard_or_could_hold_a_secret_is_refused() {
        for (source, expected) in [
            ("https://user:hunter2@host/a.tar", "a user or password"),
            ("https://host/a.tar?sig=hunter2", "cannot stand"),
            ("https://host/a-{0..1}.tar?sig=hunter2", "cannot stand"),
            ("https:///a.tar", "no host"),
            ("https://host/a/../b.tar", "no path"),
            ("s3://b//a.tar", "no path"),
            ("s3://b/train/", "is no shard"),
            ("s3://b/.tar", "is no shard"),
            ("s3://b/a-{0..1", "not closed"),
            ("s3://b/{a,a}.tar", "twice"),
        ] {
            let problem = shards(source).unwrap_err();
            assert!(problem.contains(expected), "{source}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
