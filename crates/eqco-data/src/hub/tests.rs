//! Whole downloads from a server on this machine that answers like the hub.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::birds::{COMMIT, answer, etag, golden};
use super::server::{Asked, Reply, Server};
use super::{Hub, HubSettings, Token};
use crate::dataset::Parquet;
use crate::{DataError, Dataset, Split};

const SECRET: &str = "hf_a_secret";
const SOURCE: &str = "hf://datasets/who/birds";

fn is_content(asked: &Asked) -> bool {
    asked.path.starts_with("content/")
}

fn settings(server: &Server, home: &TempDir) -> HubSettings {
    HubSettings {
        endpoint: server.address.clone(),
        cache: home.path().join("hub"),
        token: Token::new(SECRET),
        offline: false,
    }
}

fn open(settings: &HubSettings, source: &str, split: Split) -> Result<Parquet, DataError> {
    let hub = Hub {
        settings: settings.clone(),
        first_pause: Duration::from_millis(1),
    };
    hub.open(source, split)
}

/// The text of an error with its hint; in neither may a secret stand.
fn failure(settings: &HubSettings, source: &str) -> String {
    let error = open(settings, source, Split::Train).expect_err("an error");
    let text = format!("{error} / {error:?} / {}", error.hint().unwrap_or_default());
    assert!(!text.contains(SECRET), "{text}");
    text
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_split_is_downloaded_once_and_named_with_its_commit() {
    let (server, home) = (Server::start(|asked, _| answer(asked)), home());
    let settings = settings(&server, &home);
    let train = open(&settings, SOURCE, Split::Train).unwrap();
    assert_eq!((train.len(), train.class_names().len()), (120, 5));
    assert_eq!(train.name(), format!("who/birds@{COMMIT}"));
    assert_eq!(train.encoded(60).unwrap(), train.encoded(0).unwrap());
    let asked = server.asked();
    let paths: Vec<_> = asked.iter().map(|a| (&a.method[..], &a.path[..])).collect();
    let resolved = format!("datasets/who/birds/resolve/{COMMIT}/data/train-00000-of-00002.parquet");
    assert_eq!(paths[0], ("GET", "api/datasets/who/birds/revision/main"));
    assert_eq!(paths[1], ("HEAD", &resolved[..]));
    assert_eq!(paths[2], ("GET", &resolved[..]));
    assert_eq!(
        paths[3],
        ("GET", "content/data/train-00000-of-00002.parquet")
    );
    assert_eq!(paths.len(), 7);

    // Nothing but the list is asked for again.
    open(&settings, SOURCE, Split::Train).unwrap();
    assert_eq!(server.asked().len(), 8);

    // The layout is that of Hugging Face's programs.
    let folder = settings.cache.join("datasets--who--birds");
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    let snapshot = folder.join("snapshots").join(COMMIT);
    let content = fs::read(snapshot.join("data/train-00001-of-00002.parquet")).unwrap();
    assert_eq!(content, golden("zstd-v1"));
    #[cfg(unix)]
    {
        let link = fs::read_link(snapshot.join("data/train-00001-of-00002.parquet")).unwrap();
        assert_eq!(link, Path::new("../../../blobs").join(etag(&content)));
    }
}

#[test]
fn a_test_part_without_labels_gives_way_to_validation() {
    let (server, home) = (Server::start(|asked, _| answer(asked)), home());
    let test = open(&settings(&server, &home), SOURCE, Split::Test).unwrap();
    assert!(
        test.describe(0).contains("validation-00000"),
        "{}",
        test.describe(0)
    );
    assert_eq!(test.label(13), Some(3));
}

#[test]
fn offline_the_cache_serves_what_was_asked_for_before() {
    let (server, home) = (Server::start(|asked, _| answer(asked)), home());
    let online = settings(&server, &home);
    let offline = HubSettings {
        offline: true,
        ..online.clone()
    };
    let text = failure(&offline, SOURCE);
    assert!(
        text.contains("it is not in") && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
    assert_eq!(server.asked().len(), 0);

    open(&online, &format!("{SOURCE}@v2/data"), Split::Train).unwrap();
    let before = server.asked().len();
    for source in [
        format!("{SOURCE}@v2/data"),
        format!("{SOURCE}@{COMMIT}/data"),
    ] {
        let train = open(&offline, &source, Split::Train).unwrap();
        assert_eq!(
            (train.len(), train.name()),
            (120, &format!("who/birds/data@{COMMIT}")[..])
        );
    }
    assert_eq!(server.asked().len(), before);
    assert!(
        failure(&offline, SOURCE).contains("it is not in"),
        "main was never asked for"
    );
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let server = Server::start(|asked, _| {
        let reply = answer(asked);
        // Whatever is asked for, 3,000 bytes come at most.
        let cut_after = is_content(asked).then_some(3000);
        Reply { cut_after, ..reply }
    });
    let home = home();
    open(&settings(&server, &home), SOURCE, Split::Train).unwrap();
    let asked = server.asked();
    let parts = asked.iter().filter(|a| {
        a.path
            .ends_with("content/data/train-00000-of-00002.parquet")
    });
    let firsts: Vec<_> = parts.map(|a| a.first).collect();
    let expected: Vec<_> = (0..golden("plain-v1").len()).step_by(3000).collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|at| Some(at).filter(|&at| at > 0))
        .collect();
    assert_eq!(firsts, expected);
    assert!(firsts.len() > 2);
}

#[test]
fn a_later_run_goes_on_with_what_is_there() {
    let broken = Server::start(|asked, number| match is_content(asked) {
        true if number == 0 => Reply {
            cut_after: Some(4000),
            ..answer(asked)
        },
        true => Reply::status("503 Service Unavailable"),
        false => answer(asked),
    });
    let home = home();
    let text = failure(&settings(&broken, &home), SOURCE);
    assert!(
        text.contains("503 Service Unavailable; gave up after 5 tries"),
        "{text}"
    );

    let server = Server::start(|asked, _| answer(asked));
    open(&settings(&server, &home), SOURCE, Split::Train).unwrap();
    let asked = server.asked();
    let first = asked.iter().find(|asked| is_content(asked)).unwrap();
    assert_eq!(first.first, Some(4000));
}

#[test]
fn servers_without_ranges_start_again() {
    let server = Server::start(|asked, number| {
        let whole = Asked {
            first: None,
            ..asked.clone()
        };
        let cut_after = (is_content(asked) && number == 0).then_some(3000);
        Reply {
            cut_after,
            ..answer(&whole)
        }
    });
    let home = home();
    assert_eq!(
        open(&settings(&server, &home), SOURCE, Split::Train)
            .unwrap()
            .len(),
        120
    );
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, expected) in [
        (
            "401 Unauthorized",
            "GatedRepo",
            "access is refused (401 Unauthorized)",
        ),
        (
            "403 Forbidden",
            "GatedRepo",
            "access is refused (403 Forbidden)",
        ),
        (
            "401 Unauthorized",
            "RepoNotFound",
            "no such data set, or it is private",
        ),
    ] {
        for refuses_list in [true, false] {
            let server = Server::start(move |asked, _| {
                match refuses_list == asked.path.starts_with("api/") {
                    true => Reply::status(status).with("X-Error-Code", code),
                    false => answer(asked),
                }
            });
            let home = home();
            let text = failure(&settings(&server, &home), SOURCE);
            assert!(
                text.contains(expected) && text.contains("huggingface-cli login"),
                "{text}"
            );
            assert!(text.contains("hf://datasets/who/birds@main"), "{text}");
        }
    }
    for (code, expected) in [
        ("RevisionNotFound", "no such revision"),
        ("RepoNotFound", "no such data set or file (404 Not Found)"),
    ] {
        let server =
            Server::start(move |_, _| Reply::status("404 Not Found").with("X-Error-Code", code));
        let home = home();
        let text = failure(&settings(&server, &home), SOURCE);
        assert!(text.contains(expected), "{text}");
        assert_eq!(server.asked().len(), 1, "it is not asked for again");
    }
}

