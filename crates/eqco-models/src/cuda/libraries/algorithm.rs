//! The choice of an algorithm for a convolution.
//!
//! cuDNN's rule guesses which algorithm is the fastest; trying them once, in the first step, costs a second or two and is
//! right. Both answer with a list, the fastest first.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};

use super::descriptors::{Descriptors, Outcome};
use crate::cuda::candidate::Candidate;

/// The three products of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Product {
    Forward,
    WeightGradient,
    InputGradient,
}

/// An algorithm's name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    WeightGradient(sys::cudnnConvolutionBwdFilterAlgo_t),
    InputGradient(sys::cudnnConvolutionBwdDataAlgo_t),
}

/// More than there are algorithms for any product, each with two kinds of arithmetic.
const MOST: usize = 32;

/// The three products' results have the same fields and different types.
macro_rules! candidates {
    ($kind:path, $results:expr) => {
        $results
            .into_iter()
            .map(|result| Candidate {
                kind: $kind(result.algo),
                works: result.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS,
                is_deterministic: result.determinism
                    == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                workspace: result.memory,
            })
            .collect()
    };
}

/// The algorithms for `product`, the fastest first: as `timed`, which needs memory for all three tensors once more, or as
/// guessed.
pub(super) fn candidates(
    handle: sys::cudnnHandle_t,
    of: &Descriptors,
    product: Product,
    timed: bool,
) -> Outcome<Vec<Candidate<Kind>>> {
    let (x, w) = (of.input.raw(), of.weight.raw());
    let (convolution, y) = (of.convolution.raw(), of.output.raw());
    // SAFETY: the handle and the descriptors are alive, and no more results are written than there is room for.
    Ok(unsafe {
        match product {
            Product::Forward => candidates!(
                Kind::Forward,
                filled(|room, count, results| {
                    let ask = if timed {
                        sys::cudnnFindConvolutionForwardAlgorithm
                    } else {
                        sys::cudnnGetConvolutionForwardAlgorithm_v7
                    };
                    ask(handle, x, w, convolution, y, room, count, results).result()
                })?
            ),
            Product::WeightGradient => candidates!(
                Kind::WeightGradient,
                filled(|room, count, results| {
                    let ask = if timed {
                        sys::cudnnFindConvolutionBackwardFilterAlgorithm
                    } else {
                        sys::cudnnGetConvolutionBackwardFilterAlgorithm_v7
                    };
                    ask(handle, x, y, convolution, w, room, count, results).result()
                })?
            ),
            Product::InputGradient => candidates!(
                Kind::InputGradient,
                filled(|room, count, results| {
                    let ask = if timed {
                        sys::cudnnFindConvolutionBackwardDataAlgorithm
                    } else {
                        sys::cudnnGetConvolutionBackwardDataAlgorithm_v7
                    };
                    ask(handle, w, y, convolution, x, room, count, results).result()
                })?
            ),
        }
    })
}

/// The results that `fill` writes; it is told how many there is room for, and tells how many it wrote.
///
/// # Safety
/// `fill` must write as many as it says, from the first on.
unsafe fn filled<R>(
    fill: impl FnOnce(c_int, *mut c_int, *mut R) -> Outcome<()>,
) -> Outcome<Vec<R>> {
    let mut results: [MaybeUninit<R>; MOST] = [const { MaybeUninit::uninit() }; MOST];
    let mut count = 0;
    fill(MOST as c_int, &mut count, results.as_mut_ptr().cast())?;
    let count = usize::try_from(count).unwrap_or(0).min(MOST);
    // SAFETY: the caller's promise.
    Ok(results
        .into_iter()
        .take(count)
        .map(|result| unsafe { result.assume_init() })
        .collect())
}

/// Bytes that an algorithm computes in.
pub(super) fn workspace(
    handle: sys::cudnnHandle_t,
    of: &Descriptors,
    kind: Kind,
) -> Outcome<usize> {
    let (x, w) = (of.input.raw(), of.weight.raw());
    let (convolution, y) = (of.convolution.raw(), of.output.raw());
    // SAFETY: the handle and the descriptors are alive.
    unsafe {
        match kind {
            Kind::Forward(kind) => {
                result::get_convolution_forward_workspace_size(handle, x, w, convolution, y, kind)
            }
            Kind::WeightGradient(kind) => result::get_convolution_backward_filter_workspace_size(
                handle,
                x,
                y,
                convolution,
                w,
                kind,
            ),
            Kind::InputGradient(kind) => result::get_convolution_backward_data_workspace_size(
                handle,
                w,
                y,
                convolution,
                x,
                kind,
            ),
        }
    }
}
