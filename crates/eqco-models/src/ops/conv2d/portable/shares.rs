//! Weight gradients are sums over images: each thread sums over its own share of them, band by band, and the sums are added
//! in order.

use std::ops::Range;

use rayon::prelude::*;

use crate::ops::factor::Factor;
use crate::ops::lanes::{CHUNK, has_tiles, split, vectorized};
use crate::ops::scratch::with_scratch;

/// Words of the inner dimension in a band (measured: 64 to 128 are equal, 256 slower by a tenth).
const BAND_WORDS: usize = 128;
/// The longest band of products on tiles.
const MOST_BAND_WORDS: usize = 512;

/// `dw (+)= ` what `gradient` computes over 0..`count`, by shares of one thread each. It overwrites its second argument.
pub fn sum_of_shares(
    count: usize,
    dw: &mut [f32],
    accumulate: bool,
    gradient: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let shares = split(count, rayon::current_num_threads());
    let length = dw.len();
    with_scratch(length * shares.len(), |partials| {
        partials
            .par_chunks_mut(length)
            .zip(shares)
            .for_each(|(partial, share)| gradient(share, partial));
        let (first, rest) = partials.split_at(length);
        dw.par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, dw)| {
                let start = chunk * CHUNK;
                vectorized(
                    #[inline(always)]
                    || {
                        if accumulate {
                            add(dw, &first[start..]);
                        } else {
                            dw.copy_from_slice(&first[start..start + dw.len()]);
                        }
                        rest.chunks_exact(length)
                            .for_each(|partial| add(dw, &partial[start..]));
                    },
                );
            });
    });
}

#[inline(always)]
fn add(target: &mut [f32], source: &[f32]) {
    target.iter_mut().zip(source).for_each(|(t, s)| *t += s);
}

/// Words of the inner dimension in a band. Tiles multiply so quickly that fetching the gradient for every band counts: a
/// band is as long as it takes to hold as much as the gradient.
pub fn band_words<F: Factor>(channels: usize, patch: usize) -> usize {
    if F::DEPTH > 1 && has_tiles() {
        (channels * patch / (channels + patch)).clamp(BAND_WORDS, MOST_BAND_WORDS)
    } else {
        BAND_WORDS
    }
}
