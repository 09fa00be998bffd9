//! How the columns of a sweep are shared among blocks when there are few rows.
//!
//! Splits follow from the sizes alone: on another device the same sums are made in the same order.

/// Blocks that fill a large GPU: two on each of the 132 multiprocessors of an H100.
pub(super) const MOST_BLOCKS: usize = 264;
/// A block's part of the columns is at least this many tiles, so that joining the parts stays cheap.
const LEAST_TILES: usize = 4;

/// Columns in parts of equal size, but for the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub parts: usize,
    /// Columns of a part, a multiple of a tile.
    pub columns: usize,
}

impl Split {
    /// Shares `columns`, at least one, in tiles of `tile` among as many blocks as are left when `blocks` are needed anyway.
    pub(super) fn of(columns: usize, tile: usize, blocks: usize) -> Self {
        let tiles = columns.div_ceil(tile);
        let wanted = (MOST_BLOCKS / blocks).clamp(1, tiles.div_ceil(LEAST_TILES));
        let columns_of_part = tiles.div_ceil(wanted) * tile;
        Self {
            parts: columns.div_ceil(columns_of_part),
            columns: columns_of_part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_columns_and_all_columns_have_a_part() {
        for columns in [1, 63, 64, 65, 255, 257, 4096, 65_536, 65_537] {
            for blocks in [1, 2, 7, 32, 264, 1000] {
                let split = Split::of(columns, 64, blocks);
                assert!(split.columns.is_multiple_of(64));
                assert!(split.parts * split.columns >= columns);
                assert!((split.parts - 1) * split.columns < columns);
                assert!(split.parts == 1 || split.parts * blocks <= MOST_BLOCKS);
            }
        }
    }

    #[test]
    fn moco_with_4096_queries_fills_the_device_in_one_wave() {
        let split = Split::of(65_536, 64, 4096 / 128);
        assert_eq!((split.parts, split.columns), (8, 8192));
    }
}
