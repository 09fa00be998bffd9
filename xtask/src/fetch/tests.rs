//! Whole fetches from a server on this machine that can misbehave on demand.

use std::fs;
use std::path::Path;

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::download::Manners;
use super::manifest::Manifest;
use super::server::{MANNERS, Server, Treatment};
use super::{digest, fetch};

/// 6,000 bytes that gzip cannot shorten much, in `set/train/a.bin`.
fn archive() -> Vec<u8> {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..6000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    packed("set/train/a.bin", &noise)
}

fn packed(path: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.append(&header, content).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

/// A manifest for `content` at `urls`.
fn manifest(content: &[u8], urls: &[&str]) -> Manifest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    fs::write(&path, content).unwrap();
    let identity = digest::identity(&path).unwrap();
    let text = format!(
        r#"
        title = "A test"
        homepage = "https://example.org"
        licence = "MIT"
        format = "image-folder"
        max_unpacked_bytes = 10000
        [[file]]
        name = "set.tgz"
        urls = {urls:?}
        bytes = {}
        sha256 = "{}"
        unpack = {{ kind = "tar-gz", strip_components = 1 }}
        "#,
        identity.bytes, identity.sha256
    );
    Manifest::parse("set", &text).unwrap()
}

fn fetch_now(manifest: &Manifest, from: &[&Path], out: &TempDir) -> Result<()> {
    let from: Vec<_> = from.iter().map(|path| path.to_path_buf()).collect();
    let target = fetch(manifest, &from, out.path(), MANNERS)?;
    assert_eq!(target, out.path().join("set"));
    assert_eq!(fs::metadata(target.join("train/a.bin"))?.len(), 6000);
    assert!(!out.path().join(".downloads/set").exists());
    Ok(())
}

fn complaint(outcome: Result<()>) -> String {
    format!("{:#}", outcome.unwrap_err())
}

