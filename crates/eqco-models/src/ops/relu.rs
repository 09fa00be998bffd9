//! max(0, ·) on its own, for projection heads without batch normalisation.

use candle_core::Result;

use super::access::{read, write};
use super::element::{Element, for_element};
use super::lanes::zip_chunks;
use crate::cuda::by_type;
use crate::profile::{Phase, Work, bytes_of};
use crate::tape::{Activation, Tape};

/// Element-wise max(0, x); a NaN stays one.
///
/// # Errors
/// When memory cannot be allocated.
pub fn relu(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let mut output = tape.allocate(input.tensor().shape().clone(), input.dtype())?;
    let _span = tape.profiler().span(|| {
        Work::new("relu", Phase::Forward).moving(bytes_of([input.tensor(), output.tensor()]))
    });
    if let Some(cuda) = tape.backend().cuda() {
        let kernel = by_type(input.dtype(), ["relu_f32", "relu_bf16"]);
        cuda.elementwise(kernel, input.tensor(), output.tensor())?;
    } else {
        for_element!(input.dtype(), T => read(input.tensor(), |x: &[T]| {
            write(output.tensor(), |y| forward(x, y))
        })??);
    }
    let (slot, kept) = (input.slot(), output.clone());
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let _span = pass.profiler().span(|| {
            Work::new("relu", Phase::Backward).moving(bytes_of([
                kept.tensor(),
                gradient.tensor(),
                gradient.tensor(),
            ]))
        });
        if let Some(cuda) = pass.backend().cuda() {
            let kernel = by_type(kept.dtype(), ["relu_gradient_f32", "relu_gradient_bf16"]);
            cuda.elementwise(kernel, kept.tensor(), gradient.tensor())?;
        } else {
            for_element!(kept.dtype(), T => read(kept.tensor(), |y: &[T]| {
                write(gradient.tensor(), |dy| backward(y, dy))
            })??);
        }
        pass.give(&slot, gradient)
    });
    Ok(output)
}

fn forward<T: Element>(x: &[T], y: &mut [T]) {
    zip_chunks(
        y,
        x,
        #[inline(always)]
        |y, x| {
            for (y, x) in y.iter_mut().zip(x) {
                *y = if x.load() < 0.0 { T::ZERO } else { *x };
            }
        },
    );
}

fn backward<T: Element>(y: &[T], dy: &mut [T]) {
    zip_chunks(
        dy,
        y,
        #[inline(always)]
        |dy, y| {
            for (dy, y) in dy.iter_mut().zip(y) {
                *dy = if y.load() > 0.0 { *dy } else { T::ZERO };
            }
        },
    );
}
