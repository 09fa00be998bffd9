//! Checkpoints: a safetensors file that holds all tensors of a run by name, and what is needed to use them.
//!
//! **A checkpoint is complete or absent.** It is written to `.NAME.partial` beside its destination, synchronised to the
//! disk and only then renamed over the old file, so a run that is killed at any moment leaves the old file or the new one.
//!
//! The metadata is one JSON text under the key [`METADATA_KEY`] of safetensors' own metadata:
//! `{"format_version": 1, "checkpoint": {...}}`, the inner object being [`CheckpointMetadata`].

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::normalization::Normalization;
use crate::projection_head::ProjectionHeadConfig;
use crate::resnet::EncoderConfig;

/// Version of the metadata that this build writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// Where safetensors' metadata holds ours.
pub const METADATA_KEY: &str = "eqco";

const LENGTH_BYTES: u64 = 8;
const STORABLE: &str = "elements of u8, i16, i32, i64, u32, f16, bf16, f32 or f64";
const NOT_OURS: &str = "give a checkpoint that eqco-train has written";
const DAMAGED: &str =
    "the file is damaged or incomplete: copy it again, or use an earlier checkpoint of the run";

/// What a reader needs beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointMetadata {
    /// The backbone.
    pub encoder: EncoderConfig,
    /// The projection head.
    pub projection_head: ProjectionHeadConfig,
    /// How input images are normalised.
    pub normalization: Normalization,
    /// Side in pixels of the square images that the encoder is meant to see after training.
    pub image_size: usize,
    /// The resolved training configuration, in the form of whoever trained.
    pub training: serde_json::Value,
    /// Optimiser steps taken.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Revision of the program that wrote the checkpoint.
    pub commit: String,
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What the tensors belong to.
    pub metadata: CheckpointMetadata,
    /// All tensors by full name. A file keeps their order among tensors of equally wide elements, widest first.
    pub tensors: Vec<(String, Tensor)>,
}

#[derive(Serialize)]
struct WrittenEnvelope<'a> {
    format_version: u64,
    checkpoint: &'a CheckpointMetadata,
}

/// The version is read before the rest, whose form it decides.
#[derive(Deserialize)]
struct ReadEnvelope {
    format_version: u64,
    checkpoint: serde_json::Value,
}

