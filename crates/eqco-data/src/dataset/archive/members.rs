//! The files in a tar archive, found by reading headers and skipping what lies between them.

use std::path::Path;

use super::header::{BLOCK, Flaw, Header, Kind};
use super::positioned_file::PositionedFile;
use crate::DataError;

/// The longest name in bytes, as in Linux.
const LONGEST_NAME: usize = 4096;

/// The longest names and settings of a member that are read, in bytes.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// A file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// With `/` between folders; neither absolute nor leading upwards.
    pub(crate) name: String,
    /// Where its content begins, in bytes from the beginning of the outermost file.
    pub(crate) offset: u64,
    /// Bytes of its content, all of which are in the archive.
    pub(crate) size: u64,
}

/// Walks over the files of an archive in their order. Folders are passed over.
///
/// Nothing is believed that a header says: contents lie within the archive, names stay below it. Links, sparse files and devices
/// are errors, as is an archive without its end marker, from which something may be missing.
pub(crate) struct Members<'a> {
    file: &'a PositionedFile,
    next: u64,
    end: u64,
    done: bool,
}

/// What extensions said about the member that follows.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    anything: bool,
}

impl<'a> Members<'a> {
    /// Over a whole file.
    pub(crate) fn of(file: &'a PositionedFile) -> Self {
        Self::between(file, 0, file.stamp().size)
    }

    /// Over an archive within an archive.
    pub(crate) fn within(file: &'a PositionedFile, archive: &Member) -> Self {
        Self::between(file, archive.offset, archive.offset + archive.size)
    }

