//! Convolutions on a GPU, through cuDNN. In bf16 it wants weights in bf16 too: each pass rounds them once, and its gradient of
//! the weights, rounded as well, is added up in f32.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use super::Geometry;
use crate::cuda::{Cuda, Libraries};
use crate::params::Parameter;
use crate::profile::Phase;
use crate::tape::{Activation, BackwardPass, Tape};

/// As [`super::conv2d`], whose checks have been made.
pub(super) fn conv2d(
    cuda: &Arc<Cuda>,
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    geometry: Geometry,
) -> Result<Activation> {
    let shape = (
        geometry.batch,
        geometry.out_height(),
        geometry.out_width(),
        geometry.out_channels,
    );
    let mut output = tape.allocate(shape, input.dtype())?;
    let dtype = input.dtype();
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| geometry.work(Phase::Forward, dtype, "cudnn"));
    let weights = Weights::new(cuda, tape, weight, dtype)?;
    libraries(cuda)?.convolve(&geometry, input.tensor(), weights.tensor(), output.tensor())?;
    let (input, weight, cuda) = (input.keep(), weight.clone(), Arc::clone(cuda));
    tape.record(&mut output, move |gradient, pass| {
        let libraries = libraries(&cuda)?;
        let slot = input.slot();
        let kept = input.value(pass)?;
        let profiler = pass.profiler().clone();
        let span = profiler.span(|| geometry.work(Phase::WeightGradient, dtype, "cudnn"));
        let target = pass.parameter_target(&weight);
        weight_gradient(&cuda, &geometry, &kept, &gradient, target, pass)?;
        drop((span, kept));
        if let Some(slot) = slot {
            let _span = profiler.span(|| geometry.work(Phase::InputGradient, dtype, "cudnn"));
            let (target, accumulate) = pass.target(&slot)?;
            let weights = weights.tensor();
            libraries.input_gradient(&geometry, gradient.tensor(), weights, &target, accumulate)?;
        }
        Ok(())
    });
    Ok(output)
}

fn libraries(cuda: &Cuda) -> Result<&Libraries> {
    match cuda.libraries() {
        Some(libraries) => Ok(libraries),
        None => bail!("emulated kernels have no cuDNN"),
    }
}

/// The weights in the images' format.
enum Weights {
    Own(Tensor),
    Rounded(Activation),
}

impl Weights {
    fn new(cuda: &Cuda, tape: &mut Tape, weight: &Parameter, dtype: DType) -> Result<Self> {
        let own = weight.value();
        if own.dtype() == dtype {
            return Ok(Self::Own(own.clone()));
        }
        let rounded = tape.allocate(own.shape().clone(), dtype)?;
        cuda.elementwise("narrow", own, rounded.tensor())?;
        Ok(Self::Rounded(rounded))
    }

    fn tensor(&self) -> &Tensor {
        match self {
            Self::Own(tensor) => tensor,
            Self::Rounded(rounded) => rounded.tensor(),
        }
    }
}

/// The target comes with whether to add to it.
fn weight_gradient(
    cuda: &Cuda,
    geometry: &Geometry,
    input: &Activation,
    gradient: &Activation,
    (target, accumulate): (Tensor, bool),
    pass: &BackwardPass<'_>,
) -> Result<()> {
    let libraries = libraries(cuda)?;
    let (input, gradient) = (input.tensor(), gradient.tensor());
    if input.dtype() == target.dtype() {
        return libraries.weight_gradient(geometry, input, gradient, &target, accumulate);
    }
    let rounded = pass.allocate(target.shape().clone(), input.dtype())?;
    libraries.weight_gradient(geometry, input, gradient, rounded.tensor(), false)?;
    cuda.widen(rounded.tensor(), &target, accumulate)
}
