//! Servers that break off, refuse, change their mind or say nothing.

use std::time::Duration;

use super::server::{Asked, Deed, Server};
use super::*;

fn is_shard(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.ends_with(".tar")
}

#[test]
fn what_breaks_twice_is_resumed_and_no_byte_comes_twice() {
    let files = unlabelled(&[8, 8]);
    let size = files[0].1.len();
    let server = Server::start(files, |asked, number| match is_shard(asked) {
        true if number < 2 => Deed::cut_after(3000),
        _ => Deed::default(),
    });
    let cache = folder();
    expect_all(&train(&settings(&cache), &pattern(&server, 2)), 16);
    for name in ["train-0000.tar", "train-0001.tar"] {
        let transfers = server.transfers(name);
        let parts: Vec<_> = transfers
            .iter()
            .map(|asked| (asked.first, asked.sent))
            .collect();
        assert_eq!(
            parts,
            [(None, 3000), (Some(3000), 3000), (Some(6000), size - 6000)]
        );
    }
}

#[test]
fn what_always_breaks_is_given_up_with_its_place() {
    let server = Server::start(unlabelled(&[8]), |asked, _| match is_shard(asked) {
        true => Deed::cut_after(1000),
        false => Deed::default(),
    });
    let cache = folder();
    let source = pattern(&server, 1);
    let text = failure(&settings(&cache), &source);
    let shard = format!("{}/set/train-0000.tar", server.address);
    assert!(text.starts_with(&shard), "{text}");
    assert!(text.contains("at byte 4000 of "), "{text}");
    assert!(
        text.contains("gave up after 4 tries") && text.contains("what has come is kept"),
        "{text}"
    );
    assert_eq!(server.transfers(".tar").len(), 4);
    // A later run goes on with it.
    failure(&settings(&cache), &source);
    assert_eq!(server.transfers(".tar")[4].first, Some(4000));
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let server = Server::start(unlabelled(&[4]), |_, number| match number {
        0 => Deed::status("503 Service Unavailable"),
        1 => Deed::status("429 Too Many Requests"),
        _ => Deed::default(),
    });
    let cache = folder();
    expect_all(&train(&settings(&cache), &pattern(&server, 1)), 4);
    let server = Server::start(unlabelled(&[4]), |_, _| {
        Deed::status("500 Internal Server Error")
    });
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(
        text.contains("the server answered 500 Internal Server Error; gave up after 4 tries"),
        "{text}"
    );
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn silence_ends_at_some_time() {
    for hangs_after in [0, 2000] {
        let server = Server::start(unlabelled(&[8]), move |asked, _| Deed {
            hangs: is_shard(asked),
            cut_after: Some(hangs_after),
            ..Deed::default()
        });
        let cache = folder();
        let settings = RemoteSettings {
            tries: 2,
            patience: Duration::from_millis(100),
            ..settings(&cache)
        };
        let text = failure(&settings, &pattern(&server, 1));
        assert!(
            text.contains("nothing came for 0.1 s; gave up after 2 tries"),
            "{text}"
        );
    }
    let nobody = "http://127.0.0.1:1/set/a.tar";
    let cache = folder();
    let text = failure(&settings(&cache), nobody);
    assert!(
        text.starts_with(nobody) && text.contains("gave up after 4 tries"),
        "{text}"
    );
}

#[test]
fn refusals_are_not_asked_again() {
    for (status, expected) in [
        (
            "404 Not Found",
            "the server answered 404 Not Found | check the address",
        ),
        (
            "403 Forbidden",
            "the server answered 403 Forbidden | for s3://, set AWS_ACCESS_KEY_ID",
        ),
        ("400 Bad Request", "the server answered 400 Bad Request"),
    ] {
        let server = Server::start(unlabelled(&[4, 4]), move |asked, _| {
            match asked.path.ends_with("0001.tar") {
                true => Deed::status(status),
                false => Deed::default(),
            }
        });
        let cache = folder();
        let text = failure(&settings(&cache), &pattern(&server, 2));
        assert!(
            text.contains(&format!("train-0001.tar: {expected}")),
            "{text}"
        );
        assert_eq!(server.asked().len(), 2);
    }
}

#[test]
fn an_object_that_changes_is_an_error() {
    let other = |asked: &Asked| Deed {
        etag: is_shard(asked).then(|| "\"other\"".to_owned()),
        ..Deed::default()
    };
    let cache = folder();
    let server = Server::start(unlabelled(&[8]), move |asked, _| other(asked));
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(
        text.contains("the object has changed: expected ") && text.contains("version \"other\""),
        "{text}"
    );
    assert!(text.contains("shards do not change under a run"), "{text}");

    // In the middle of a transfer: what has come is not mixed with the rest.
    let server = Server::start(unlabelled(&[8]), move |asked, number| match number {
        0 => Deed::cut_after(1000),
        _ => other(asked),
    });
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(
        text.contains("at byte 1000 of ") && text.contains("has changed"),
        "{text}"
    );
    assert_eq!(server.transfers(".tar").len(), 2);

    // Between runs, it is another shard.
    let server = Server::start(unlabelled(&[8]), |_, _| Deed {
        etag: Some("\"new\"".to_owned()),
        ..Deed::default()
    });
    expect_all(&train(&settings(&cache), &pattern(&server, 1)), 8);
}

#[test]
fn servers_without_ranges_begin_again() {
    let files = unlabelled(&[8]);
    let size = files[0].1.len();
    let server = Server::start(files, |asked, number| Deed {
        ignores_ranges: true,
        cut_after: (is_shard(asked) && number == 0).then_some(3000),
        ..Deed::default()
    });
    let cache = folder();
    expect_all(&train(&settings(&cache), &pattern(&server, 1)), 8);
    let sent: Vec<_> = server
        .transfers(".tar")
        .iter()
        .map(|asked| asked.sent)
        .collect();
    assert_eq!((sent[0], sent[sent.len() - 1]), (3000, size));
}

#[test]
fn without_a_version_nothing_is_joined() {
    let server = Server::start(unlabelled(&[8]), |asked, number| Deed {
        etag: Some(String::new()),
        cut_after: (is_shard(asked) && number < 2).then_some(3000),
        ..Deed::default()
    });
    let cache = folder();
    expect_all(&train(&settings(&cache), &pattern(&server, 1)), 8);
    let firsts: Vec<_> = server
        .transfers(".tar")
        .iter()
        .map(|asked| asked.first)
        .collect();
    assert_eq!(firsts, [None, None, None]);
}

#[test]
fn redirects_are_followed_and_not_for_ever() {
    let elsewhere = Server::of(unlabelled(&[4]));
    let target = elsewhere.address.clone();
    let redirect = move |asked: &Asked| Deed {
        headers: vec![("Location", format!("{target}/{}", asked.path))],
        ..Deed::status("302 Found")
    };
    let server = Server::start([], move |asked, _| redirect(asked));
    let cache = folder();
    expect_all(&train(&settings(&cache), &pattern(&server, 1)), 4);
    assert_eq!(server.transfers(".tar").len(), 1);
    let server = Server::start([], |asked, _| Deed {
        headers: vec![("Location", format!("/{}", asked.path))],
        ..Deed::status("307 Temporary Redirect")
    });
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(text.contains("more than 5 redirects"), "{text}");
}

#[test]
fn sizes_are_checked_before_anything_is_fetched() {
    for (length, expected) in [
        (
            1 << 60,
            "1152921504606846976 bytes, more than the 67108864 that the cache has room for",
        ),
        (u64::MAX, "18446744073709551615 bytes, more than"),
    ] {
        let server = Server::start(unlabelled(&[4]), move |_, _| Deed {
            length: Some(length),
            ..Deed::default()
        });
        let cache = folder();
        let text = failure(&settings(&cache), &pattern(&server, 1));
        assert!(
            text.contains(expected) && text.contains("EQCO_SHARD_CACHE_GIB"),
            "{text}"
        );
        assert!(server.transfers(".tar").is_empty());
    }
    // A length that is too large is one that never comes.
    let server = Server::start(unlabelled(&[4]), |asked, _| Deed {
        length: (asked.first.is_none()).then_some(1 << 20),
        ..Deed::default()
    });
    let cache = folder();
    let text = failure(&settings(&cache), &pattern(&server, 1));
    assert!(text.contains("train-0000.tar: at byte "), "{text}");
}

#[test]
fn shards_that_lead_elsewhere_or_claim_too_much_are_refused() {
    let member = |path: &[u8], size: u64| {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut shard = header.as_bytes().to_vec();
        shard.resize(4 * 512, 0);
        shard
    };
    let cut = unlabelled(&[3]).remove(0).1;
    for (content, expected) in [
        (member(b"../../a.png", 0), "found `../../a.png`"),
        (member(b"/a.png", 0), "found `/a.png`"),
        (
            member(b"a.png", 1 << 32),
            "expected the 4294967296 bytes that the header of `a.png` claims",
        ),
        (cut[..cut.len() - 1024].to_vec(), "cut short"),
        (vec![1; 1024], "expected"),
        (vec![0; 1024], "no image"),
        (Vec::new(), "cut short"),
    ] {
        let server = Server::of([("set/a.tar".to_owned(), content)]);
        let cache = folder();
        let text = failure(&settings(&cache), &format!("{}/set/a.tar", server.address));
        assert!(
            text.starts_with(&server.address) && text.contains(expected),
            "{text}"
        );
        assert!(!cache.path().join("a.png").exists() && !Path::new("/a.png").exists());
    }
}
