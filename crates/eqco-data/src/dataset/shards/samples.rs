//! The samples of one shard: members that share their name up to the first dot.

use serde_json::Value;

use super::super::archive::{Index, MOST_CLASSES, Member, Members, PositionedFile, UNLABELLED};
use crate::DataError;

/// The largest label that is read, in bytes. img2dataset's JSON holds captions and all of EXIF.
const MOST_LABEL_BYTES: u64 = 4 << 20;

/// What members of a sample have been seen.
#[derive(Default)]
struct Sample {
    key: String,
    image: Option<Member>,
    cls: Option<Member>,
    json: Option<Member>,
    txt: Option<Member>,
}

/// Adds the samples of a shard to an index, in their order.
pub(crate) fn add(index: &mut Index, shard: &PositionedFile) -> Result<(), DataError> {
    let mut sample = Sample::default();
    for member in Members::of(shard) {
        let member = member?;
        let Some((key, extension)) = key_and_extension(&member.name) else {
            continue;
        };
        if sample.key != key {
            let key = key.to_owned();
            let finished = std::mem::replace(
                &mut sample,
                Sample {
                    key,
                    ..Sample::default()
                },
            );
            finished.add_to(index, shard)?;
        }
        let place = match &*extension {
            "jpg" | "jpeg" | "png" | "webp" => &mut sample.image,
            "cls" => &mut sample.cls,
            "json" => &mut sample.json,
            "txt" => &mut sample.txt,
            _ => continue,
        };
        if let Some(other) = place {
            let found = format!("`{}` and `{}`", other.name, member.name);
            let expected = "one image and one label of a kind in a sample";
            return Err(DataError::archive(shard.path(), expected, found));
        }
        *place = Some(member);
    }
    sample.add_to(index, shard)
}

/// A name up to the first dot behind its folders, and what follows the last one; `None` for hidden files and others that are
/// no part of a sample.
fn key_and_extension(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.')?;
    let last = name.rfind('.')?;
    (dot > 0).then(|| (&name[..base + dot], name[last + 1..].to_ascii_lowercase()))
}

impl Sample {
    fn add_to(self, index: &mut Index, shard: &PositionedFile) -> Result<(), DataError> {
        let Some(image) = &self.image else {
            let alone = [&self.cls, &self.json, &self.txt]
                .into_iter()
                .flatten()
                .next();
            return match alone {
                Some(label) => {
                    let found = format!("`{}` alone", label.name);
                    let expected =
                        "an image (.jpg, .jpeg, .png or .webp) in front of or behind its labels";
                    Err(DataError::archive(shard.path(), expected, found))
                }
                None => Ok(()),
            };
        };
        let label = self.label(shard)?.unwrap_or(UNLABELLED);
        index.push(
            shard.path(),
            (&image.name, label),
            (image.offset, image.size),
        )
    }

    /// The label in `.cls`, or else in `.json`, or else in `.txt`.
    fn label(&self, shard: &PositionedFile) -> Result<Option<u16>, DataError> {
        if let Some(member) = &self.cls {
            let text = read(shard, member)?;
            return number(shard, member, text.trim()).map(Some);
        }
        if let Some(member) = &self.json {
            let text = read(shard, member)?;
            let settings: Value = serde_json::from_str(&text).map_err(|error| {
                let found = format!("in `{}` {error}", member.name);
                DataError::labels(shard.path(), "JSON", found)
            })?;
            let label = settings.get("label").or_else(|| settings.get("cls"));
            if let Some(label) = label.filter(|label| !label.is_null()) {
                return number(shard, member, &label.to_string()).map(Some);
            }
        }
        let Some(member) = &self.txt else {
            return Ok(None);
        };
        // Whatever is no number is a caption.
        let text = read(shard, member)?;
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| number(shard, member, text)).transpose()
    }
}

fn read(shard: &PositionedFile, member: &Member) -> Result<String, DataError> {
    if member.size > MOST_LABEL_BYTES {
        let expected = format!("labels of at most {MOST_LABEL_BYTES} bytes");
        let found = format!("{} bytes in `{}`", member.size, member.name);
        return Err(DataError::labels(shard.path(), expected, found));
    }
    let bytes = shard.bytes(member.offset, member.size as u32)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(shard: &PositionedFile, member: &Member, text: &str) -> Result<u16, DataError> {
    let number = text.parse::<u16>().ok();
    let label = number.filter(|&label| usize::from(label) < MOST_CLASSES);
    label.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let found = format!("`{}` in `{}`", shown.escape_debug(), member.name);
        let expected = format!("a class by its number, 0 to {}", MOST_CLASSES - 1);
        DataError::labels(shard.path(), expected, found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_behind_folders() {
        let parts =
            |name| key_and_extension(name).map(|(key, extension)| format!("{key} {extension}"));
        assert_eq!(parts("000.JPG").unwrap(), "000 jpg");
        assert_eq!(parts("v1.2/a.left.png").unwrap(), "v1.2/a png");
        for none in ["README", "v1.2/README", ".hidden", "a/._000.jpg"] {
            assert_eq!(parts(none), None, "{none}");
        }
    }
}
