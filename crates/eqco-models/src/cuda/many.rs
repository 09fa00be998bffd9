//! One launch over the arrays of all parameters, the Rust side of `many.cuh`.

use candle_core::{Device, Result, Tensor};
use eqco_core::cuda::{Launch, address};

use super::elements::are_aligned;

/// Threads of a block.
const THREADS: usize = 256;
/// Elements that a block takes.
const PIECE: usize = 4096;
/// Arrays of one entry.
const MOST_ARRAYS: usize = 4;

/// Arrays that belong together, and a number of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrays {
    pub(crate) addresses: [u64; MOST_ARRAYS],
    pub(crate) count: usize,
    pub(crate) number: f32,
}

impl Arrays {
    fn words(&self) -> Vec<u32> {
        let used: Vec<u64> = self.addresses.into_iter().filter(|a| *a != 0).collect();
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        self.addresses
            .into_iter()
            .chain([self.count as u64])
            .flat_map(halves)
            .chain([self.number.to_bits(), u32::from(are_aligned(&used))])
            .collect()
    }
}

/// A table of arrays on the device, cut into pieces.
#[derive(Debug)]
pub(crate) struct Many {
    rows: Vec<Arrays>,
    table: Tensor,
    pieces: Tensor,
    /// Of each row, and the number of all: one entry more than there are rows.
    first_pieces: Vec<u32>,
}

impl Many {
    /// Empty rows take part in nothing.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub(crate) fn new(rows: Vec<Arrays>, device: &Device) -> Result<Self> {
        let words: Vec<u32> = rows.iter().flat_map(Arrays::words).collect();
        let mut pieces = Vec::new();
        let mut first_pieces = vec![0];
        for (row, arrays) in rows.iter().enumerate() {
            let starts = (0..arrays.count).step_by(PIECE);
            pieces.extend(starts.flat_map(|start| [row as u32, start as u32]));
            first_pieces.push((pieces.len() / 2) as u32);
        }
        let upload = |words: Vec<u32>| Tensor::from_vec(words.clone(), words.len(), device);
        Ok(Self {
            rows,
            table: upload(words)?,
            pieces: upload(pieces)?,
            first_pieces,
        })
    }

    /// Whether it was made from these rows.
    pub(crate) fn is_of(&self, rows: &[Arrays]) -> bool {
        self.rows == rows
    }

    /// Blocks of a launch.
    pub(crate) fn pieces(&self) -> usize {
        self.first_pieces.last().map_or(0, |all| *all as usize)
    }

    /// Where the pieces of each row begin, and their number.
    pub(crate) fn first_pieces(&self) -> &[u32] {
        &self.first_pieces
    }

    /// A launch of `kernel(table, pieces, ...)` over all of them.
    pub(crate) fn launch(&self, kernel: &'static str) -> Result<Launch> {
        Ok(Launch::new(kernel)
            .grid(self.pieces(), 1, 1)
            .block(THREADS, 1)
            .arg(address(&self.table)?)
            .arg(address(&self.pieces)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_in_one_piece() -> Result<()> {
        let row = |count| Arrays {
            addresses: [16, 32, 0, 0],
            count,
            number: 0.5,
        };
        let many = Many::new(
            vec![row(1), row(0), row(PIECE), row(PIECE + 1)],
            &Device::Cpu,
        )?;
        assert_eq!(many.first_pieces(), [0, 1, 1, 2, 4]);
        let pieces = many.pieces.to_vec1::<u32>()?;
        assert_eq!(pieces, [0, 0, 2, 0, 3, 0, 3, PIECE as u32]);
        // Four addresses and a count of 64 bits, a number and a flag of 32: as the C++ structure lies in memory.
        assert_eq!(many.table.elem_count(), 4 * 12);
        assert_eq!(
            many.table.to_vec1::<u32>()?[..12],
            [16, 0, 32, 0, 0, 0, 0, 0, 1, 0, 0.5f32.to_bits(), 1]
        );
        Ok(())
    }
}
