//! Checkpoints: the header of a safetensors file, and our metadata in it.

use eqco_models::checkpoint;

use crate::{files, input};

/// The first byte says whether the rest is a file (0), or a header and tensors, to be made one.
pub fn check(data: &[u8]) {
    let (choice, data) = input::choice(data);
    let file = match choice & 1 {
        0 => data.to_vec(),
        _ => {
            let (header, tensors) = input::two(data);
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], header, tensors].concat()
        }
    };
    files::with(
        &[("run.safetensors", &file)],
        |root| match checkpoint::load(&root.join("run.safetensors")) {
            Ok(loaded) => {
                let elements = loaded.tensors.iter();
                let bytes = elements.map(|(_, tensor)| {
                    tensor
                        .elem_count()
                        .saturating_mul(tensor.dtype().size_in_bytes())
                });
                assert!(bytes.sum::<usize>() <= file.len());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
    );
}

/// The input that makes a given file of its header and tensors.
pub fn to_parts(file: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, tensors) = rest.split_at_checked(length)?;
    Some([&[1][..], &input::join(header, tensors)].concat())
}
