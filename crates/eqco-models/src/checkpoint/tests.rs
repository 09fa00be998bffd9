//! Round trips, damage of every kind, and a run that is killed while it writes.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::Device;
use safetensors::SafeTensors;

use super::read::parse;
use super::write::{WrittenEnvelope, partial_path, write_synchronised};
use super::*;
use crate::projection_head::HeadKind;
use crate::resnet::{Architecture, Stem};

fn sample(step: u64) -> Checkpoint {
    let encoder = EncoderConfig {
        width: 16,
        stem: Stem::Cifar,
        ..EncoderConfig::imagenet(Architecture::Resnet18)
    };
    let projection_head = ProjectionHeadConfig {
        kind: HeadKind::BatchNormMlp,
        hidden_dim: 0,
        embedding_dim: 128,
    };
    let metadata = CheckpointMetadata {
        encoder,
        projection_head,
        normalization: Normalization::CIFAR10,
        image_size: 32,
        // 0.1 + 0.2 needs all 17 digits: a reader that rounds differently changes a resumed run.
        training: serde_json::json!({"epochs": 10, "loss": {"alpha": "decoupled", "temperature": 0.1 + 0.2}}),
        step,
        epoch: 3,
        commit: "0123abc".into(),
        progress: serde_json::json!({"epoch_steps": 5, "sum": 0.1 + 0.7}),
    };
    let tensor =
        |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let tensors = vec![
        (
            "encoder.conv1.weight".into(),
            tensor(
                (0..54).map(|i| i as f32 * 0.37 - 3.0).collect(),
                &[2, 3, 3, 3],
            ),
        ),
        (
            "encoder.bn1.bias".into(),
            tensor(
                vec![f32::MIN_POSITIVE, -0.0, f32::MAX, f32::INFINITY, 1.0e-40],
                &[5],
            ),
        ),
        (
            "optimizer.step_count".into(),
            Tensor::new(step as i64, &Device::Cpu).unwrap(),
        ),
        ("empty".into(), tensor(vec![], &[0, 4])),
        (
            "half".into(),
            Tensor::new(&[1.5f32, -2.25], &Device::Cpu)
                .unwrap()
                .to_dtype(DType::BF16)
                .unwrap(),
        ),
        (
            "labels".into(),
            Tensor::new(&[7u8, 255, 0], &Device::Cpu).unwrap(),
        ),
        // A transposed view: what is written is its contents, not its memory.
        (
            "transposed".into(),
            tensor((0..6).map(|i| i as f32).collect(), &[2, 3])
                .t()
                .unwrap(),
        ),
    ];
    Checkpoint { metadata, tensors }
}

/// Element type, shape and the exact bits of every tensor, by name.
fn contents(checkpoint: &Checkpoint) -> HashMap<String, (DType, Vec<usize>, Vec<u8>)> {
    let describe = |tensor: &Tensor| {
        let mut bytes = Vec::new();
        tensor.write_bytes(&mut bytes).unwrap();
        (tensor.dtype(), tensor.dims().to_vec(), bytes)
    };
    checkpoint
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), describe(tensor)))
        .collect()
}

/// A folder with one good checkpoint, and its bytes.
fn saved() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    save(&path, &sample(41)).unwrap();
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// A safetensors file with this header and these data.
fn write_raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_round_trip_keeps_every_bit_and_leaves_one_file() {
    let (folder, path, bytes) = saved();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.metadata, sample(41).metadata);
    assert_eq!(contents(&loaded), contents(&sample(41)));
    assert_eq!(files(folder.path()), ["last.safetensors"]);
    save(&path, &loaded).unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        bytes,
        "the same checkpoint gives the same bytes"
    );
}

#[test]
fn every_tensor_is_aligned_and_the_file_is_plain_safetensors() {
    let (_folder, _, bytes) = saved();
    let (header_len, header) = SafeTensors::read_metadata(&bytes).unwrap();
    for (name, info) in header.tensors() {
        let width = info.dtype.bitsize() / 8;
        assert_eq!((8 + header_len + info.data_offsets.0) % width, 0, "{name}");
    }
    let view = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(view.tensor("transposed").unwrap().shape(), [3, 2]);
    assert_eq!(view.len(), 7);
}

#[test]
fn a_run_killed_before_the_rename_leaves_the_old_checkpoint_and_the_next_save_clears_up() {
    let (folder, path, old) = saved();
    let partial = partial_path(&path).unwrap();
    // All that `save` does before the rename; the process ends here.
    write_synchronised(&partial, &path, &sample(42)).unwrap();
    assert_eq!(
        files(folder.path()),
        [".last.safetensors.partial", "last.safetensors"]
    );
    assert_eq!(fs::read(&path).unwrap(), old);
    assert_eq!(load(&path).unwrap().metadata.step, 41);
    // Killed earlier still, in the middle of writing.
    fs::write(&partial, &old[..old.len() / 2]).unwrap();
    assert_eq!(load(&path).unwrap().metadata.step, 41);
    save(&path, &sample(43)).unwrap();
    assert_eq!(load(&path).unwrap().metadata.step, 43);
    assert_eq!(files(folder.path()), ["last.safetensors"]);
}