/// Writes `checkpoint` to `path`, replacing what is there in one step. The folder must exist. The same checkpoint always
/// gives the same bytes. One process at a time may write to a path.
///
/// # Errors
/// When a name occurs twice, an element type has no place in the format, or the system refuses; an old file is untouched
/// then.
pub fn save(path: &Path, checkpoint: &Checkpoint) -> Result<(), ModelError> {
    let partial = partial_path(path)?;
    let written =
        write_synchronised(&partial, path, checkpoint).and_then(|()| publish(&partial, path));
    if written.is_err() {
        // The error that led here says what is wrong; a second one about the remains would hide it.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Reads the checkpoint at `path` into host memory.
///
/// # Errors
/// [`ModelError::Checkpoint`] when the file is absent, truncated, not a safetensors file, or without metadata that this
/// build can read: with the path, what was expected and found, and what to do next. No size that the file claims is
/// trusted before it has been compared with the file's length.
pub fn load(path: &Path) -> Result<Checkpoint, ModelError> {
    parse(path, &read_checked(path)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Checkpoint, ModelError> {
    let (header_len, header) = SafeTensors::read_metadata(bytes).map_err(|error| {
        refuse(
            path,
            "a complete safetensors file",
            error.to_string(),
            DAMAGED,
        )
    })?;
    let metadata = parse_metadata(path, &header)?;
    let data = &bytes[LENGTH_BYTES as usize + header_len..];
    let loaded = header.offset_keys().into_iter().filter_map(|name| {
        let info = header.info(&name)?;
        Some(load_tensor(path, &name, info, data).map(|tensor| (name, tensor)))
    });
    let tensors = loaded.collect::<Result<_, ModelError>>()?;
    Ok(Checkpoint { metadata, tensors })
}

/// `.NAME.partial` in the folder of `path`: renaming is atomic within one file system only.
fn partial_path(path: &Path) -> Result<PathBuf, ModelError> {
    let Some(name) = path.file_name() else {
        return Err(refuse(
            path,
            "the path of a file",
            "a path without a file name",
            "add a file name to the path",
        ));
    };
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(path.with_file_name(partial))
}

fn write_synchronised(
    partial: &Path,
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<(), ModelError> {
    let (header, order) = header(path, checkpoint)?;
    let mut file = BufWriter::with_capacity(
        1 << 20,
        File::create(partial).map_err(io_error(partial, "create it"))?,
    );
    let refused = || io_error(partial, "write it");
    file.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(refused())?;
    file.write_all(&header).map_err(refused())?;
    for (_, tensor) in order {
        tensor.write_bytes(&mut file).map_err(|error| match error {
            candle_core::Error::Io(source) => refused()(source),
            other => other.into(),
        })?;
    }
    let file = file
        .into_inner()
        .map_err(|error| refused()(error.into_error()))?;
    file.sync_all()
        .map_err(io_error(partial, "bring it to the disk"))
}

fn publish(partial: &Path, path: &Path) -> Result<(), ModelError> {
    fs::rename(partial, path).map_err(io_error(path, "put the finished file in its place"))?;
    // The rename itself is lost in a power cut unless the folder is synchronised; only Unix can open a folder for that.
    #[cfg(unix)]
    {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io_error(path, "synchronise its folder"))?;
    }
    Ok(())
}

type NamedTensor = (String, Tensor);

/// The header as it stands in the file, and the tensors in the order of their data: wide elements first, as safetensors
/// asks for, so that every tensor is aligned.
fn header<'a>(
    path: &Path,
    checkpoint: &'a Checkpoint,
) -> Result<(Vec<u8>, Vec<&'a NamedTensor>), ModelError> {
    let mut order: Vec<_> = checkpoint.tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size_in_bytes()));
    let (mut names, mut offset, mut infos) = (HashSet::new(), 0, Vec::new());
    for (name, tensor) in &order {
        if !names.insert(name) || name == "__metadata__" {
            let next = "give every tensor a name of its own";
            return Err(refuse(
                path,
                "distinct tensor names",
                format!("{name} a second time"),
                next,
            ));
        }
        if !is_storable(tensor.dtype()) {
            let found = format!("{:?} in {name}", tensor.dtype());
            return Err(refuse(path, STORABLE, found, "convert the tensor"));
        }
        let end = offset + tensor.elem_count() * tensor.dtype().size_in_bytes();
        let info = TensorInfo {
            dtype: tensor.dtype().into(),
            shape: tensor.dims().to_vec(),
            data_offsets: (offset, end),
        };
        infos.push((name.clone(), info));
        offset = end;
    }
    let envelope = WrittenEnvelope {
        format_version: FORMAT_VERSION,
        checkpoint: &checkpoint.metadata,
    };
    let unwritable = |error: String| {
        refuse(
            path,
            "metadata that JSON can hold",
            error,
            "report this as a defect",
        )
    };
    let text = serde_json::to_string(&envelope).map_err(|error| unwritable(error.to_string()))?;
    let metadata = Metadata::new(Some(HashMap::from([(METADATA_KEY.into(), text)])), infos)
        .map_err(|error| unwritable(error.to_string()))?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|error| unwritable(error.to_string()))?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    Ok((header, order))
}

