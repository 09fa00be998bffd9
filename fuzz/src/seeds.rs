//! The first inputs of every target: small valid files, in the form that the target takes apart.
//!
//! They are made, not stored: by the writers of the crates under test, and of the files that the crates' tests have.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use eqco_data::dataset::packed::PackWriter;
use eqco_data::{Format, Split, open_as};
use eqco_models::checkpoint::{self, Checkpoint, CheckpointMetadata};
use eqco_models::{Architecture, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig};
use eqco_train::config::Preset;
use tar::{Builder, Header};

use crate::targets::{parquet, stored_index, validation_labels};
use crate::{files, input};

/// Names the folder that a target writes its seeds to, instead of running.
const VARIABLE: &str = "EQCO_FUZZ_SEEDS";

/// Named seeds.
type Seeds = Vec<(String, Vec<u8>)>;

/// Writes the seeds of `target` and ends the process, if the environment says so.
pub fn write_if_asked(target: &str) {
    let Some(folder) = std::env::var_os(VARIABLE) else {
        return;
    };
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).expect("the folder of the seeds can be made");
    for (name, bytes) in of(target) {
        fs::write(folder.join(name), bytes).expect("a seed can be written");
    }
    std::process::exit(0);
}

fn of(target: &str) -> Seeds {
    match target {
        "checkpoint" => checkpoints(),
        "cifar" => cifar(),
        "config" => configs(),
        "idx" => idx(),
        "image_file" => golden("files", &["png", "webp"]),
        "jpeg" => with_first(&[0, 0, 255, 255], golden("files", &["jpg"])),
        "manifest" => stored("data", &["toml"]),
        "packed" => packed(),
        "parquet" => parquet_files(),
        "stored_index" => vec![("index".to_owned(), stored_index())],
        "tar" => tar(),
        "validation_labels" => validation_labels(),
        other => panic!("no seeds for {other}"),
    }
}

/// Files of these kinds in a folder of the repository.
fn stored(folder: &str, kinds: &[&str]) -> Seeds {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let paths = listed.flatten().map(|entry| entry.path());
    let wanted = paths.filter(|path| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        kind.is_some_and(|kind| kinds.contains(&kind))
    });
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (
            name.into_owned(),
            fs::read(&path).expect("a stored file can be read"),
        )
    };
    wanted.map(read).collect()
}

/// Files that the tests of eqco-data read.
fn golden(folder: &str, kinds: &[&str]) -> Seeds {
    stored(&format!("crates/eqco-data/tests/golden/{folder}"), kinds)
}

fn with_first(first: &[u8], seeds: Seeds) -> Seeds {
    let with = |(name, bytes): (String, Vec<u8>)| (name, [first, &bytes].concat());
    seeds.into_iter().map(with).collect()
}

fn archive(members: &[(&str, &[u8])], gnu: bool) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = if gnu {
            Header::new_gnu()
        } else {
            Header::new_ustar()
        };
        header.set_size(content.len() as u64);
        let added = builder.append_data(&mut header, name, *content);
        added.expect("memory can be written to");
    }
    builder.into_inner().expect("memory can be written to")
}

/// A shard of three images with labels in three ways.
pub fn shard() -> Vec<u8> {
    let members: [(&str, &[u8]); 6] = [
        ("000.jpg", b"first"),
        ("000.cls", b"1"),
        ("a/001.png", b"second"),
        ("a/001.json", b"{\"label\": 0}"),
        ("002.webp", b"third"),
        ("002.txt", b"2"),
    ];
    archive(&members, false)
}

/// Four validation images.
pub fn validation_archive() -> Vec<u8> {
    let names = [1, 2, 3, 4].map(|number| format!("ILSVRC2012_val_0000000{number}.JPEG"));
    let members = names.each_ref().map(|name| (&name[..], &b"image"[..]));
    archive(&members, true)
}

