//! Batch-normalisation kernels on `[rows, channels]` slices: two passes forward, two backward. Arithmetic is f32 for any
//! [`Element`], sums are f64 across tasks.

mod backward;
mod column_sums;
mod mask;
mod statistics;
mod sweep;

use pulp::Simd;
use rayon::prelude::*;

use self::statistics::AffineRow;
use self::sweep::{Pass, ask_ahead, load_next, store, sweep, task_len};
use crate::ops::element::Element;

pub use self::backward::backward;

pub use self::statistics::{Affine, Statistics};

/// Where the output was positive.
#[derive(Debug)]
pub enum Mask<'a, T> {
    /// No ReLU.
    None,
    /// Recompute the output from the input.
    FromInput(&'a Affine),
    /// The stored output, in place of which the masked gradient is left: that of a residual.
    FromOutput(&'a mut [T]),
}

/// `y = relu?(affine(x) + residual)`.
///
/// # Panics
/// When the slices differ in length.
pub fn normalize<T: Element>(
    affine: &Affine,
    x: &[T],
    residual: Option<&[T]>,
    relu: bool,
    y: &mut [T],
) {
    assert_eq!(x.len(), y.len());
    assert!(residual.is_none_or(|residual| residual.len() == x.len()));
    let task = task_len(affine.row().wide());
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .enumerate()
        .for_each(|(index, (y, x))| {
            let residual = residual.map(|residual| &residual[index * task..][..x.len()]);
            sweep(Normalize {
                affine: affine.row(),
                x,
                residual,
                relu,
                y,
            });
        });
}

struct Normalize<'a, T> {
    affine: AffineRow<'a>,
    x: &'a [T],
    residual: Option<&'a [T]>,
    relu: bool,
    y: &'a mut [T],
}

impl<T: Element> Pass for Normalize<'_, T> {
    type Element = T;

    fn len(&self) -> usize {
        self.y.len()
    }

    fn wide(&self) -> usize {
        self.affine.wide()
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(&mut self, simd: S, place: usize, column: usize) {
        // SAFETY: as the caller promises; all slices have the length of `y`.
        unsafe {
            ask_ahead(self.y, place);
            let mut y = self.affine.of(simd, load_next(simd, self.x, place), column);
            if let Some(residual) = self.residual {
                y = simd.add_f32s(y, load_next(simd, residual, place));
            }
            if self.relu {
                // Unlike a maximum this lets a NaN through, so that a diverged run shows.
                let zero = simd.splat_f32s(0.0);
                y = simd.select_f32s(simd.less_than_f32s(y, zero), zero, y);
            }
            store(simd, y, self.y, place);
        }
    }
}
