//! Which columns hold the images and the labels.

use std::sync::Arc;

use serde_json::Value;

use super::footer::{Footer, SchemaElement};

/// Names of image columns, for files that have several columns of bytes and do not say which one is it.
const IMAGE_NAMES: [&str; 6] = ["image", "img", "jpg", "jpeg", "png", "webp"];

/// Names of label columns; of several, the first in this order is taken.
const LABEL_NAMES: [&str; 6] = ["label", "labels", "fine_label", "class", "cls", "target"];

const INT32: i32 = 1;
const INT64: i32 = 2;
const BYTE_ARRAY: i32 = 6;
const OPTIONAL: i32 = 1;
const REPEATED: i32 = 2;

/// Structs in each other, more than any table of images has.
const MOST_NESTED: usize = 16;

/// Characters of a name in messages.
const MOST_SHOWN: usize = 80;

/// A column of values, not of structs.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Names from the top of the table down.
    path: Vec<Arc<str>>,
    physical: i32,
    is_text: bool,
    /// Whether a row can have several values.
    is_list: bool,
    /// How many of the path can be null: the definition level of a value.
    pub(super) max_definition: u8,
}

impl Leaf {
    /// Bytes of an integer; `None` for other types.
    pub(super) fn integer_bytes(&self) -> Option<usize> {
        match self.physical {
            INT32 => Some(4),
            INT64 => Some(8),
            _ => None,
        }
    }

    fn top(&self) -> &str {
        &self.path[0]
    }

    fn describe(&self) -> String {
        let kind = match self.physical {
            0 => "boolean",
            INT32 => "int32",
            INT64 => "int64",
            3 => "int96",
            4 => "float",
            5 => "double",
            BYTE_ARRAY if self.is_text => "string",
            BYTE_ARRAY => "binary",
            _ => "fixed-length binary",
        };
        let list = if self.is_list { "list of " } else { "" };
        let names = self.path.iter().map(|name| beginning(name));
        let name = names.collect::<Vec<_>>().join(".");
        format!("{name} ({list}{kind})")
    }

    /// `image<bytes: binary, path: string>`, or a plain column of bytes.
    fn can_be_image(&self) -> bool {
        let has_place = match &self.path[..] {
            [_] => true,
            [_, field] => &**field == "bytes",
            _ => false,
        };
        has_place && self.physical == BYTE_ARRAY && !self.is_text && !self.is_list
    }

    fn can_be_label(&self) -> bool {
        self.path.len() == 1 && self.integer_bytes().is_some() && !self.is_list
    }
}

/// The leaves of a schema, in the order of a row group's columns.
pub(super) fn leaves(schema: &[SchemaElement]) -> Result<Vec<Leaf>, String> {
    let mut nodes = schema.iter();
    let Some(root) = nodes.next() else {
        return Err("a footer without columns".to_owned());
    };
    let mut leaves = Vec::new();
    for _ in 0..root.children {
        add_leaves(&mut nodes, &mut Vec::new(), (0, false), &mut leaves)?;
    }
    Ok(leaves)
}

/// Adds the leaves of the next node; `above` is its parents' definition level and whether they are lists.
fn add_leaves(
    nodes: &mut std::slice::Iter<'_, SchemaElement>,
    path: &mut Vec<Arc<str>>,
    above: (u8, bool),
    leaves: &mut Vec<Leaf>,
) -> Result<(), String> {
    let Some(node) = nodes.next() else {
        return Err("a schema that names more columns than it has".to_owned());
    };
    if path.len() == MOST_NESTED {
        return Err(format!("columns more than {MOST_NESTED} deep"));
    }
    let is_list = above.1 || node.repetition == REPEATED;
    let max_definition = above.0 + u8::from([OPTIONAL, REPEATED].contains(&node.repetition));
    path.push(Arc::clone(&node.name));
    match node.physical {
        Some(physical) => leaves.push(Leaf {
            path: path.clone(),
            physical,
            is_text: node.is_text,
            is_list,
            max_definition,
        }),
        None => {
            for _ in 0..node.children {
                add_leaves(nodes, path, (max_definition, is_list), leaves)?;
            }
        }
    }
    path.pop();
    Ok(())
}

/// Positions among the leaves, and the names of the classes where the file has them.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) image: usize,
    pub(super) label: Option<usize>,
    pub(super) class_names: Vec<String>,
}

impl Columns {
    /// Chooses by what Hugging Face's metadata says, else by types and names.
    ///
    /// # Errors
    /// What was found instead: no column that can hold images, or several with nothing to choose by.
    pub(super) fn choose(leaves: &[Leaf], footer: &Footer) -> Result<Self, String> {
        let features = Features::of(footer);
        let image = image_column(leaves, &features)?;
        let label = label_column(leaves, &features)?;
        let class_names = label.and_then(|label| features.class_names(leaves[label].top()));
        Ok(Self {
            image,
            label,
            class_names: class_names.unwrap_or_default(),
        })
    }
}

fn image_column(leaves: &[Leaf], features: &Features) -> Result<usize, String> {
    let fitting = positions(leaves, Leaf::can_be_image);
    let mut chosen = fitting.clone();
    chosen.retain(|&at| features.is(leaves[at].top(), "Image"));
    if chosen.is_empty() {
        chosen = fitting;
    }
    if chosen.len() > 1 {
        let named = |at: &usize| IMAGE_NAMES.contains(&leaves[*at].top());
        let by_name: Vec<usize> = chosen.iter().copied().filter(named).collect();
        if by_name.len() == 1 {
            chosen = by_name;
        }
    }
    match chosen[..] {
        [only] => Ok(only),
        [] => Err(format!(
            "no column that can hold images, but {}",
            list(leaves, 0..leaves.len())
        )),
        _ => Err(format!(
            "several columns that can hold images: {}",
            list(leaves, chosen)
        )),
    }
}