fn tar() -> Seeds {
    let long = "n/".repeat(60) + "image.jpg";
    let inner = archive(&[("n01440764_1.JPEG", b"image")], true);
    let nested = archive(
        &[("n01440764.tar", &inner), ("n01440765.tar", &inner)],
        true,
    );
    let mut pax = Builder::new(Vec::new());
    let settings: [(&str, &[u8]); 2] = [("path", b"b.jpg"), ("size", b"5")];
    pax.append_pax_extensions(settings)
        .expect("memory can be written to");
    let mut header = Header::new_ustar();
    header.set_size(5);
    let added = pax.append_data(&mut header, "a.jpg", &b"image"[..]);
    added.expect("memory can be written to");
    let pax = pax.into_inner().expect("memory can be written to");
    let seeds = [
        (0, shard()),
        (
            crate::targets::tar::REPAIR,
            archive(&[(&long, b"image")], true),
        ),
        (crate::targets::tar::REPAIR, pax),
        (
            crate::targets::tar::REPAIR | crate::targets::tar::NESTED,
            nested,
        ),
    ];
    numbered(seeds)
}

fn numbered<const N: usize>(seeds: [(u8, Vec<u8>); N]) -> Seeds {
    let seeds = seeds.into_iter().enumerate();
    seeds
        .map(|(number, (first, bytes))| (format!("seed-{number}"), [&[first], &bytes[..]].concat()))
        .collect()
}

fn stored_index() -> Vec<u8> {
    let shard = shard();
    files::with(&[("train-0.tar", &shard)], |root| {
        let path = root.join("train-0.tar");
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .expect("it is there");
        file.set_modified(stored_index::archive_time())
            .expect("its own file");
        let path = path.to_str().expect("temporary paths are UTF-8");
        open_as(path, Split::Train, Some(Format::Shards)).expect("a valid shard");
        let index = fs::read(root.join("train-0.tar.eqco-index"));
        [&[stored_index::REPAIR], &index.expect("it was kept")[..]].concat()
    })
}

fn packed() -> Seeds {
    let repair = crate::targets::packed::REPAIR | crate::targets::packed::REPAIR_LENGTH;
    let classes = ["ant".to_owned(), "bee".to_owned()];
    let [labelled, unlabelled] = [&classes[..], &[]].map(|classes| {
        files::with(&[], |root| {
            let path = root.join("set.eqco");
            let mut writer = PackWriter::create(&path, "a set", classes).expect("a new file");
            for number in 0..3 {
                let label = (!classes.is_empty()).then_some(number % 2);
                let split = [Split::Train, Split::Test][number as usize / 2];
                writer.add(split, label, b"image").expect("its own classes");
            }
            writer.finish().expect("a new file");
            fs::read(path).expect("it has been written")
        })
    });
    numbered([
        (0, labelled.clone()),
        (repair, labelled),
        (repair, unlabelled),
    ])
}

fn idx() -> Seeds {
    let file = |numbers: &[u32], content: &[u8]| {
        let header = numbers.iter().flat_map(|number| number.to_be_bytes());
        header.chain(content.iter().copied()).collect::<Vec<u8>>()
    };
    let labels = file(&[2049, 2], &[1, 0]);
    let images = file(&[2051, 2, 2, 3], &[7; 12]);
    let both = input::join(&labels, &images);
    numbered([(0, both.clone()), (crate::targets::idx::GZIP, both)])
}

fn cifar() -> Seeds {
    use crate::targets::cifar::{FINE, REPAIR};

    let names = |count: usize| {
        let lines = (0..count).map(|class| format!("class {class}\n"));
        lines.collect::<String>()
    };
    let [ten, hundred] = [10, 100].map(names);
    numbered([
        (0, input::join(ten.as_bytes(), &[3; 3073])),
        (REPAIR, input::join(ten.as_bytes(), &[3; 9])),
        (FINE | REPAIR, input::join(hundred.as_bytes(), &[3; 9])),
    ])
}

