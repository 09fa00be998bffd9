//! Many tensors as few messages.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::ops::access::{read, write};

/// Values of one message: 4 MiB of f32, far more than what a message costs beside its content.
pub(super) const CAPACITY: usize = 1 << 20;

/// A range of the values of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The tensor's place in its list.
    tensor: usize,
    values: Range<usize>,
}

/// The values of tensors of these sizes, one after the other, cut into buckets of `capacity` and a rest.
pub(super) fn buckets(sizes: impl IntoIterator<Item = usize>, capacity: usize) -> Vec<Vec<Piece>> {
    let (mut done, mut bucket, mut room) = (Vec::new(), Vec::new(), capacity);
    for (tensor, size) in sizes.into_iter().enumerate() {
        let mut start = 0;
        while start < size {
            let end = size.min(start + room);
            room -= end - start;
            bucket.push(Piece {
                tensor,
                values: start..end,
            });
            start = end;
            if room == 0 {
                done.push(std::mem::take(&mut bucket));
                room = capacity;
            }
        }
    }
    if !bucket.is_empty() {
        done.push(bucket);
    }
    done
}

/// The values of a bucket, out of contiguous f32 `tensors` on the CPU.
pub(super) fn fill(bucket: &[Piece], tensors: &[Tensor]) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(bucket.iter().map(|piece| piece.values.len()).sum());
    for piece in bucket {
        read(&tensors[piece.tensor], |all: &[f32]| {
            values.extend_from_slice(&all[piece.values.clone()]);
        })?;
    }
    Ok(values)
}

/// Puts the values back, in place.
pub(super) fn empty(bucket: &[Piece], values: &[f32], tensors: &[Tensor]) -> Result<()> {
    let mut rest = values;
    for piece in bucket {
        let (own, others) = rest.split_at(piece.values.len());
        rest = others;
        write(&tensors[piece.tensor], |all: &mut [f32]| {
            all[piece.values.clone()].copy_from_slice(own);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn buckets_are_full_but_the_last_and_cut_tensors_where_they_must() {
        let piece = |tensor, values| Piece { tensor, values };
        assert_eq!(
            buckets([3, 0, 9, 1], 5),
            [
                vec![piece(0, 0..3), piece(2, 0..2)],
                vec![piece(2, 2..7)],
                vec![piece(2, 7..9), piece(3, 0..1)],
            ]
        );
        assert_eq!(buckets([5, 5], 5).len(), 2);
        assert_eq!(buckets([0, 0], 5), Vec::<Vec<Piece>>::new());
    }

    #[test]
    fn what_is_taken_out_is_put_back_where_it_was() -> Result<()> {
        let tensors = [
            Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((2, 3))?,
            Tensor::arange(6f32, 10.0, &Device::Cpu)?,
        ];
        for bucket in buckets(tensors.iter().map(Tensor::elem_count), 4) {
            let doubled: Vec<f32> = fill(&bucket, &tensors)?.iter().map(|v| v * 2.0).collect();
            empty(&bucket, &doubled, &tensors)?;
        }
        assert_eq!(
            tensors[0].to_vec2::<f32>()?,
            [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]
        );
        assert_eq!(tensors[1].to_vec1::<f32>()?, [12.0, 14.0, 16.0, 18.0]);
        Ok(())
    }
}