fn label_column(leaves: &[Leaf], features: &Features) -> Result<Option<usize>, String> {
    let fitting = positions(leaves, Leaf::can_be_label);
    let mut chosen = fitting.clone();
    chosen.retain(|&at| features.is(leaves[at].top(), "ClassLabel"));
    if let [only] = chosen[..] {
        return Ok(Some(only));
    }
    let is_told = !chosen.is_empty();
    if !is_told {
        chosen = fitting;
    }
    let rank = |at: usize| {
        LABEL_NAMES
            .iter()
            .position(|name| *name == leaves[at].top())
    };
    let best = chosen.iter().copied().filter(|&at| rank(at).is_some());
    match best.min_by_key(|&at| rank(at)) {
        None if is_told => Err(format!(
            "several columns of labels, none of them called {}: {}",
            LABEL_NAMES.join(", "),
            list(leaves, chosen)
        )),
        best => Ok(best),
    }
}

fn positions(leaves: &[Leaf], fits: impl Fn(&Leaf) -> bool) -> Vec<usize> {
    (0..leaves.len()).filter(|&at| fits(&leaves[at])).collect()
}

/// Some columns, for a message; the first dozen of them.
fn list(leaves: &[Leaf], at: impl IntoIterator<Item = usize>) -> String {
    let mut at = at.into_iter();
    let shown = at.by_ref().take(12).map(|at| leaves[at].describe());
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if at.next().is_some() { ", …" } else { "" };
    format!("{shown}{more}")
}

/// As much of a name as a message needs: it can be as long as a footer.
fn beginning(name: &str) -> &str {
    let end = name.char_indices().nth(MOST_SHOWN);
    &name[..end.map_or(name.len(), |(end, _)| end)]
}

/// Hugging Face's description of the columns: `{"info": {"features": {COLUMN: {"_type": …}}}}`.
struct Features(Value);

impl Features {
    /// Anything else than that description says nothing.
    fn of(footer: &Footer) -> Self {
        let text = footer.features.as_deref().unwrap_or("null");
        let whole: Value = serde_json::from_str(text).unwrap_or_default();
        Self(whole["info"]["features"].clone())
    }

    fn is(&self, column: &str, kind: &str) -> bool {
        self.0[column]["_type"] == kind
    }

    fn class_names(&self, column: &str) -> Option<Vec<String>> {
        let names = self.0[column]["names"].as_array()?.iter();
        names.map(|name| name.as_str().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(path: &str, physical: i32) -> Leaf {
        Leaf {
            path: path.split('.').map(Arc::from).collect(),
            physical,
            is_text: path.ends_with("path"),
            is_list: path.starts_with("list"),
            max_definition: 1,
        }
    }

    fn choose(columns: &[(&str, i32)], features: &str) -> Result<(usize, Option<usize>), String> {
        let leaves: Vec<Leaf> = columns
            .iter()
            .map(|&(path, kind)| leaf(path, kind))
            .collect();
        let footer = Footer {
            features: Some(format!("{{\"info\": {{\"features\": {features}}}}}")),
            ..Footer::default()
        };
        Columns::choose(&leaves, &footer).map(|columns| (columns.image, columns.label))
    }

    #[test]
    fn columns_are_chosen_by_type_then_name() {
        let imagenet = [("image.bytes", 6), ("image.path", 6), ("label", 2)];
        assert_eq!(choose(&imagenet, "null"), Ok((0, Some(2))));
        let cifar100 = [("img.bytes", 6), ("coarse_label", 2), ("fine_label", 2)];
        assert_eq!(choose(&cifar100, "{}"), Ok((0, Some(2))));
        let shards = [("__key__path", 6), ("jpg.bytes", 6), ("cls", 1)];
        assert_eq!(choose(&shards, "{}"), Ok((1, Some(2))));
        // An integer that is not called a label is none, and several values a row are no label.
        let sizes = [("png", 6), ("width", 2), ("list_label", 2)];
        assert_eq!(choose(&sizes, "{}"), Ok((0, None)));
        let one_named = [("thumbnail", 6), ("image.bytes", 6)];
        assert_eq!(choose(&one_named, "{}"), Ok((1, None)));
    }

    #[test]
    fn what_the_metadata_says_comes_first() {
        let columns = [
            ("image.bytes", 6),
            ("scan.bytes", 6),
            ("label", 2),
            ("kind", 2),
        ];
        let features = r#"{"scan": {"_type": "Image"}, "kind": {"_type": "ClassLabel"}}"#;
        assert_eq!(choose(&columns, features), Ok((1, Some(3))));
    }

    #[test]
    fn what_is_not_clear_is_told_with_what_was_found() {
        let text = [("caption_path", 6), ("list.bytes", 6), ("score", 5)];
        let error = choose(&text, "{}").unwrap_err();
        let found = "no column that can hold images, but caption_path (string), \
                     list.bytes (list of binary), score (double)";
        assert_eq!(error, found);
        let error = choose(&[("left.bytes", 6), ("right.bytes", 6)], "{}").unwrap_err();
        assert!(
            error.ends_with("left.bytes (binary), right.bytes (binary)"),
            "{error}"
        );
        let features = r#"{"a": {"_type": "ClassLabel"}, "b": {"_type": "ClassLabel"}}"#;
        let error = choose(&[("image", 6), ("a", 2), ("b", 1)], features).unwrap_err();
        assert!(error.ends_with("a (int64), b (int32)"), "{error}");
    }
}
