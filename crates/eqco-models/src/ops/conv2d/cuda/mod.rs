//! Convolutions on a GPU. In bf16 NVIDIA's libraries want weights in bf16 too: each pass rounds them once.

mod images;
mod kernels;
mod strided;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use self::kernels::Kernels;
use super::Geometry;
use crate::cuda::{Cuda, Libraries};
use crate::params::Parameter;
use crate::profile::Phase;
use crate::tape::{Activation, Tape};

/// As [`super::conv2d`], whose checks have been made.
pub(super) fn conv2d(
    cuda: &Arc<Cuda>,
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    geometry: Geometry,
) -> Result<Activation> {
    for special in [images::conv2d, strided::conv2d] {
        if let Some(output) = special(cuda, tape, input, weight, geometry)? {
            return Ok(output);
        }
    }
    let dtype = input.dtype();
    let kernels = Kernels::choose(&geometry, dtype);
    let mut output = tape.allocate(output_shape(&geometry), dtype)?;
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| geometry.work(Phase::Forward, dtype, kernels.name()));
    let weights = Weights::new(cuda, tape, weight, dtype)?;
    kernels.forward(
        libraries(cuda)?,
        &geometry,
        [input.tensor(), weights.tensor(), output.tensor()],
    )?;
    let (input, weight, cuda) = (input.keep(), weight.clone(), Arc::clone(cuda));
    tape.record(&mut output, move |gradient, pass| {
        let slot = input.slot();
        let kept = input.value(pass)?;
        let profiler = pass.profiler().clone();
        let span = profiler.span(|| geometry.work(Phase::WeightGradient, dtype, kernels.name()));
        let target = pass.parameter_target(&weight);
        let factors = [kept.tensor(), gradient.tensor()];
        kernels.weight_gradient(&cuda, &geometry, factors, target, pass)?;
        drop((span, kept));
        if let Some(slot) = slot {
            let _span =
                profiler.span(|| geometry.work(Phase::InputGradient, dtype, kernels.name()));
            let target = pass.target(&slot)?;
            let factors = [gradient.tensor(), weights.tensor()];
            kernels.input_gradient(libraries(&cuda)?, &geometry, factors, target)?;
        }
        Ok(())
    });
    Ok(output)
}

fn output_shape(geometry: &Geometry) -> (usize, usize, usize, usize) {
    (
        geometry.batch,
        geometry.out_height(),
        geometry.out_width(),
        geometry.out_channels,
    )
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