#[test]
fn a_failed_save_keeps_the_old_file_and_no_remains() {
    let (folder, path, old) = saved();
    let mut twice = sample(42);
    twice.tensors.push(twice.tensors[0].clone());
    let message = save(&path, &twice).unwrap_err().to_string();
    assert!(
        message.contains("encoder.conv1.weight a second time"),
        "{message}"
    );
    assert_eq!(fs::read(&path).unwrap(), old);
    assert_eq!(files(folder.path()), ["last.safetensors"]);

    let missing_folder = folder.path().join("absent").join("last.safetensors");
    let message = save(&missing_folder, &sample(1)).unwrap_err().to_string();
    assert!(
        message.contains("absent") && message.contains("cannot create it"),
        "{message}"
    );
    assert!(matches!(
        save(Path::new("/"), &sample(1)),
        Err(ModelError::Checkpoint { .. })
    ));

    let occupied = folder.path().join("folder");
    fs::create_dir(&occupied).unwrap();
    assert!(
        save(&occupied, &sample(1))
            .unwrap_err()
            .to_string()
            .contains("cannot put")
    );
    assert_eq!(files(folder.path()), ["folder", "last.safetensors"]);
}

#[test]
fn a_file_cut_anywhere_is_refused_with_its_path() {
    let (_folder, path, bytes) = saved();
    let sixteenths = (0..16).map(|part| bytes.len() * part / 16);
    for len in sixteenths.chain(0..32).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(
            matches!(error, ModelError::Checkpoint { .. }),
            "cut at {len}: {error}"
        );
        assert!(
            error.to_string().contains("last.safetensors"),
            "cut at {len}: {error}"
        );
        assert!(
            error.to_string().contains("use an earlier checkpoint"),
            "cut at {len}: {error}"
        );
    }
    fs::write(&path, [bytes.as_slice(), &[0]].concat()).unwrap();
    assert!(load(&path).is_err(), "a byte too many");
}

#[test]
fn every_changed_byte_of_the_header_is_refused() {
    let (_folder, path, bytes) = saved();
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for position in 0..header_end {
        // 0x03 turns version 2 into 1, which has no checksum.
        for change in [0x15, 0x03, 0x20] {
            let mut damaged = bytes.clone();
            damaged[position] ^= change;
            assert!(parse(&path, &damaged).is_err(), "byte {position}");
        }
    }
}

#[test]
fn every_changed_bit_of_the_data_is_refused_by_the_checksum() {
    let (_folder, path, bytes) = saved();
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for bit in 8 * header_end..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let message = parse(&path, &damaged).unwrap_err().to_string();
        assert!(message.contains("bytes whose CRC-32C is "), "{message}");
        assert!(message.contains("use an earlier checkpoint"), "{message}");
    }
}

#[test]
fn a_checkpoint_of_the_first_version_is_read_and_has_no_progress() {
    let (_folder, path, bytes) = saved();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + header_len]).unwrap();
    let digits = checksum::place(header.as_bytes()).unwrap();
    let digits = &header[digits..digits + 8];
    let first = header
        .trim_end()
        .replace("format_version\\\":2", "format_version\\\":1")
        .replace(&format!("\\\"crc32c\\\":\\\"{digits}\\\","), "")
        .replace(
            ",\\\"progress\\\":{\\\"epoch_steps\\\":5,\\\"sum\\\":0.7999999999999999}",
            "",
        );
    assert!(
        !first.contains("crc32c") && !first.contains("progress"),
        "{first}"
    );
    write_raw(&path, &first, &bytes[8 + header_len..]);
    let loaded = load(&path).unwrap();
    let mut expected = sample(41).metadata;
    expected.progress = serde_json::Value::Null;
    assert_eq!(loaded.metadata, expected);
    assert_eq!(contents(&loaded), contents(&sample(41)));
}

#[test]
fn a_header_larger_than_the_file_is_refused_before_anything_is_allocated() {
    let (_folder, path, mut bytes) = saved();
    for claimed in [1u64 << 30, u64::MAX, bytes.len() as u64 - 7] {
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let message = load(&path).unwrap_err().to_string();
        let found = format!("found {} bytes after them", bytes.len() - 8);
        assert!(
            message.contains(&format!("{claimed} bytes")) && message.contains(&found),
            "{message}"
        );
    }
}

