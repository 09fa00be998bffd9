//! Sums over the rows of `[rows, channels]`, two at a time, for every channel.
//!
//! Sums are f32 within a task, one for each column of the wide row, and f64 across columns and tasks.

use std::ops::Range;

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::sweep::{task_len, wide_row};
use crate::ops::element::Element;

/// Wide rows that a task has at least: adding up the sums of tasks must not cost as much as the tasks.
const FEWEST_ROWS: usize = 64;
/// Wide rows that are added before their sums go back to memory.
const ROWS: usize = 4;

/// What is summed. A copy is held by every task, so that the addresses of its slices stay in registers.
pub(super) trait Terms: Copy + Sync {
    /// What is read.
    type Element: Element;

    /// Elements, the first of which is the first of a wide row.
    fn len(&self) -> usize;

    /// Two terms of each of the elements from `place` on, whose constants lie in the wide row from `column` on. Must be
    /// `#[inline(always)]`.
    ///
    /// # Safety
    /// The vector must end within [`len`](Self::len), its constants within the wide row.
    unsafe fn terms<S: Simd>(&self, simd: S, place: usize, column: usize) -> [S::f32s; 2];
}

/// Sums of the terms of all elements, for every channel.
pub(super) fn column_sums<T: Terms>(terms: T, channels: usize) -> [Vec<f64>; 2] {
    let (len, wide) = (terms.len(), wide_row(channels));
    let task = task_len(wide).max(FEWEST_ROWS * wide);
    let partials: Vec<[Vec<f32>; 2]> = (0..len.div_ceil(task))
        .into_par_iter()
        .map(|index| {
            let places = index * task..len.min((index + 1) * task);
            T::Element::dispatch(Task {
                terms,
                places,
                wide,
            })
        })
        .collect();
    [0, 1].map(|term| {
        let mut sums = vec![0.0; channels];
        for row in partials
            .iter()
            .flat_map(|sums| sums[term].chunks_exact(channels))
        {
            for (sum, partial) in sums.iter_mut().zip(row) {
                *sum += f64::from(*partial);
            }
        }
        sums
    })
}

/// Sums over some of the elements: whole wide rows, but for the last one.
struct Task<T> {
    terms: T,
    places: Range<usize>,
    wide: usize,
}

impl<T: Terms> WithSimd for Task<T> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self {
            terms,
            places,
            wide,
        } = self;
        let mut sums = [vec![0.0; wide], vec![0.0; wide]];
        let mut start = places.start;
        while start + ROWS * wide <= places.end {
            // SAFETY: so many wide rows lie within the places.
            unsafe { add_rows::<S, T, ROWS>(simd, terms, start, [wide, wide], &mut sums) };
            start += ROWS * wide;
        }
        while start < places.end {
            let row = wide.min(places.end - start);
            let vectors = row - row % S::F32_LANES;
            // SAFETY: the columns lie within the row.
            unsafe { add_rows::<S, T, 1>(simd, terms, start, [wide, vectors], &mut sums) };
            let [firsts, seconds] = &mut sums;
            let rest = firsts.iter_mut().zip(seconds).enumerate().take(row);
            for (column, (first, second)) in rest.skip(vectors) {
                // SAFETY: as above, for vectors of one.
                let [x, y] = unsafe { terms.terms(Scalar, start + column, column) };
                *first += x;
                *second += y;
            }
            start += row;
        }
        sums
    }
}

/// Adds the first `columns`, which are whole vectors, of `R` wide rows.
///
/// # Safety
/// These rows must lie within the terms' elements.
#[inline(always)]
unsafe fn add_rows<S: Simd, T: Terms, const R: usize>(
    simd: S,
    terms: T,
    start: usize,
    [wide, columns]: [usize; 2],
    [first, second]: &mut [Vec<f32>; 2],
) {
    let first = S::as_mut_simd_f32s(&mut first[..columns]).0;
    let second = S::as_mut_simd_f32s(&mut second[..columns]).0;
    for (index, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let column = index * S::F32_LANES;
        let mut sums = [*first, *second];
        for row in 0..R {
            // SAFETY: as the caller promises.
            let [x, y] = unsafe { terms.terms(simd, start + row * wide + column, column) };
            sums = [simd.add_f32s(sums[0], x), simd.add_f32s(sums[1], y)];
        }
        [*first, *second] = sums;
    }
}
