//! How transformed tiles lie in memory: `[tiles, channels / 16, 36, 16]`.
//!
//! What the transform of a tile reads or writes of 16 channels is one piece of memory, whatever the number of tiles. In
//! 36 matrices `[tiles, channels]` these vectors would lie far apart, in few sets of the first-level cache and on 36 pages:
//! that cost more than the transforms (measured).

use super::transforms::POINTS;
use crate::ops::factor::Factor;

/// Channels of a block: the widest vector.
pub(super) const BLOCK: usize = 16;
/// Words of a block at all points, where a word is one channel.
pub(super) const BLOCK_WORDS: usize = POINTS * BLOCK;
/// Words behind every tile that belong to none: tiles of many channels would share few sets of the cache without them.
const GAP: usize = 16;

/// An array of transformed tiles, in words (see [`Factor`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Blocks of 16 channels.
    pub(super) blocks: usize,
    /// Words of a block at one point.
    pub(super) line: usize,
    /// Neighbouring tiles that share their words.
    pub(super) sharing: usize,
}

impl Layout {
    /// Words of neighbouring channels, for sums over channels.
    pub(super) fn of_channels<F: Factor>(channels: usize) -> Self {
        Self {
            blocks: channels / BLOCK,
            line: BLOCK / F::DEPTH,
            sharing: 1,
        }
    }

    /// Words of neighbouring tiles, for sums over tiles.
    pub(super) fn of_tiles<F: Factor>(channels: usize) -> Self {
        Self {
            blocks: channels / BLOCK,
            line: BLOCK,
            sharing: F::DEPTH,
        }
    }

    /// Words from a tile, or from tiles that share words, to the next.
    pub(super) fn stride(self) -> usize {
        self.blocks * POINTS * self.line + GAP
    }

    /// Words of so many tiles.
    pub(super) fn len(self, tiles: usize) -> usize {
        tiles.div_ceil(self.sharing) * self.stride()
    }
}