#[test]
fn a_header_of_a_gigabyte_that_is_there_is_refused_before_it_is_read() {
    let (_folder, path, _) = saved();
    let file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &file, &(1u64 << 30).to_le_bytes()).unwrap();
    // A hole: it takes no space on the disk.
    file.set_len((1 << 30) + 8).unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(
        message.contains("expected a header of at most 100000000 bytes, found one of 1073741824"),
        "{message}"
    );
}

#[test]
fn shapes_that_overflow_and_strange_elements_are_refused() {
    let (_folder, path, _) = saved();
    let metadata = serde_json::to_string(&WrittenEnvelope {
        format_version: 1,
        crc32c: "",
        checkpoint: &sample(1).metadata,
    });
    // The first version has no checksum.
    let metadata = metadata.unwrap().replace(r#""crc32c":"","#, "");
    let metadata = serde_json::to_string(&metadata).unwrap();
    let attempt = |tensor: &str, data: &[u8]| {
        write_raw(
            &path,
            &format!(r#"{{"__metadata__":{{"eqco":{metadata}}},"t":{tensor}}}"#),
            data,
        );
        load(&path)
    };
    assert!(
        attempt(
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
            &[0; 4]
        )
        .is_ok()
    );
    for (tensor, data) in [
        (
            r#"{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}"#,
            4,
        ),
        (
            r#"{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}"#,
            4,
        ),
        (r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#, 8),
        (r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#, 4),
        (r#"{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}"#, 4),
        (r#"{"dtype":"F4","shape":[8],"data_offsets":[0,4]}"#, 4),
        (r#"{"dtype":"X9","shape":[4],"data_offsets":[0,4]}"#, 4),
    ] {
        let error = attempt(tensor, &vec![0; data]).unwrap_err();
        assert!(
            matches!(error, ModelError::Checkpoint { .. }),
            "{tensor}: {error}"
        );
    }
}

#[test]
fn missing_files_foreign_files_and_other_versions_each_say_what_to_do() {
    let (folder, path, _) = saved();
    let message = |path: &Path| load(path).unwrap_err().to_string();
    let absent = message(&folder.path().join("absent.safetensors"));
    assert!(
        absent.contains("nothing at this path; check the path"),
        "{absent}"
    );
    assert!(message(folder.path()).contains("found a folder"));
    fs::write(&path, "just a text, long enough to have a length").unwrap();
    assert!(message(&path).contains("bytes after them"));

    write_raw(
        &path,
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        &[1],
    );
    let foreign = message(&path);
    assert!(
        foreign.contains("key \"eqco\"") && foreign.contains("without it; give a checkpoint"),
        "{foreign}"
    );
    write_raw(
        &path,
        r#"{"__metadata__":{"eqco":"{\"format_version\":3,\"checkpoint\":{}}"}}"#,
        &[],
    );
    let newer = message(&path);
    assert!(
        newer.contains(
            "expected format version 2 or older, found version 3; read it with the release"
        ),
        "{newer}"
    );
    write_raw(
        &path,
        r#"{"__metadata__":{"eqco":"{\"format_version\":1,\"checkpoint\":{\"step\":1}}"}}"#,
        &[],
    );
    assert!(
        message(&path).contains("missing field"),
        "{}",
        message(&path)
    );
}

#[test]
fn sub_byte_elements_are_refused_when_saving() {
    let (_folder, path, _) = saved();
    let mut checkpoint = sample(1);
    let narrow = checkpoint.tensors[0].1.to_dtype(DType::F8E4M3).unwrap();
    checkpoint.tensors.push(("narrow".into(), narrow));
    assert!(
        save(&path, &checkpoint)
            .unwrap_err()
            .to_string()
            .contains("F8E4M3 in narrow")
    );
}

#[test]
fn pickles_are_refused_by_their_content_and_never_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start, found) in [
        (
            "model.pth",
            &b"PK\x03\x04\x00\x00\x08\x08\x00\x00"[..],
            "a zip archive, as torch.save writes it",
        ),
        (
            "model.safetensors",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "a pickle",
        ),
        (
            "model.ckpt",
            b"\x80\x05\x95\x10\x00\x00\x00\x00",
            "a pickle",
        ),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, start).unwrap();
        let told = load(&path).unwrap_err().to_string();
        let expected = format!(
            "checkpoint {}: expected a safetensors file, found {found}; a pickle can run any program",
            path.display()
        );
        assert!(told.starts_with(&expected), "{told}");
        assert!(
            told.contains("weights_only=True") && told.ends_with("IN.pth OUT.safetensors"),
            "{told}"
        );
    }
    // A header of 640 bytes begins with the same two bytes, and is none.
    let path = folder.path().join("checkpoint.safetensors");
    fs::write(&path, [&640u64.to_le_bytes()[..], &[b' '; 100]].concat()).unwrap();
    assert!(
        load(&path)
            .unwrap_err()
            .to_string()
            .contains("a header of 640 bytes")
    );
}