/// Files below `.downloads/set`, sorted, but for the lock.
fn leftovers(out: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(out.path().join(".downloads/set"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_comes_in_segments_and_is_not_fetched_twice() {
    let server = Server::start(archive(), |_, _| Treatment::Serve);
    let manifest = manifest(&archive(), &[&server.address]);
    let out = tempfile::tempdir().unwrap();
    fetch_now(&manifest, &[], &out).unwrap();

    let mut asked = server.asked();
    assert_eq!(asked[0], "0-0");
    asked[1..].sort();
    let last = archive().len() - 1;
    let rest = [
        "0-999",
        "1000-1999",
        "2000-2999",
        "3000-3999",
        "4000-4999",
        "5000-5999",
        &format!("6000-{last}"),
    ];
    assert_eq!(asked[1..], rest);

    fetch_now(&manifest, &[], &out).unwrap();
    assert_eq!(server.asked().len(), 8, "the second run needs no network");
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let server = Server::start(archive(), |request, length| match request {
        0 => Treatment::Serve,
        _ => Treatment::CutAfter(length.min(300)),
    });
    let out = tempfile::tempdir().unwrap();
    fetch_now(&manifest(&archive(), &[&server.address]), &[], &out).unwrap();
    // Four tries a segment, more than `attempts`: none of them was in vain.
    let asked = server.asked();
    for range in ["0-999", "300-999", "600-999", "900-999", "5900-5999"] {
        let times = asked.iter().filter(|asked| *asked == range).count();
        assert_eq!(times, 1, "{range} in {asked:?}");
    }
}

#[test]
fn a_later_run_goes_on_with_what_is_there() {
    let failing = Server::start(archive(), |request, length| match request {
        0 => Treatment::Serve,
        1..=3 => Treatment::CutAfter(length / 2),
        _ => Treatment::Refuse("503 Service Unavailable"),
    });
    let out = tempfile::tempdir().unwrap();
    // One connection, so that the first three segments come first.
    let alone = Manners {
        connections: 1,
        ..MANNERS
    };
    let manifest_of = |server: &Server| manifest(&archive(), &[&server.address]);
    let told = fetch(&manifest_of(&failing), &[], out.path(), alone).unwrap_err();
    let told = format!("{told:#}");
    assert!(told.contains("gave up after 3 tries"), "{told}");
    assert!(told.contains("503 Service Unavailable"), "{told}");
    assert!(!out.path().join("set").exists());
    assert_eq!(leftovers(&out).len(), 3);

    // Three segments are half there, and any server has the rest.
    let healthy = Server::start(archive(), |_, _| Treatment::Serve);
    fetch_now(&manifest_of(&healthy), &[], &out).unwrap();
    let asked = healthy.asked();
    for (range, times) in [
        ("500-999", 1),
        ("0-999", 0),
        ("2500-2999", 1),
        ("3000-3999", 1),
    ] {
        let got = asked.iter().filter(|asked| *asked == range).count();
        assert_eq!(got, times, "{range} in {asked:?}");
    }
}

#[test]
fn a_server_without_ranges_will_do() {
    let server = Server::start(archive(), |request, _| match request {
        1 => Treatment::IgnoreRange(700),
        _ => Treatment::IgnoreRange(usize::MAX),
    });
    let out = tempfile::tempdir().unwrap();
    fetch_now(&manifest(&archive(), &[&server.address]), &[], &out).unwrap();
    let whole = format!("0-{}", archive().len() - 1);
    let rest = format!("700-{}", archive().len() - 1);
    assert_eq!(server.asked(), ["0-0", &whole, &rest]);
}

#[test]
fn redirects_are_followed_and_end_somewhere() {
    let server = Server::start(archive(), |request, _| match request {
        0 => Treatment::Redirect("/elsewhere.tgz"),
        _ => Treatment::Serve,
    });
    let out = tempfile::tempdir().unwrap();
    fetch_now(&manifest(&archive(), &[&server.address]), &[], &out).unwrap();

    let server = Server::start(archive(), |_, _| Treatment::Redirect("/elsewhere.tgz"));
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(
        &manifest(&archive(), &[&server.address]),
        &[],
        &out,
    ));
    assert!(told.contains("more than 5 redirects"), "{told}");

    let server = Server::start(archive(), |_, _| Treatment::Redirect("http://example.org/"));
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(
        &manifest(&archive(), &[&server.address]),
        &[],
        &out,
    ));
    assert!(told.contains("not an https address"), "{told}");
}

#[test]
fn wrong_content_is_refused_and_removed() {
    let mut altered = archive();
    altered[1234] ^= 1;
    let server = Server::start(altered, |_, _| Treatment::Serve);
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(
        &manifest(&archive(), &[&server.address]),
        &[],
        &out,
    ));
    assert!(told.contains("expected sha256"), "{told}");
    assert!(!out.path().join("set").exists());
    assert_eq!(leftovers(&out), [""; 0]);
}

#[test]
fn wrong_length_is_refused_before_the_download() {
    let mut longer = archive();
    longer.push(0);
    let server = Server::start(longer, |_, _| Treatment::Serve);
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(
        &manifest(&archive(), &[&server.address]),
        &[],
        &out,
    ));
    let lengths = format!(
        "has {} bytes, expected {}",
        archive().len() + 1,
        archive().len()
    );
    assert!(told.contains(&lengths), "{told}");
    assert_eq!(server.asked(), ["0-0"]);
}

#[test]
fn a_mirror_steps_in() {
    let missing = Server::start(archive(), |_, _| Treatment::Refuse("404 Not Found"));
    let mirror = Server::start(archive(), |_, _| Treatment::Serve);
    let out = tempfile::tempdir().unwrap();
    let manifest = manifest(&archive(), &[&missing.address, &mirror.address]);
    fetch_now(&manifest, &[], &out).unwrap();
    assert_eq!(missing.asked(), ["0-0"], "404 is not tried again");
}

