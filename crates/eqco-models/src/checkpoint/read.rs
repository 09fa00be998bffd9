//! From the disk to memory: nothing that the file says is believed before it has been compared with what is there.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use super::checksum;
use super::{
    Checkpoint, CheckpointMetadata, DAMAGED, FORMAT_VERSION, LENGTH_BYTES, METADATA_KEY, NOT_OURS,
    PICKLE, STORABLE, io_error, is_storable, refuse,
};
use crate::error::ModelError;

/// The largest header that safetensors reads; ours have some hundred kilobytes.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// The version is read before the rest, whose form it decides.
#[derive(Deserialize)]
struct ReadEnvelope {
    format_version: u64,
    /// From version 2 on.
    crc32c: Option<String>,
    checkpoint: serde_json::Value,
}

/// Reads the checkpoint at `path` into host memory.
///
/// # Errors
/// [`ModelError::Checkpoint`] when the file is absent, truncated, not a safetensors file, without metadata that this build can
/// read, or other than its checksum says: with the path, what was expected and found, and what to do next.
/// [`ModelError::CheckpointVersion`] when a newer release wrote it. No size that the file claims is trusted before it has
/// been compared with the file's length.
pub fn load(path: &Path) -> Result<Checkpoint, ModelError> {
    parse(path, &read_checked(path)?)
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Checkpoint, ModelError> {
    let (header_len, header) = SafeTensors::read_metadata(bytes).map_err(|error| {
        refuse(
            path,
            "a complete safetensors file",
            error.to_string(),
            DAMAGED,
        )
    })?;
    let envelope = parse_envelope(path, &header)?;
    check_bytes(path, &envelope, bytes, header_len)?;
    let metadata = parse_metadata(path, envelope)?;
    let data = &bytes[LENGTH_BYTES as usize + header_len..];
    let loaded = header.offset_keys().into_iter().filter_map(|name| {
        let info = header.info(&name)?;
        Some(load_tensor(path, &name, info, data).map(|tensor| (name, tensor)))
    });
    let tensors = loaded.collect::<Result<_, ModelError>>()?;
    Ok(Checkpoint { metadata, tensors })
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
    if let Some(found) = pickle(&bytes) {
        return Err(refuse(path, "a safetensors file", found, PICKLE));
    }
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
    if header_len > MOST_HEADER_BYTES {
        let expected = format!("a header of at most {MOST_HEADER_BYTES} bytes");
        return Err(refuse(
            path,
            expected,
            format!("one of {header_len} bytes"),
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

/// What a file of PyTorch's, or another pickle, begins with, whatever its name is.
fn pickle(start: &[u8]) -> Option<&'static str> {
    match start {
        // PyTorch from 1.6 on: a zip archive with a pickle in it.
        [b'P', b'K', 3, 4, ..] => Some("a zip archive, as torch.save writes it"),
        // Protocols 2 to 5; of safetensors these bytes are the length of a header of 640 to 1,408 bytes, with six zeros behind them.
        [0x80, 2..=5, rest @ ..] if !rest.starts_with(&[0; 6]) => Some("a pickle"),
        _ => None,
    }
}

fn parse_envelope(path: &Path, header: &Metadata) -> Result<ReadEnvelope, ModelError> {
    let text = header
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(METADATA_KEY));
    let text =
        text.ok_or_else(|| refuse(path, expected(), "a safetensors file without it", NOT_OURS))?;
    let envelope: ReadEnvelope =
        serde_json::from_str(text).map_err(|error| unreadable(path, &error))?;
    if (1..=FORMAT_VERSION).contains(&envelope.format_version) {
        return Ok(envelope);
    }
    Err(ModelError::CheckpointVersion {
        path: path.into(),
        newest: FORMAT_VERSION,
        found: envelope.format_version,
    })
}

/// Compares the whole file with its checksum, which the first version did not have.
fn check_bytes(
    path: &Path,
    envelope: &ReadEnvelope,
    bytes: &[u8],
    header_len: usize,
) -> Result<(), ModelError> {
    if envelope.crc32c.is_none() && envelope.format_version == 1 {
        return Ok(());
    }
    let stored = envelope.crc32c.as_deref().unwrap_or("no checksum");
    let header_end = LENGTH_BYTES as usize + header_len;
    let computed = checksum::place(&bytes[LENGTH_BYTES as usize..header_end])
        .map(|place| checksum::of_file(bytes, LENGTH_BYTES as usize + place));
    match computed {
        Some(computed) if computed == stored => Ok(()),
        computed => Err(refuse(
            path,
            format!("bytes whose CRC-32C is {stored}, as the file says"),
            computed.unwrap_or_else(|| "no such place in its header".to_owned()),
            DAMAGED,
        )),
    }
}

fn parse_metadata(path: &Path, envelope: ReadEnvelope) -> Result<CheckpointMetadata, ModelError> {
    serde_json::from_value(envelope.checkpoint).map_err(|error| unreadable(path, &error))
}

fn expected() -> String {
    format!("metadata under the key \"{METADATA_KEY}\"")
}

fn unreadable(path: &Path, error: &serde_json::Error) -> ModelError {
    refuse(path, expected(), format!("unreadable: {error}"), NOT_OURS)
}
