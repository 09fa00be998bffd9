//! Weight gradients are sums over images: each thread sums over its own share of them, and the sums are added in order.

use std::ops::Range;

use rayon::prelude::*;

use crate::ops::lanes::{CHUNK, split, vectorized};
use crate::ops::scratch::with_scratch;

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
