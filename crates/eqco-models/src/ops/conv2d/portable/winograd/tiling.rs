//! How an output map is cut into tiles of 4x4 pixels, and the tiles into blocks that a thread works on.

use std::ops::Range;

use super::super::super::Geometry;
use super::transforms::{OUT, POINTS};

/// What the transformed input and output of a block should take: most of a second-level cache (measured on one
/// of 1 MiB).
const BLOCK_BYTES: usize = 700 << 10;

/// Tile rows are counted through all images of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    geometry: Geometry,
    /// Tile rows an image.
    lines: usize,
    /// Tiles a tile row.
    pub(super) columns: usize,
}

impl Tiling {
    pub(super) fn new(geometry: &Geometry) -> Self {
        Self {
            geometry: *geometry,
            lines: geometry.out_height().div_ceil(OUT),
            columns: geometry.out_width().div_ceil(OUT),
        }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Tile rows of the batch.
    pub(super) fn rows(&self) -> usize {
        self.geometry.batch * self.lines
    }

    /// Tiles of the batch.
    pub(super) fn tiles(&self) -> usize {
        self.rows() * self.columns
    }

    /// The tiles of some tile rows.
    pub(super) fn tiles_of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.columns..rows.end * self.columns
    }

    /// Image and first output line of a tile row.
    pub(super) fn place(&self, row: usize) -> (usize, usize) {
        (row / self.lines, row % self.lines * OUT)
    }

    /// Where the output of a tile row starts, in elements of the whole output.
    pub(super) fn output_start(&self, row: usize) -> usize {
        let (image, line) = self.place(row);
        (image * self.geometry.out_height() + line)
            * self.geometry.out_width()
            * self.geometry.out_channels
    }

    /// Tiles whose transformed inputs and outputs stay in cache together.
    pub(super) fn cached_tiles(&self) -> usize {
        let channels = self.geometry.in_channels + self.geometry.out_channels;
        std::env::var("BB")
            .map(|v| v.parse().unwrap())
            .unwrap_or(BLOCK_BYTES)
            / (4 * POINTS * channels)
    }

    /// Blocks of whole tile rows within `rows`, of about `tiles` tiles.
    pub(super) fn blocks(&self, rows: Range<usize>, tiles: usize) -> Vec<Range<usize>> {
        let even_share = self.rows().div_ceil(rayon::current_num_threads());
        let length = (tiles / self.columns).clamp(1, even_share.max(1));
        rows.clone()
            .step_by(length)
            .map(|first| first..(first + length).min(rows.end))
            .collect()
    }

    /// Cuts an output at block boundaries.
    pub(super) fn split_output<'a, T>(
        &self,
        blocks: &[Range<usize>],
        mut output: &'a mut [T],
    ) -> Vec<&'a mut [T]> {
        let mut parts = Vec::with_capacity(blocks.len());
        for block in blocks {
            let length = self.output_start(block.end) - self.output_start(block.start);
            let (part, rest) = output.split_at_mut(length);
            parts.push(part);
            output = rest;
        }
        parts
    }
}
