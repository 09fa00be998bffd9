//! Where the output of a normalisation was positive: its ReLU lets the gradient pass there.

use pulp::Simd;

use super::statistics::AffineRow;
use super::sweep::load_next;
use crate::ops::element::Element;

/// Masks a gradient.
pub(super) trait OutputMask: Copy + Sync {
    /// The gradient of the elements from `place` on where their outputs were positive, 0 elsewhere. `x` are their inputs;
    /// their constants lie in the wide row from `column` on. Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The vector must end within the output, its constants within the wide row.
    unsafe fn mask<S: Simd>(
        self,
        simd: S,
        gradient: S::f32s,
        x: S::f32s,
        place: usize,
        column: usize,
    ) -> S::f32s;
}

/// No ReLU.
#[derive(Clone, Copy)]
pub(super) struct Open;

/// Computes the output again from the input.
#[derive(Clone, Copy)]
pub(super) struct Recomputed<'a>(pub(super) AffineRow<'a>);

/// Looks at the stored output.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a, T>(pub(super) &'a [T]);

impl OutputMask for Open {
    #[inline(always)]
    unsafe fn mask<S: Simd>(
        self,
        _: S,
        gradient: S::f32s,
        _: S::f32s,
        _: usize,
        _: usize,
    ) -> S::f32s {
        gradient
    }
}

impl OutputMask for Recomputed<'_> {
    #[inline(always)]
    unsafe fn mask<S: Simd>(
        self,
        simd: S,
        gradient: S::f32s,
        x: S::f32s,
        _: usize,
        column: usize,
    ) -> S::f32s {
        // SAFETY: as the caller promises.
        let output = unsafe { self.0.of(simd, x, column) };
        where_positive(simd, output, gradient)
    }
}

impl<T: Element> OutputMask for Stored<'_, T> {
    #[inline(always)]
    unsafe fn mask<S: Simd>(
        self,
        simd: S,
        gradient: S::f32s,
        _: S::f32s,
        place: usize,
        _: usize,
    ) -> S::f32s {
        // SAFETY: as the caller promises.
        let output = unsafe { load_next(simd, self.0, place) };
        where_positive(simd, output, gradient)
    }
}

#[inline(always)]
pub(super) fn where_positive<S: Simd>(simd: S, output: S::f32s, gradient: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_f32s(zero, output), gradient, zero)
}
