//! Servers, stores, folders and local shards give the same samples; labels, names and counts come from beside them.

use std::fs;

use super::server::{Asked, Deed};
use super::*;

/// Shards with labels, for training and validation.
fn labelled() -> Vec<(String, Vec<u8>)> {
    let label = |number| Some(number % 3);
    vec![
        ("set/train-0.tar".to_owned(), shard(0..5, label)),
        ("set/train-1.tar".to_owned(), shard(5..9, label)),
        ("set/val-0.tar".to_owned(), shard(9..12, label)),
    ]
}

const SPLITS: &str = "set/{train-{0..1},val-0}.tar";

/// Bytes, pixels, labels and names of two data sets are the same.
fn expect_same(one: &dyn Dataset, other: &dyn Dataset) {
    assert_eq!(
        (one.len(), one.class_names()),
        (other.len(), other.class_names())
    );
    for index in 0..one.len() {
        assert_eq!(one.encoded(index).unwrap(), other.encoded(index).unwrap());
        assert_eq!(one.image(index).unwrap(), other.image(index).unwrap());
        assert_eq!(one.label(index), other.label(index));
    }
}

#[test]
fn every_source_gives_the_same_samples() {
    for names in [None, Some("ant\nbee\ncat\ndog\n")] {
        let mut files = labelled();
        files.extend(names.map(|names| ("set/classes.txt".to_owned(), names.into())));
        let local = folder();
        fs::create_dir(local.path().join("set")).unwrap();
        for (name, content) in &files {
            fs::write(local.path().join(name), content).unwrap();
        }
        let bucket = files
            .iter()
            .map(|(name, content)| (format!("bucket/{name}"), content.clone()));
        let server = Server::of(bucket.chain(files.clone()).collect::<Vec<_>>());
        let cache = folder();
        let settings = RemoteSettings {
            s3: s3(&server.address),
            ..settings(&cache)
        };
        for split in [Split::Train, Split::Test] {
            let local = eqco_data::open(local.path().join("set").to_str().unwrap(), split).unwrap();
            let sources = [
                format!("{}/{SPLITS}", server.address),
                format!("s3://bucket/{SPLITS}"),
            ];
            for source in sources {
                let remote = open(&settings, &source, split).unwrap();
                expect_same(&*local, &remote);
                assert_eq!(remote.name(), source);
                assert!(
                    remote
                        .describe(0)
                        .starts_with(source.split('{').next().unwrap())
                );
            }
        }
    }
}

#[test]
fn folders_give_the_same_samples() {
    let unpacked = folder();
    for number in 0..9u32 {
        let class = unpacked.path().join(format!("train/{}", number / 3));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{number:05}.png")), png(number)).unwrap();
    }
    fs::create_dir_all(unpacked.path().join("test/0")).unwrap();
    let folders = eqco_data::open(unpacked.path().to_str().unwrap(), Split::Train).unwrap();
    let label = |number| Some(number / 3);
    let server = Server::of([
        ("a-0.tar".to_owned(), shard(0..4, label)),
        ("a-1.tar".to_owned(), shard(4..9, label)),
    ]);
    let cache = folder();
    let source = format!("{}/a-{{0..1}}.tar", server.address);
    expect_same(&*folders, &train(&settings(&cache), &source));
}

const SECRET: &str = "wJalrXUtnFEMI";

fn s3(endpoint: &str) -> S3Settings {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "session-of-mine"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
    ];
    S3Settings::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

#[test]
fn stores_are_asked_with_a_signature_and_nothing_secret_is_told() {
    let bucket = || {
        unlabelled(&[4, 4])
            .into_iter()
            .map(|(name, file)| (format!("b/{name}"), file))
    };
    let server = Server::of(bucket());
    let cache = folder();
    let asking = RemoteSettings {
        s3: s3(&server.address),
        ..settings(&cache)
    };
    expect_all(&train(&asking, "s3://b/set/train-{0000..0001}.tar"), 8);
    let signed = |asked: &Asked| {
        let signature = asked.authorization.as_deref().unwrap_or_default();
        signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
            && signature.contains("/eu-central-1/s3/aws4_request")
    };
    assert!(server.asked().iter().all(signed));
    let secret = |text: &str| {
        [SECRET, "AKIAEXAMPLE", "session-of-mine"]
            .iter()
            .any(|s| text.contains(s))
    };
    assert!(!secret(&format!("{asking:?}")));

    // Stores repeat in their errors who has asked, and what was signed.
    for (status, code, expected) in [
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            "403 Forbidden, SignatureDoesNotMatch | for s3://, set AWS_",
        ),
        (
            "404 Not Found",
            "NoSuchKey",
            "404 Not Found, NoSuchKey | check the address",
        ),
        (
            "503 Service Unavailable",
            "SlowDown",
            "SlowDown; gave up after 4 tries",
        ),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            "another region: set AWS_REGION=us-west-2",
        ),
    ] {
        let server = Server::start(bucket(), move |asked, _| Deed {
            text: format!(
                "<Error><Code>{code}</Code><AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId><StringToSign>{}</StringToSign></Error>",
                SECRET
            ),
            headers: vec![("x-amz-bucket-region", "us-west-2".to_owned())],
            ..match asked.method == "GET" || status.starts_with("301") {
                true => Deed::status(status),
                false => Deed::default(),
            }
        });
        let cache = folder();
        let asking = RemoteSettings {
            s3: s3(&server.address),
            ..settings(&cache)
        };
        let error = open(&asking, "s3://b/set/train-{0000..0001}.tar", Split::Train)
            .err()
            .unwrap();
        let text = format!("{} / {error:?}", told(&error));
        assert!(
            text.contains("s3://b/set/train-0000.tar") && text.contains(expected),
            "{text}"
        );
        assert!(!secret(&text), "{text}");
        let kept = fs::read_dir(&asking.cache).into_iter().flatten().flatten();
        assert!(
            kept.into_iter()
                .all(|entry| !secret(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap())))
        );
    }
}

