//! Names of classes that lie beside shards.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::archive::MOST_CLASSES;
use crate::DataError;

/// The names of classes in the order of their labels, and the file in which they stand.
pub(crate) struct ClassNames {
    path: PathBuf,
    names: Vec<String>,
}

impl ClassNames {
    /// The largest file of names that is read, in bytes.
    pub(crate) const MOST_BYTES: u64 = 100 * MOST_CLASSES as u64;

    /// Those in `classes.txt` or `classes.json` in the folder of a shard or in the one above.
    pub(super) fn beside(shard: &Path) -> Result<Option<Self>, DataError> {
        let folder = shard.parent().unwrap_or(Path::new(""));
        let above = folder.parent();
        for folder in [Some(folder), above].into_iter().flatten() {
            for name in ["classes.txt", "classes.json"] {
                let path = folder.join(name);
                if path.is_file() {
                    return Self::read(&path).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn read(path: &Path) -> Result<Self, DataError> {
        let io_error = |error| DataError::io(path, error);
        let size = path.metadata().map_err(io_error)?.len();
        if size > Self::MOST_BYTES {
            let expected = format!("names of classes in at most {} bytes", Self::MOST_BYTES);
            return Err(DataError::labels(path, expected, format!("{size} bytes")));
        }
        Self::parse(path, &std::fs::read(path).map_err(io_error)?)
    }

    /// The names that a file of this path holds.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, DataError> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(DataError::labels(
                path,
                "names of classes in UTF-8",
                "other bytes",
            ));
        };
        let names = if path.ends_with("classes.txt") {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            Some(lines.map(str::to_owned).collect())
        } else {
            let value = serde_json::from_str(text);
            let value =
                value.map_err(|error| DataError::labels(path, "JSON", error.to_string()))?;
            from_json(&value)
        };
        let names: Option<Vec<String>> = names;
        let names = names.filter(|names| (1..=MOST_CLASSES).contains(&names.len()));
        let names = names.ok_or_else(|| {
            let expected =
                "a line or text for each class, or an object `{\"0\": \"name\", ...}` without gaps";
            DataError::labels(path, expected, "something else")
        })?;
        let path = path.to_path_buf();
        Ok(Self { path, names })
    }

    /// All names, if labels use no more than these.
    pub(crate) fn for_labels(self, used: usize) -> Result<Vec<String>, DataError> {
        at_most(used, self.names.len(), &self.path)?;
        Ok(self.names)
    }

    /// Numbers where there are no names.
    pub(crate) fn numbers(count: usize) -> Vec<String> {
        (0..count).map(|class| class.to_string()).collect()
    }

    /// The numbers that training has, if the labels of `tested` shards use no more.
    pub(crate) fn of_training(
        used: usize,
        in_training: usize,
        tested: &Path,
    ) -> Result<Vec<String>, DataError> {
        at_most(used, in_training, tested)?;
        Ok(Self::numbers(in_training))
    }
}

/// Refuses labels beyond the classes that there are names for.
fn at_most(used: usize, named: usize, path: &Path) -> Result<(), DataError> {
    if used <= named {
        return Ok(());
    }
    let expected = format!(
        "labels from 0 to {}, as there are {named} classes",
        named.saturating_sub(1)
    );
    let found = format!("the label {}", used - 1);
    Err(DataError::labels(path, expected, found))
}

/// `["name", ...]`, `{"0": "name", ...}`, or Keras's `{"0": ["n01440764", "tench"], ...}`, of which the first is taken.
fn from_json(value: &Value) -> Option<Vec<String>> {
    let name = |value: &Value| {
        let name = value.as_array().map_or(Some(value), |parts| parts.first());
        name?.as_str().map(str::to_owned)
    };
    match value {
        Value::Array(names) => names.iter().map(name).collect(),
        Value::Object(names) => (0..names.len())
            .map(|number| name(names.get(&number.to_string())?))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_form_or_refused() {
        let names = |text: &str| from_json(&serde_json::from_str(text).unwrap());
        let expected = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(names(r#"["a", "b"]"#), expected);
        assert_eq!(names(r#"{"1": "b", "0": "a"}"#), expected);
        assert_eq!(names(r#"{"1": ["b", "x"], "0": ["a", "y"]}"#), expected);
        for wrong in [
            r#"{"a": 0, "b": 1}"#,
            r#"{"1": "b", "2": "a"}"#,
            "[1, 2]",
            "3",
            "[[]]",
        ] {
            assert_eq!(names(wrong), None, "{wrong}");
        }
    }
}