    fn between(file: &'a PositionedFile, next: u64, end: u64) -> Self {
        Self {
            file,
            next,
            end,
            done: false,
        }
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn next_file(&mut self) -> Result<Option<Member>, DataError> {
        let mut announced = Announced::default();
        loop {
            let at = self.next;
            let flaw = |flaw: Flaw| {
                let found = format!("{}, at byte {at}", flaw.found);
                DataError::archive(self.path(), flaw.expected, found)
            };
            if self.end.saturating_sub(at) < BLOCK as u64 {
                let expected = "an end marker of empty blocks";
                return Err(flaw(Flaw::new(
                    expected,
                    "the end of the file: it is cut short",
                )));
            }
            let mut block = [0; BLOCK];
            self.file.read_exact_at(&mut block, at)?;
            let Some(header) = Header::parse(&block).map_err(flaw)? else {
                if announced.anything {
                    return Err(flaw(Flaw::new(
                        "a member behind its extension",
                        "the end marker",
                    )));
                }
                return Ok(None);
            };
            let content = self.content(&header, &announced).map_err(flaw)?;
            let (offset, size) = (content.start, content.end - content.start);
            match header.kind {
                Kind::File => {
                    let name = announced.name.unwrap_or(header.name);
                    let name = checked_name(&name).map_err(flaw)?;
                    self.pass(content.end);
                    return Ok(Some(Member { name, offset, size }));
                }
                Kind::Folder => announced = Announced::default(),
                Kind::Other(letter) => {
                    return Err(flaw(not_a_file(letter, &header.name)));
                }
                kind => {
                    let bytes = self.extension(offset, size, at)?;
                    announced.add(kind, &bytes).map_err(flaw)?;
                }
            }
            self.pass(content.end);
        }
    }

    /// Where a member's content lies, if all of it is there.
    fn content(
        &self,
        header: &Header,
        announced: &Announced,
    ) -> Result<std::ops::Range<u64>, Flaw> {
        let is_file = header.kind == Kind::File;
        let size = announced.size.filter(|_| is_file).unwrap_or(header.size);
        let name = String::from_utf8_lossy(&header.name);
        // Whether bytes of a folder follow is read differently by different programs.
        if header.kind == Kind::Folder && size != 0 {
            let found = format!("{size} bytes for `{name}`");
            return Err(Flaw::new("folders without content", found));
        }
        let start = self.next + BLOCK as u64;
        let left = self.end - start;
        if size > left {
            let found = format!("{left} bytes to the end: it is cut short or damaged");
            let expected = format!("the {size} bytes that the header of `{name}` claims");
            return Err(Flaw::new(expected, found));
        }
        Ok(start..start + size)
    }

    /// Goes on behind a content that ends at `end`.
    fn pass(&mut self, end: u64) {
        self.next = end.next_multiple_of(BLOCK as u64);
    }

    fn extension(&self, offset: u64, size: u64, at: u64) -> Result<Vec<u8>, DataError> {
        if size > LONGEST_EXTENSION {
            let expected = format!("at most {LONGEST_EXTENSION} bytes of names and settings");
            let found = format!("{size}, at byte {at}");
            return Err(DataError::archive(self.path(), expected, found));
        }
        self.file.bytes(offset, size as u32)
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let member = self.next_file().transpose();
        self.done = !matches!(member, Some(Ok(_)));
        member
    }
}

fn not_a_file(letter: u8, name: &[u8]) -> Flaw {
    let kind = match letter {
        b'1' | b'2' => "a link",
        b'S' => "a sparse file",
        b'3' | b'4' | b'6' => "a device or pipe",
        _ => "a member",
    };
    let name = String::from_utf8_lossy(name);
    let kind = format!("{kind} (type `{}`): `{name}`", letter.escape_ascii());
    Flaw::new("files and folders alone", kind)
}

impl Announced {
    fn add(&mut self, kind: Kind, content: &[u8]) -> Result<(), Flaw> {
        self.anything |= kind != Kind::GlobalPax;
        match kind {
            Kind::LongName => {
                let end = content.iter().position(|&byte| byte == 0);
                self.name = Some(content[..end.unwrap_or(content.len())].to_vec());
            }
            Kind::Pax | Kind::GlobalPax => {
                let mut rest = content;
                while !rest.is_empty() {
                    let record = pax_record(rest)?;
                    self.set(kind, record.key, record.value)?;
                    rest = record.rest;
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn set(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<(), Flaw> {
        let key = String::from_utf8_lossy(key);
        let matters = key == "path" || key == "size" || key.starts_with("GNU.sparse");
        if key.starts_with("GNU.sparse") || (matters && kind == Kind::GlobalPax) {
            let found = format!("the setting `{key}`");
            return Err(Flaw::new("plain files with a name and size each", found));
        }
        if key == "path" {
            self.name = Some(value.to_vec());
        } else if key == "size" {
            let size = decimal(value).filter(|&size| i64::try_from(size).is_ok());
            self.size = Some(size.ok_or_else(|| {
                let found = String::from_utf8_lossy(value);
                Flaw::new("a size from 0 to 2^63", format!("`{found}`"))
            })?);
        }
        Ok(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = Some(digits).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A setting, and what follows it.
struct PaxRecord<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

/// The first record `LENGTH KEY=VALUE\n`, whose length counts all of it.
fn pax_record(bytes: &[u8]) -> Result<PaxRecord<'_>, Flaw> {
    let parse = || {
        let space = bytes.iter().position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        Some(PaxRecord {
            key: &record[..equals],
            value: &record[equals + 1..],
            rest: &bytes[length..],
        })
    };
    parse().ok_or_else(|| Flaw::new("settings LENGTH KEY=VALUE", "something else"))
}

/// A name that stays below the archive, without `./` in front.
fn checked_name(name: &[u8]) -> Result<String, Flaw> {
    let text = String::from_utf8_lossy(name);
    let mut inner = &*text;
    while let Some(rest) = inner.strip_prefix("./") {
        inner = rest;
    }
    let unsafe_name = inner.starts_with('/')
        || inner.split(['/', '\\']).any(|part| part == "..")
        || inner.contains('\0');
    if inner.is_empty() || name.len() > LONGEST_NAME || unsafe_name {
        let shown: String = text.chars().take(80).collect();
        let expected = format!("relative names of 1 to {LONGEST_NAME} bytes without `..`");
        return Err(Flaw::new(expected, format!("`{}`", shown.escape_debug())));
    }
    Ok(inner.to_owned())
}

#[cfg(test)]
mod tests;
