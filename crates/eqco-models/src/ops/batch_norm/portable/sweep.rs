//! Passes over the elements of `[rows, channels]`, a vector at a time.
//!
//! Elements are taken in wide rows: so many rows that they are whole vectors, and enough of them for the loop over their
//! columns to be worth its start. Constants of a channel are repeated to the wide row.

use pulp::{Scalar, Simd, WithSimd};

use crate::ops::element::{Element, MOST_LANES};
use crate::ops::lanes::{CHUNK, prefetch};

/// Shorter loops over a wide row cost more than what they do (measured).
const SHORTEST_ROW: usize = 128;
/// How far ahead of a pass its memory is asked for: left to itself, the CPU asks too late (measured).
const BYTES_AHEAD: usize = 4096;

/// Elements of a wide row.
pub(super) fn wide_row(channels: usize) -> usize {
    let vectors = channels * (MOST_LANES / gcd(channels, MOST_LANES));
    vectors * SHORTEST_ROW.div_ceil(vectors)
}

/// Repeats a value of each channel to the wide row.
pub(super) fn widen(channels: &[f32]) -> Vec<f32> {
    channels.repeat(wide_row(channels.len()) / channels.len())
}

/// Elements of a task: about [`CHUNK`], in whole wide rows.
pub(super) fn task_len(wide: usize) -> usize {
    CHUNK.div_ceil(wide) * wide
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What is done to every element. Slices are held by value: their addresses stay in registers then.
pub(super) trait Pass {
    /// What is stored.
    type Element: Element;

    /// Elements, the first of which is the first of a wide row.
    fn len(&self) -> usize;
    /// Elements of the constants.
    fn wide(&self) -> usize;

    /// Handles the vector of elements from `place` on, whose constants lie in the wide row from `column` on. Must be
    /// `#[inline(always)]`.
    ///
    /// # Safety
    /// The vector must end within [`len`](Self::len), its constants within [`wide`](Self::wide).
    unsafe fn vector<S: Simd>(&mut self, simd: S, place: usize, column: usize);
}

/// Applies `pass` to all of its elements.
pub(super) fn sweep<P: Pass>(pass: P) {
    P::Element::dispatch(Sweep(pass));
}

struct Sweep<P>(P);

impl<P: Pass> WithSimd for Sweep<P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(mut pass) = self;
        let (len, wide) = (pass.len(), pass.wide());
        for start in (0..len).step_by(wide) {
            let row = wide.min(len - start);
            // Only the last row may be cut off, and then within a vector.
            let vectors = row - row % S::F32_LANES;
            for column in (0..vectors).step_by(S::F32_LANES) {
                // SAFETY: column + lanes ≤ vectors ≤ row, which ends within both.
                unsafe { pass.vector(simd, start + column, column) };
            }
            for column in vectors..row {
                // SAFETY: as above, for vectors of one.
                unsafe { pass.vector(Scalar, start + column, column) };
            }
        }
    }
}

/// The vector from `place` on, without a check of its bounds: the check would cost as much as the load.
///
/// # Safety
/// It must end within the slice.
#[inline(always)]
pub(super) unsafe fn load<T: Element, S: Simd>(simd: S, slice: &[T], place: usize) -> S::f32s {
    debug_assert!(place + S::F32_LANES <= slice.len());
    // SAFETY: as the caller promises.
    T::load_vector(simd, unsafe {
        slice.get_unchecked(place..place + S::F32_LANES)
    })
}

/// The same for a slice that is read from its beginning to its end.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(super) unsafe fn load_next<T: Element, S: Simd>(simd: S, slice: &[T], place: usize) -> S::f32s {
    ask_ahead(slice, place);
    // SAFETY: as the caller promises.
    unsafe { load(simd, slice, place) }
}

/// Asks for what lies ahead of `place`, within the slice or behind it.
#[inline(always)]
pub(super) fn ask_ahead<T>(slice: &[T], place: usize) {
    prefetch(
        slice
            .as_ptr()
            .wrapping_add(place)
            .wrapping_byte_add(BYTES_AHEAD),
    );
}

/// Overwrites the vector from `place` on.
///
/// # Safety
/// It must end within the slice.
#[inline(always)]
pub(super) unsafe fn store<T: Element, S: Simd>(
    simd: S,
    value: S::f32s,
    slice: &mut [T],
    place: usize,
) {
    debug_assert!(place + S::F32_LANES <= slice.len());
    // SAFETY: as the caller promises.
    T::store_vector(simd, value, unsafe {
        slice.get_unchecked_mut(place..place + S::F32_LANES)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_rows_are_whole_rows_and_whole_vectors() {
        let found = [1, 3, 16, 24, 64, 100, 128, 2048].map(wide_row);
        assert_eq!(found, [128, 144, 128, 144, 128, 400, 128, 2048]);
        assert_eq!(widen(&[1.0, 2.0]), [1.0, 2.0].repeat(64));
    }
}