#[test]
fn what_is_missing_is_named() {
    let server = Server::start(archive(), |_, _| Treatment::Refuse("404 Not Found"));
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(
        &manifest(&archive(), &[&server.address]),
        &[],
        &out,
    ));
    let expected = format!(
        "cannot download set.tgz: {}: the server answered 404 Not Found",
        server.address
    );
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn an_archive_that_leads_out_of_its_folder_leaves_nothing() {
    let bad = packed("set/../../../escaped.bin", &[1; 6000]);
    let server = Server::start(bad.clone(), |_, _| Treatment::Serve);
    let out = tempfile::tempdir().unwrap();
    let told = complaint(fetch_now(&manifest(&bad, &[&server.address]), &[], &out));
    assert!(told.contains("leads out of the folder"), "{told}");
    assert!(!out.path().join("set").exists());
    assert!(!out.path().join("escaped.bin").exists());
    assert!(!out.path().join(".downloads/escaped.bin").exists());
}

#[test]
fn files_on_disk_are_taken_and_verified() {
    let nowhere = manifest(&archive(), &["https://example.org/set.tgz"]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("set.tgz");
    fs::write(&file, archive()).unwrap();
    for from in [place.path(), file.as_path()] {
        let out = tempfile::tempdir().unwrap();
        fetch_now(&nowhere, &[from], &out).unwrap();
        assert!(file.exists(), "the original stays");
    }

    let out = tempfile::tempdir().unwrap();
    fs::write(&file, &archive()[1..]).unwrap();
    let told = complaint(fetch_now(&nowhere, &[&file], &out));
    assert!(told.contains("is not the published file"), "{told}");

    let told = complaint(fetch_now(&nowhere, &[out.path()], &out));
    assert!(
        told.contains("hint: it is published at https://example.org"),
        "{told}"
    );
}

#[test]
fn the_same_content_repacked_is_taken_from_disk() {
    let repacked = packed("set/train/a.bin", &[3; 6000]);
    let mut manifest = manifest(&archive(), &["https://example.org/set.tgz"]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("set.tgz");
    fs::write(&file, repacked).unwrap();
    manifest.files[0].repacked = Some(digest::identity(&file).unwrap());
    fetch_now(&manifest, &[&file], &tempfile::tempdir().unwrap()).unwrap();
}

#[test]
fn a_folder_of_other_origin_is_left_alone() {
    let manifest = manifest(&archive(), &["https://example.org/set.tgz"]);
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("set")).unwrap();
    fs::write(out.path().join("set/mine"), "").unwrap();
    let told = complaint(fetch_now(&manifest, &[], &out));
    assert!(told.contains("not from this manifest"), "{told}");
    assert!(out.path().join("set/mine").exists());
}

#[test]
fn what_an_earlier_run_completed_is_not_fetched_again() {
    let server = Server::start(archive(), |_, _| Treatment::Serve);
    let manifest = manifest(&archive(), &[&server.address]);
    for (present, requests) in [(archive(), 0), (archive()[1..].to_vec(), 8)] {
        let out = tempfile::tempdir().unwrap();
        let work = out.path().join(".downloads/set");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("set.tgz"), present).unwrap();
        fetch_now(&manifest, &[], &out).unwrap();
        assert_eq!(server.asked().len(), requests);
    }
}

/// Linux has a file that every write finds full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_room_that_is_needed() {
    let server = Server::start(archive(), |_, _| Treatment::Serve);
    let manifest = manifest(
        &archive(),
        &[&server.address, "https://example.org/set.tgz"],
    );
    let out = tempfile::tempdir().unwrap();
    let work = out.path().join(".downloads/set");
    fs::create_dir_all(&work).unwrap();
    std::os::unix::fs::symlink("/dev/full", work.join("set.tgz.0-1000.part")).unwrap();
    let told = complaint(fetch_now(&manifest, &[], &out));
    assert!(told.contains("cannot write what was downloaded"), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    assert!(told.contains("hint: "), "{told}");
    let room = indicatif::HumanBytes(10_000 + archive().len() as u64);
    assert!(told.contains(&format!("up to {room} are needed")), "{told}");
    assert!(
        !told.contains("example.org"),
        "no other address helps: {told}"
    );
}
