//! A bf16 convolution for the crate's own tests: the portable f32 kernels between two conversions, so that whole networks
//! run in bf16 without another family of kernels. Like any bf16 convolution it reads bf16, sums in f32 and rounds once.

use candle_core::{Result, Tensor};
use half::bf16;

use crate::ops::access::{read, write};
use crate::ops::element::Element;
use crate::params::Parameter;
use crate::tape::{Activation, Tape};

pub(super) fn conv2d(
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    stride: usize,
    padding: usize,
) -> Result<Activation> {
    let widened = convert::<bf16, f32>(tape, input)?;
    let output = super::conv2d(tape, &widened, weight, stride, padding)?;
    convert::<f32, bf16>(tape, &output)
}

/// The input in another format; its gradient comes back in the input's.
fn convert<S: Element, T: Element>(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let shape = input.tensor().shape().clone();
    let mut output = tape.allocate(shape.clone(), T::DTYPE)?;
    copy::<S, T>(input.tensor(), output.tensor())?;
    let slot = input.slot();
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = slot else { return Ok(()) };
        let converted = pass.allocate(shape, S::DTYPE)?;
        copy::<T, S>(gradient.tensor(), converted.tensor())?;
        pass.give(&slot, converted)
    });
    Ok(output)
}

fn copy<S: Element, T: Element>(source: &Tensor, target: &Tensor) -> Result<()> {
    read(source, |source: &[S]| {
        write(target, |target: &mut [T]| {
            for (t, s) in target.iter_mut().zip(source) {
                *t = T::store(s.load());
            }
        })
    })?
}