/// The tensor that `info` describes. Offsets and shape have been checked against the length of `data`.
fn load_tensor(
    path: &Path,
    name: &str,
    info: &TensorInfo,
    data: &[u8],
) -> Result<Tensor, ModelError> {
    let refused = || {
        refuse(
            path,
            STORABLE,
            format!("{} in {name}", info.dtype),
            NOT_OURS,
        )
    };
    let dtype = DType::try_from(info.dtype)
        .ok()
        .filter(|dtype| is_storable(*dtype))
        .ok_or_else(refused)?;
    let (start, end) = info.data_offsets;
    Ok(Tensor::from_raw_buffer(
        &data[start..end],
        dtype,
        &info.shape,
        &Device::Cpu,
    )?)
}

/// Whether elements take whole bytes and candle computes with them.
fn is_storable(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::F8E4M3 | DType::F6E2M3 | DType::F6E3M2 | DType::F4 | DType::F8E8M0
    )
}

/// All bytes of the file, after comparing the header's length with the file's.
fn read_checked(path: &Path) -> Result<Vec<u8>, ModelError> {
    let about_file = match fs::metadata(path) {
        Ok(about_file) => about_file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refuse(
                path,
                "a checkpoint file",
                "nothing at this path",
                "check the path",
            ));
        }
        Err(error) => return Err(io_error(path, "look at it")(error)),
    };
    if !about_file.is_file() {
        let next = "give the path of the checkpoint file itself";
        return Err(refuse(
            path,
            "a checkpoint file",
            "a folder or a device",
            next,
        ));
    }
    let mut file = File::open(path).map_err(io_error(path, "open it"))?;
    let mut bytes = vec![0; about_file.len().min(LENGTH_BYTES) as usize];
    file.read_exact(&mut bytes)
        .map_err(io_error(path, "read it"))?;
    let Ok(length) = <[u8; LENGTH_BYTES as usize]>::try_from(bytes.as_slice()) else {
        return Err(refuse(
            path,
            "at least 8 bytes",
            format!("{} bytes", about_file.len()),
            DAMAGED,
        ));
    };
    let header_len = u64::from_le_bytes(length);
    let room = about_file.len() - LENGTH_BYTES;
    if header_len > room {
        let expected = format!("a header of {header_len} bytes, as the file's first 8 bytes say");
        return Err(refuse(
            path,
            expected,
            format!("{room} bytes after them"),
            DAMAGED,
        ));
    }
    // The length is the system's, not the file's own claim; a file that grows meanwhile is cut at it.
    let whole = usize::try_from(room).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(whole)
        .map_err(|error| io_error(path, "read it into memory")(error.into()))?;
    file.take(room)
        .read_to_end(&mut bytes)
        .map_err(io_error(path, "read it"))?;
    Ok(bytes)
}

fn parse_metadata(path: &Path, header: &Metadata) -> Result<CheckpointMetadata, ModelError> {
    let expected = || format!("metadata under the key \"{METADATA_KEY}\"");
    let text = header
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(METADATA_KEY));
    let text =
        text.ok_or_else(|| refuse(path, expected(), "a safetensors file without it", NOT_OURS))?;
    let unreadable = |error: serde_json::Error| {
        refuse(path, expected(), format!("unreadable: {error}"), NOT_OURS)
    };
    let envelope: ReadEnvelope = serde_json::from_str(text).map_err(unreadable)?;
    if envelope.format_version != FORMAT_VERSION {
        let next = "read it with the release that wrote it, or train again";
        let found = format!("version {}", envelope.format_version);
        return Err(refuse(
            path,
            format!("format version {FORMAT_VERSION}"),
            found,
            next,
        ));
    }
    serde_json::from_value(envelope.checkpoint).map_err(unreadable)
}

fn refuse(
    path: &Path,
    expected: impl Into<String>,
    found: impl Into<String>,
    next: &'static str,
) -> ModelError {
    ModelError::Checkpoint {
        path: path.into(),
        expected: expected.into(),
        found: found.into(),
        next,
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> ModelError {
    let path = path.to_path_buf();
    move |source| ModelError::CheckpointIo {
        path,
        action,
        source,
    }
}

#[cfg(test)]
mod tests;
