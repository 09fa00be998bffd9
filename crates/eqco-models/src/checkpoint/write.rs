//! From memory to the disk: beside the destination, synchronised, renamed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use super::checksum::{self, Checksummed};
use super::{
    Checkpoint, CheckpointMetadata, FORMAT_VERSION, LENGTH_BYTES, METADATA_KEY, STORABLE, io_error,
    is_storable, refuse,
};
use crate::error::ModelError;

#[derive(Serialize)]
pub(super) struct WrittenEnvelope<'a> {
    pub(super) format_version: u64,
    /// Zeros, until the bytes are known.
    pub(super) crc32c: &'static str,
    pub(super) checkpoint: &'a CheckpointMetadata,
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

/// `.NAME.partial` in the folder of `path`: renaming is atomic within one file system only.
pub(super) fn partial_path(path: &Path) -> Result<PathBuf, ModelError> {
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

pub(super) fn write_synchronised(
    partial: &Path,
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<(), ModelError> {
    let (header, order) = header(path, checkpoint)?;
    let refused = || io_error(partial, "write it");
    let file = File::create(partial).map_err(io_error(partial, "create it"))?;
    // Below the buffer, where bytes come by the megabyte.
    let mut buffer = BufWriter::with_capacity(1 << 20, Checksummed::new(file));
    buffer
        .write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| buffer.write_all(&header))
        .map_err(refused())?;
    for (_, tensor) in order {
        tensor
            .write_bytes(&mut buffer)
            .map_err(|error| match error {
                candle_core::Error::Io(source) => refused()(source),
                other => other.into(),
            })?;
    }
    let written = buffer
        .into_inner()
        .map_err(|error| refused()(error.into_error()))?;
    let (mut file, digits) = written.finish();
    if let Some(place) = checksum::place(&header) {
        let place = SeekFrom::Start(LENGTH_BYTES + place as u64);
        file.seek(place)
            .and_then(|_| file.write_all(&digits))
            .map_err(refused())?;
    }
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

/// The header as it stands in the file up to its checksum, and the tensors in the order of their data: wide elements first, as safetensors
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
        crc32c: checksum::ZEROS,
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