#[test]
fn stores_in_the_open_have_to_be_allowed() {
    let cache = folder();
    let variables = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ];
    let asking = RemoteSettings {
        s3: S3Settings::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        ..settings(&cache)
    };
    let text = failure(&asking, "s3://b/a.tar");
    assert!(text.contains("s3://b/a.tar: "), "{text}");
    assert!(text.contains("AWS_ALLOW_HTTP"), "{text}");
}

#[test]
fn a_key_that_is_not_set_is_missed() {
    let cache = folder();
    let nobody = "http://127.0.0.1:1";
    let variables = [
        ("AWS_METADATA_ENDPOINT", nobody),
        ("AWS_ENDPOINT_URL", nobody),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let asking = RemoteSettings {
        s3: S3Settings::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        ..settings(&cache)
    };
    let text = failure(&asking, "s3://b/a.tar");
    assert!(
        text.starts_with("s3://b/a.tar: ") && text.contains("| for s3://, set AWS_ACCESS_KEY_ID"),
        "{text}"
    );
}

#[test]
fn counted_shards_are_not_read_before_their_time() {
    let index = |counts: [u32; 3]| {
        let shards = counts.iter().enumerate().map(|(number, count)| {
            format!("{{\"url\": \"gs://x/train-{number:04}.tar\", \"nsamples\": {count}}}")
        });
        format!(
            "{{\"shardlist\": [{}]}}",
            shards.collect::<Vec<_>>().join(", ")
        )
    };
    for name in ["set/index.json", "set/train-index.json", "set/train.json"] {
        let mut files = unlabelled(&[4, 5, 6]);
        files.push((name.to_owned(), index([4, 5, 6]).into()));
        let server = Server::of(files);
        let cache = folder();
        let images = train(&settings(&cache), &pattern(&server, 3));
        assert_eq!(images.len(), 15);
        // The first one tells whether there are labels.
        assert_eq!(server.transfers(".tar").len(), 1);
        expect_all(&images, 15);
    }
    // Counts that are wrong are found out, and others than all shards' are of no use.
    let mut files = unlabelled(&[4, 5, 6]);
    files.push(("set/index.json".to_owned(), index([4, 6, 6]).into()));
    let server = Server::of(files);
    let cache = folder();
    let images = train(&settings(&cache), &pattern(&server, 3));
    assert_eq!(images.encoded(3).unwrap().unwrap(), png(3));
    let text = told(&images.encoded(4).unwrap_err());
    assert!(
        text.contains("train-0001.tar: expected 6 images") && text.contains("found 5"),
        "{text}"
    );
    let server = Server::of({
        let mut files = unlabelled(&[4, 5, 6, 7]);
        files.push(("set/index.json".to_owned(), index([4, 5, 6]).into()));
        files
    });
    expect_all(&train(&settings(&cache), &pattern(&server, 4)), 22);
}

#[test]
fn labels_are_in_all_shards_or_in_none() {
    let index =
        r#"{"shardlist": [{"url": "a-0.tar", "nsamples": 2}, {"url": "a-1.tar", "nsamples": 2}]}"#;
    for counted in [false, true] {
        let mut files = vec![
            ("a-0.tar".to_owned(), shard(0..2, |_| None)),
            ("a-1.tar".to_owned(), shard(2..4, Some)),
        ];
        files.extend(counted.then(|| ("index.json".to_owned(), index.into())));
        let server = Server::of(files);
        let cache = folder();
        let opened = open(
            &settings(&cache),
            &format!("{}/a-{{0..1}}.tar", server.address),
            Split::Train,
        );
        let text = match opened {
            Ok(images) => told(&images.encoded(2).unwrap_err()),
            Err(error) => told(&error),
        };
        let expected = match counted {
            true => "a-1.tar: expected no label, as in the first shard, found one for `00002.png`",
            false => {
                "expected a label for every image, as for `00002.png`, found none for `00000.png`"
            }
        };
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn splits_classes_and_addresses_are_checked() {
    let mut files = labelled();
    files.push(("set/classes.txt".to_owned(), "ant\nbee\n".into()));
    let server = Server::of(files);
    let cache = folder();
    let settings = settings(&cache);
    let source = format!("{}/{SPLITS}", server.address);
    let text = failure(&settings, &source);
    assert!(
        text.contains("labels from 0 to 1, as there are 2 classes, found the label 2"),
        "{text}"
    );
    let trained = format!("{}/set/train-{{0..1}}.tar", server.address);
    let text = told(&open(&settings, &trained, Split::Test).err().unwrap());
    assert!(text.contains("found none for testing"), "{text}");
    for (source, expected) in [
        ("https://me:hunter2@host/a.tar", "a user or password"),
        ("s3://bucket/folder/", "is no shard (*.tar)"),
        ("https://host/a-{0..2}", "is no shard (*.tar)"),
        ("https://host/a-{2..0}.tar", "`{2..0}`"),
    ] {
        let text = failure(&settings, source);
        assert!(
            text.contains(expected) && text.contains("give https://HOST/PATH"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
