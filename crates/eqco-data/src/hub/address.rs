//! `hf://datasets/OWNER/NAME[@REVISION][/SUBSET]`.

use crate::dataset::open::HUB_SCHEME;

const FORM: &str = "hf://datasets/OWNER/NAME[@REVISION][/SUBSET]";

/// A data set on the hub, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) owner: String,
    pub(super) name: String,
    /// A branch, a tag or a commit; `main` if the address has none.
    pub(super) revision: String,
    /// A folder of the repository, without a slash at either end; empty for all of it.
    pub(super) subset: String,
}

impl Address {
    /// Reads an address. Every part of it becomes part of a path and of a web address, so that it has letters, digits, `.`, `-` and
    /// `_` alone, and in revisions and subsets `/`. Revisions with slashes are those of the hub, `refs/convert/parquet` and
    /// `refs/pr/NUMBER`.
    ///
    /// # Errors
    /// What an address looks like.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::parts(text).ok_or_else(|| format!("no address of a data set, which is {FORM}"))
    }

    fn parts(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(HUB_SCHEME)?.strip_prefix("datasets/")?;
        let (owner, rest) = rest.split_once('/')?;
        let end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, subset) = match rest.strip_prefix('@') {
            Some(rest) => {
                let slashes = if rest.starts_with("refs/") { 2 } else { 0 };
                let mut ends = rest.match_indices('/').map(|(at, _)| at).skip(slashes);
                rest.split_at(ends.next().unwrap_or(rest.len()))
            }
            None => ("main", rest),
        };
        let subset = subset.trim_matches('/');
        let is_path = |path: &str| path.split('/').all(is_word);
        let is_right = is_word(owner) && is_word(name) && is_path(revision);
        (is_right && (subset.is_empty() || is_path(subset))).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            subset: subset.to_owned(),
        })
    }

    /// `OWNER/NAME`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The address as users write it.
    pub(super) fn text(&self) -> String {
        let Self {
            owner,
            name,
            revision,
            subset,
        } = self;
        let slash = if subset.is_empty() { "" } else { "/" };
        format!("{HUB_SCHEME}datasets/{owner}/{name}@{revision}{slash}{subset}")
    }

    /// The name of a file below the subset; `None` for files elsewhere.
    pub(super) fn below<'a>(&self, file: &'a str) -> Option<&'a str> {
        if self.subset.is_empty() {
            return Some(file);
        }
        file.strip_prefix(&self.subset)?.strip_prefix('/')
    }
}

/// A part of a path that leads nowhere else.
fn is_word(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
    !word.is_empty() && !word.starts_with('.') && word.len() <= 128 && word.chars().all(is_plain)
}

/// Whether a path that the hub names stays below its folder, and has nothing that a web address must escape but spaces.
pub(super) fn is_safe_path(path: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !['\\', ':', '?', '#', '%'].contains(&c);
    let is_safe =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(is_plain);
    path.len() <= 1024 && path.split('/').all(is_safe)
}

/// Whether a text is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_optional_parts() {
        for (text, revision, subset) in [
            ("hf://datasets/a-b/c.d", "main", ""),
            ("hf://datasets/a-b/c.d/", "main", ""),
            ("hf://datasets/a-b/c.d@v1", "v1", ""),
            ("hf://datasets/a-b/c.d/x/y", "main", "x/y"),
            (
                "hf://datasets/a-b/c.d@refs/convert/parquet",
                "refs/convert/parquet",
                "",
            ),
            (
                "hf://datasets/a-b/c.d@refs/convert/parquet/x",
                "refs/convert/parquet",
                "x",
            ),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.id(), "a-b/c.d");
            assert_eq!(
                (&address.revision[..], &address.subset[..]),
                (revision, subset),
                "{text}"
            );
            assert_eq!(Address::parse(&address.text()), Ok(address));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_address() {
        for text in [
            "hf://datasets/a",
            "hf://models/a/b",
            "hf://datasets/a/b@",
            "hf://datasets/../b",
            "hf://datasets/a/b/../../c",
            "hf://datasets/a/b@x%2Fy",
            "hf://datasets/a/b?c",
            "hf://datasets/a b/c",
        ] {
            assert!(
                Address::parse(text).unwrap_err().contains("OWNER/NAME"),
                "{text}"
            );
        }
        for path in [
            "../x", "a/../x", "/x", "a//b", "a\\b", "c:/x", "x?y", "", "a\nb", ".git/x",
        ] {
            assert!(!is_safe_path(path), "{path}");
        }
        assert!(is_safe_path("data/train 1.parquet"));
    }
}