#[test]
fn wrong_lengths_and_contents_are_refused() {
    let home = home();
    let outcome = |change: fn(Reply) -> Reply| {
        let server = Server::start(move |asked, _| match is_content(asked) {
            true => change(answer(asked)),
            false => answer(asked),
        });
        failure(&settings(&server, &home), SOURCE)
    };
    let bytes = golden("plain-v1").len();
    let text = outcome(|reply| Reply {
        announced: Some(reply.content.len() + 10),
        ..reply
    });
    assert!(
        text.contains(&format!("{} bytes instead of {bytes}", bytes + 10)),
        "{text}"
    );
    let text = outcome(|mut reply| {
        reply.content[100] ^= 1;
        reply
    });
    assert!(text.contains("content with the SHA-256"), "{text}");
    // What was wrong is not gone on with.
    let server = Server::start(|asked, _| answer(asked));
    open(&settings(&server, &home), SOURCE, Split::Train).unwrap();
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let elsewhere = Server::start(|asked, _| answer(asked));
    let other = elsewhere.address.clone();
    let server = Server::start(move |asked, _| {
        let mut reply = answer(asked);
        for (name, value) in &mut reply.headers {
            if *name == "Location" {
                *value = format!("{other}{value}");
            }
        }
        reply
    });
    let home = home();
    open(&settings(&server, &home), SOURCE, Split::Train).unwrap();
    let expected = Some(format!("Bearer {SECRET}"));
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.authorization == expected)
    );
    let theirs = elsewhere.asked();
    assert_eq!(theirs.len(), 2);
    assert!(theirs.iter().all(|asked| asked.authorization.is_none()));
    for entry in fs::read_dir(home.path().join("hub/datasets--who--birds/refs")).unwrap() {
        assert!(
            !fs::read_to_string(entry.unwrap().path())
                .unwrap()
                .contains(SECRET)
        );
    }
}

#[test]
fn answers_that_are_none_of_the_hubs_are_told() {
    for (content, expected) in [
        ("<html>", "no list of files"),
        (r#"{"sha": "../../x", "siblings": []}"#, "no list of files"),
        (
            r#"{"sha": "0123456789abcdef0123456789abcdef01234567"}"#,
            "there is no Parquet file",
        ),
        (
            r#"{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "../x.parquet"}]}"#,
            "a file called `../x.parquet`",
        ),
    ] {
        let server = Server::start(move |_, _| Reply {
            content: content.as_bytes().to_vec(),
            ..Reply::default()
        });
        let home = home();
        let text = failure(&settings(&server, &home), SOURCE);
        assert!(text.contains(expected), "{text}");
        assert!(!home.path().join("x.parquet").exists());
    }
    let server = Server::start(|_, _| Reply::status("302 Found").with("Location", "/again"));
    let home = home();
    let settings = settings(&server, &home);
    assert!(failure(&settings, SOURCE).contains("more than 5 redirects"));
    assert!(failure(&settings, "hf://datasets/birds").contains("hf://datasets/OWNER/NAME"));
}
