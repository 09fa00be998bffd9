//! Archives that are as they should be, and such that are not.

use tar::{Builder, EntryType, Header as TarHeader};

use super::*;

/// The names and contents of the files in an archive, or what the error says.
fn walked(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let file = PositionedFile::in_memory(Path::new("archive.tar"), archive.to_vec());
    let members = Members::of(&file).map(|member| {
        let member = member.map_err(|error| error.to_string())?;
        let content = file.bytes(member.offset, member.size as u32);
        Ok((member.name, content.unwrap()))
    });
    members.collect()
}

fn header(kind: EntryType, size: u64) -> TarHeader {
    let mut header = TarHeader::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header
}

/// An archive with the given entries; names are written as they are.
fn archive(entries: &[(EntryType, &[u8], &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = header(*kind, content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn refused(archive: &[u8], expected: &str) {
    let error = walked(archive).unwrap_err();
    assert!(
        error.contains(expected),
        "expected `{expected}` in `{error}`"
    );
    assert!(error.contains("archive.tar"), "{error}");
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn files_are_found_between_folders_and_padding() {
    let content = [7; 513];
    let bytes = archive(&[
        (EntryType::Directory, b"./", b""),
        (FILE, b"./a/1.jpg", &content),
        (EntryType::Directory, b"a/b/", b""),
        (FILE, b"empty", b""),
        (FILE, b"a..b/..c", b"x"),
    ]);
    let files = walked(&bytes).unwrap();
    let expected = [
        ("a/1.jpg", &content[..]),
        ("empty", b""),
        ("a..b/..c", b"x"),
    ];
    assert!(
        files
            .iter()
            .map(|(name, content)| (&**name, &**content))
            .eq(expected),
        "{files:?}"
    );
}

#[test]
fn names_beyond_a_hundred_bytes_are_read_in_all_three_forms() {
    let long = format!("{}/{}.jpg", "f".repeat(120), "x".repeat(90));
    let mut builder = Builder::new(Vec::new());
    // GNU's form.
    let mut gnu = TarHeader::new_gnu();
    gnu.set_size(3);
    builder.append_data(&mut gnu, &long, &b"gnu"[..]).unwrap();
    // POSIX's: a prefix in the header, and a record in front.
    let mut prefixed = header(FILE, 6);
    prefixed.set_path(&long).unwrap();
    prefixed.set_cksum();
    builder.append(&prefixed, &b"prefix"[..]).unwrap();
    builder
        .append_pax_extensions([("path", long.as_bytes()), ("comment", b"x=\ny")])
        .unwrap();
    let mut short = header(FILE, 3);
    short.set_path("short").unwrap();
    short.set_cksum();
    builder.append(&short, &b"pax"[..]).unwrap();
    builder.append(&short, &b"own"[..]).unwrap();
    let files = walked(&builder.into_inner().unwrap()).unwrap();
    let expected = [
        (&*long, "gnu"),
        (&long, "prefix"),
        (&long, "pax"),
        ("short", "own"),
    ];
    let expected = expected.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()));
    assert_eq!(files, expected);
}

#[test]
fn a_size_in_a_pax_record_stands_above_the_headers() {
    let sized = |size: &[u8], claimed: u64| {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("size", size)]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        let mut entry = header(FILE, claimed);
        entry.set_path("image.jpg").unwrap();
        entry.set_cksum();
        bytes.extend(entry.as_bytes());
        bytes.extend([5; 1024]);
        bytes.extend([0; 1024]);
        bytes
    };
    assert_eq!(walked(&sized(b"1000", 0)).unwrap()[0].1, [5; 1000]);
    refused(
        &sized(b"1000000", 0),
        "the 1000000 bytes that the header of `image.jpg` claims",
    );
    refused(&sized(b"18446744073709551615", 0), "a size from 0 to 2^63");
    refused(
        &sized(b"99999999999999999999999", 0),
        "a size from 0 to 2^63",
    );
    refused(&sized(b"-1", 0), "a size from 0 to 2^63");
    refused(&sized(b"", 0), "a size from 0 to 2^63");
    // Read as the header has it, the content would begin with a header that is none.
    refused(&sized(b"512", 1024), "the right checksum");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        &b"/etc/passwd"[..],
        b"../image.jpg",
        b"a/../../image.jpg",
        b"a/..",
        b"a\\..\\b.jpg",
        b".//image.jpg",
        b"./",
        b"",
    ] {
        // The tar crate takes a name that ends with a slash for a folder, as we do.
        let kind = if name == b"./" {
            EntryType::Continuous
        } else {
            FILE
        };
        refused(
            &archive(&[(kind, name, b"x")]),
            "relative names of 1 to 4096 bytes",
        );
    }
    let far = [&[b'a'; 4097][..], &b"/b"[..]].concat();
    for name in [&far[..], b"../b", b""] {
        let entries = [
            (EntryType::GNULongName, &b"L"[..], name),
            (FILE, &b"good"[..], &b"x"[..]),
        ];
        refused(&archive(&entries), "relative names");
    }
}

#[test]
fn only_files_and_folders_are_taken() {
    for (kind, found) in [
        (EntryType::Symlink, "a link (type `2`): `image.jpg`"),
        (EntryType::Link, "a link (type `1`)"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Fifo, "a device or pipe"),
        (EntryType::Char, "a device or pipe"),
        (EntryType::new(b'\xff'), "a member (type `\\xff`)"),
    ] {
        refused(&archive(&[(kind, b"image.jpg", b"")]), found);
    }
    refused(
        &archive(&[(EntryType::Directory, b"a/", b"content")]),
        "folders without content",
    );
    let global =
        |record: &[u8]| archive(&[(EntryType::XGlobalHeader, b"g", record), (FILE, b"a", b"x")]);
    assert_eq!(walked(&global(b"13 comment=x\n")).unwrap().len(), 1);
    refused(&global(b"10 path=b\n"), "the setting `path`");
    let sparse = archive(&[
        (EntryType::XHeader, b"x", b"22 GNU.sparse.major=1\n"),
        (FILE, b"a", b"x"),
    ]);
    refused(&sparse, "GNU.sparse.major");
}

#[test]
fn archives_that_are_cut_short_are_refused_wherever_they_are_cut() {
    let entries = [
        (EntryType::GNULongName, &b"L"[..], &b"long"[..]),
        (FILE, b"b", &[1; 600]),
    ];
    let whole = archive(&entries);
    assert_eq!(walked(&whole).unwrap().len(), 1);
    // Of the end marker one block is enough, as for tar itself.
    let needed = whole.len() - 512;
    assert!(walked(&whole[..needed]).is_ok());
    for length in (0..needed).step_by(37).chain([needed - 1, needed - 512]) {
        refused(&whole[..length], "cut short");
    }
}

#[test]
fn claims_are_checked_before_memory_is_taken() {
    for (kind, expected) in [
        (FILE, "bytes that the header of"),
        (EntryType::GNULongName, "bytes that the header of"),
        (EntryType::XHeader, "bytes that the header of"),
    ] {
        for size in [513, 1 << 40, i64::MAX as u64] {
            let mut claims = header(kind, size);
            claims.set_cksum();
            let bytes = [claims.as_bytes(), &[b'x'; 512][..]].concat();
            refused(&bytes, expected);
        }
    }
    let huge = vec![b'x'; (1 << 20) + 1];
    refused(
        &archive(&[(EntryType::XHeader, b"x", &huge)]),
        "at most 1048576 bytes of names",
    );
    // An extension of nothing, and records that lie about themselves.
    refused(
        &archive(&[(EntryType::GNULongName, b"L", b"name")]),
        "a member behind its extension",
    );
    for record in [
        &b"9"[..],
        b"99 path=a\n",
        b"0 path=a\n",
        b"9 path=ab\n",
        b"8 path a\n",
        b"path=a\n",
        b"2 ",
    ] {
        let bytes = archive(&[(EntryType::XHeader, b"x", record), (FILE, b"a", b"x")]);
        refused(&bytes, "LENGTH KEY=VALUE");
    }
}

#[test]
fn random_damage_never_panics() {
    let entries = [
        (EntryType::XHeader, &b"x"[..], &b"10 path=b\n"[..]),
        (FILE, b"b", &[1; 600]),
    ];
    let whole = archive(&entries);
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        let at = random(bytes.len());
        bytes[at] = random(256) as u8;
        // With a checksum that is right again, the change is looked at.
        for header in [0, 1024] {
            let mut block = TarHeader::new_ustar();
            block
                .as_mut_bytes()
                .copy_from_slice(&bytes[header..header + 512]);
            block.set_cksum();
            bytes[header..header + 512].copy_from_slice(block.as_bytes());
        }
        match walked(&bytes) {
            Ok(_) => fine += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(fine > 100 && refused > 100, "{fine} {refused}");
}