fn parquet_files() -> Seeds {
    let whole = golden("parquet", &["parquet"]);
    let parts = whole.iter().filter_map(|(name, file)| {
        let parts = parquet::to_parts(file)?;
        Some((format!("parts-{name}"), parts))
    });
    let mut seeds: Seeds = parts.collect();
    seeds.extend(with_first(&[0], whole));
    seeds
}

fn checkpoints() -> Seeds {
    let tensor = |values: &[f32]| {
        candle_core::Tensor::new(values, &candle_core::Device::Cpu).expect("a small tensor")
    };
    let checkpoint = Checkpoint {
        metadata: CheckpointMetadata {
            encoder: EncoderConfig::imagenet(Architecture::Resnet18),
            projection_head: ProjectionHeadConfig {
                kind: HeadKind::BatchNormMlp,
                hidden_dim: 0,
                embedding_dim: 128,
            },
            normalization: Normalization::CIFAR10,
            image_size: 32,
            training: Default::default(),
            step: 7,
            epoch: 1,
            commit: "0123abc".to_owned(),
            progress: Default::default(),
        },
        tensors: vec![
            ("encoder.conv1.weight".to_owned(), tensor(&[0.5, -1.0, 2.0])),
            ("method.queue".to_owned(), tensor(&[])),
        ],
    };
    let file = files::with(&[], |root| {
        let path = root.join("run.safetensors");
        checkpoint::save(&path, &checkpoint).expect("a new file");
        fs::read(path).expect("it has been written")
    });
    let parts = crate::targets::checkpoint::to_parts(&file).expect("a small header");
    vec![
        ("file".to_owned(), [&[0], &file[..]].concat()),
        ("parts".to_owned(), parts),
    ]
}

fn configs() -> Seeds {
    let presets = Preset::all().iter().map(|preset| {
        let config = preset.config().expect("presets are complete").to_toml();
        (preset.name.to_owned(), [&[0], config.as_bytes()].concat())
    });
    let flags = [
        "loss.alpha=infonce",
        "loss.alpha='equivalent-batch 256'",
        "method.name=moco_v2",
        "data.recipe.name=simclr",
        "data.format=shards",
        "optimizer.name=lars",
        "schedule.warmup_epochs=1",
        "normalization.mean=[0.5, 0.5, 0.5]",
    ];
    let flags = flags
        .iter()
        .enumerate()
        .map(|(number, flag)| (format!("flag-{number}"), [&[1], flag.as_bytes()].concat()));
    let file = "# a comment\n[loss]\nalpha = \"decoupled\"\n[encoder]\nwidth = 16\n";
    let file = ("file".to_owned(), [&[0], file.as_bytes()].concat());
    presets.chain(flags).chain([file]).collect()
}

fn validation_labels() -> Seeds {
    let wnids = "n02119789\nn01440764\nn02100735\nn01440764\n";
    let line = |(number, wnid): (usize, &str)| {
        format!("ILSVRC2012_val_0000000{},{wnid} 1 2 3 4\n", number + 1)
    };
    let lines: String = wnids.lines().enumerate().map(line).collect();
    let kaggle = format!("ImageId,PredictionString\n{lines}");
    let meta: BTreeMap<String, Vec<u8>> = golden("devkit", &["mat"]).into_iter().collect();
    let kit = "ILSVRC2012_devkit_t12/data";
    let packed = archive(
        &[
            (&format!("{kit}/meta.mat"), &meta["meta.mat"]),
            (
                &format!("{kit}/{}", validation_labels::TRUTH),
                b"1\n4\n2\n4\n",
            ),
        ],
        true,
    );
    let plain = &meta["meta_uncompressed.mat"];
    numbered([
        (0, wnids.as_bytes().to_vec()),
        (0, lines.replace(' ', "\t").into_bytes()),
        (1, kaggle.into_bytes()),
        (2, meta["meta.mat"].clone()),
        (2, plain.clone()),
        (2 | validation_labels::COMPRESS, plain[128..].to_vec()),
        (3, validation_labels::gzip(&packed)),
        (3 | validation_labels::COMPRESS, packed),
    ])
}
