//! Grids over `[groups, rows, channels]`, the Rust side of `ops/columns.cuh`.

use eqco_core::cuda::Launch;

use super::vector_of;

/// Threads of a warp.
const WARP: usize = 32;
/// Threads of a block, a power of two.
const THREADS: usize = 256;
/// Blocks of a pass that sums: what 132 multiprocessors hold at a time, six each, or half of it where sums of gradients fill the
/// registers. A few blocks more would wait until all the others have ended.
const BLOCKS: usize = 6 * 132;
/// Blocks of a pass that leaves no sums, so that their number costs nothing and the last ones end at about the same time.
const BLOCKS_OF_ELEMENTS: usize = 32 * 132;

/// How a pass over `[groups, rows, channels]` is shared among threads. Results of sums depend on it, and it depends on the
/// shape alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) channels: usize,
    /// Rows of one group.
    pub(crate) rows: usize,
    pub(crate) groups: usize,
    /// Neighbouring channels of a thread.
    vector: usize,
    /// Threads of a block, over vectors of channels and over rows.
    threads: (usize, usize),
    /// Rows of a block.
    pub(crate) band: usize,
}

impl Columns {
    /// Of a pass that sums.
    pub(crate) fn new(groups: usize, rows: usize, channels: usize) -> Self {
        Self::in_blocks(groups, rows, channels, BLOCKS)
    }

    /// Of a pass over the same elements that leaves no sums.
    pub(crate) fn for_elements(&self) -> Self {
        Self::in_blocks(self.groups, self.rows, self.channels, BLOCKS_OF_ELEMENTS)
    }

    fn in_blocks(groups: usize, rows: usize, channels: usize, blocks: usize) -> Self {
        let vector = vector_of(channels);
        let across = (channels / vector).next_power_of_two().min(WARP);
        let down = THREADS / across;
        let others = (channels / vector).div_ceil(across) * groups;
        let bands = (blocks / others).clamp(1, rows.div_ceil(4 * down).max(1));
        Self {
            channels,
            rows,
            groups,
            vector,
            threads: (across, down),
            band: rows.div_ceil(bands).max(1),
        }
    }

    /// Blocks along the rows of a group, each of which leaves a line of partial sums.
    pub(crate) fn bands(&self) -> usize {
        self.rows.div_ceil(self.band)
    }

    /// Per-channel values of all groups.
    pub(crate) fn values(&self) -> usize {
        self.groups * self.channels
    }

    /// A launch of the `vector` kernel or its `single` counterpart, whichever these channels allow.
    pub(crate) fn launch(&self, vector: &'static str, single: &'static str) -> Launch {
        let (across, down) = self.threads;
        Launch::new(if self.vector > 1 { vector } else { single })
            .grid(
                (self.channels / self.vector).div_ceil(across),
                self.bands(),
                self.groups,
            )
            .block(across, down)
    }

    /// Shared memory for two sums of every channel of every thread.
    pub(crate) fn shared_for_sums(&self) -> usize {
        2 * self.vector * THREADS * size_of::<f32>()
    }

    /// A launch that adds up the bands' partial sums: threads over columns and over bands.
    pub(crate) fn finish(&self, kernel: &'static str) -> Launch {
        let down = self.bands().next_power_of_two().min(WARP);
        Launch::new(kernel)
            .grid(self.values().div_ceil(WARP), 1, 1)
            .block(WARP, down)
            .shared(2 * WARP * down * size_of::<f64>())
    }

    /// A launch of one thread a channel.
    pub(crate) fn each_channel(&self, kernel: &'static str) -> Launch {
        Launch::new(kernel)
            .grid(self.channels.div_ceil(THREADS), 1, 1)
            .block(THREADS, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_band_and_grids_stay_in_bounds() {
        for groups in [1, 3] {
            for rows in [1, 2, 31, 1000, 256 * 112 * 112] {
                for channels in [1, 3, 8, 64, 65, 2048] {
                    let columns = Columns::new(groups, rows, channels);
                    assert!(columns.bands() * columns.band >= rows);
                    assert!((columns.bands() - 1) * columns.band < rows);
                    assert!(columns.bands() <= BLOCKS);
                    let fine = columns.for_elements();
                    assert!(fine.bands() * fine.band >= rows && fine.bands() >= columns.bands());
                    assert!((fine.bands() - 1) * fine.band < rows);
                    assert!(columns.shared_for_sums() <= 48 * 1024);
                }
            }
        }
    }

    #[test]
    fn a_warp_reads_contiguous_memory_where_channels_allow() {
        let columns = Columns::new(1, 1 << 20, 64);
        assert_eq!((columns.vector, columns.threads), (8, (8, 32)));
        assert_eq!(columns.bands(), 792);
        assert_eq!(columns.for_elements().bands(), 4212);
        assert_eq!(Columns::new(1, 100, 66).vector, 1);
    }
}
