//! Two-dimensional convolution without bias, channels-last.

mod cuda;
pub mod portable;

use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};

use super::access::{read, write};
use super::element::for_element;
use crate::backend::Backend;
use crate::onednn::Onednn;
use crate::params::Parameter;
use crate::profile::{Phase, Work};
use crate::tape::{Activation, Tape};

/// Sizes of one convolution: input `[batch, height, width, in_channels]`, weight
/// `[out_channels, kernel, kernel, in_channels]`, output `[batch, out_height, out_width, out_channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Images.
    pub batch: usize,
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub width: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between outputs, both directions.
    pub stride: usize,
    /// Zero rows and columns on each side.
    pub padding: usize,
}

impl Geometry {
    /// Output height: ⌊(height + 2·padding − kernel) / stride⌋ + 1.
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }
    /// Output width, likewise.
    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }
    /// Elements of one im2col row: kernel² · in_channels.
    pub fn patch(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }
    /// Whether an output pixel reads exactly the input pixel at its own place.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }
    /// Elements of one input image.
    pub fn in_image(&self) -> usize {
        self.height * self.width * self.in_channels
    }
    /// Elements of one output image.
    pub fn out_image(&self) -> usize {
        self.out_height() * self.out_width() * self.out_channels
    }

    /// One pass of this convolution for the profile: it reads two of input, weights (f32) and output, or their gradients,
    /// and writes the third. `dtype` is the images'.
    fn work(&self, phase: Phase, dtype: DType, kernel: &str) -> Work {
        let stride = if self.stride == 1 {
            String::new()
        } else {
            format!(" s{}", self.stride)
        };
        let pixels = self.batch * (self.in_image() + self.out_image());
        let weights = self.out_channels * self.patch();
        Work::new(
            format!("conv2d {k}x{k}{stride} {kernel}", k = self.kernel),
            phase,
        )
        .moving(pixels * dtype.size_in_bytes() + weights * size_of::<f32>())
        .computing(2 * self.batch * self.out_image() * self.patch())
    }

    fn check(&self, name: &str) -> Result<()> {
        let fits = |side: usize| side + 2 * self.padding >= self.kernel;
        if self.stride == 0 || self.kernel == 0 || !fits(self.height) || !fits(self.width) {
            bail!(
                "convolution {name}: a {k}x{k} kernel with stride {} and padding {} does not fit a {}x{} input",
                self.stride,
                self.padding,
                self.height,
                self.width,
                k = self.kernel
            );
        }
        Ok(())
    }
}

/// Convolves `input` `[N,H,W,C]` with `weight` `[O,k,k,C]` (OIHW in exchange).
///
/// # Errors
/// When shapes do not fit together.
pub fn conv2d(
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    stride: usize,
    padding: usize,
) -> Result<Activation> {
    let (&[batch, height, width, in_channels], &[out_channels, kernel, _, weight_channels]) =
        (input.dims(), weight.value().dims())
    else {
        bail!(
            "convolution {}: expected input [N,H,W,C] and weight [O,k,k,C], found {:?} and {:?}",
            weight.name(),
            input.dims(),
            weight.value().dims()
        )
    };
    if in_channels != weight_channels {
        bail!(
            "convolution {}: expected {weight_channels} input channels, found {in_channels}",
            weight.name()
        );
    }
    let geometry = Geometry {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
    };
    geometry.check(weight.name())?;
    if let Backend::Cuda(family) = tape.backend()
        && family.libraries().is_some()
    {
        return cuda::conv2d(&Arc::clone(family), tape, input, weight, geometry);
    }
    let kernels = Kernels::choose(tape, &geometry, input.dtype());
    let shape = (
        batch,
        geometry.out_height(),
        geometry.out_width(),
        out_channels,
    );
    let mut output = tape.allocate(shape, input.dtype())?;
    let dtype = input.dtype();
    let _span = tape.profiler().span(|| {
        geometry.work(
            Phase::Forward,
            dtype,
            kernels.name(&geometry, Phase::Forward, dtype),
        )
    });
    kernels.forward(&geometry, input, weight, &output)?;
    let (input, weight) = (input.keep(), weight.clone());
    tape.record(&mut output, move |gradient, pass| {
        let slot = input.slot();
        let kept = input.value(pass)?;
        let span = pass.profiler().span(|| {
            geometry.work(
                Phase::WeightGradient,
                dtype,
                kernels.name(&geometry, Phase::WeightGradient, dtype),
            )
        });
        let target = pass.parameter_target(&weight);
        kernels.backward_weight(&geometry, &kept, &gradient, target)?;
        drop((span, kept));
        if let Some(slot) = slot {
            let _span = pass.profiler().span(|| {
                geometry.work(
                    Phase::InputGradient,
                    dtype,
                    kernels.name(&geometry, Phase::InputGradient, dtype),
                )
            });
            let target = pass.target(&slot)?;
            kernels.backward_data(&geometry, &gradient, &weight, target)?;
        }
        Ok(())
    });
    Ok(output)
}

/// What computes one convolution and its gradients on the CPU.
struct Kernels {
    /// The portable kernels, where there is none.
    onednn: Option<Arc<Onednn>>,
    /// Whether the portable kernels may use Winograd's transform.
    winograd: bool,
}

impl Kernels {
    fn choose(tape: &Tape, geometry: &Geometry, dtype: DType) -> Self {
        let winograd = tape.winograd();
        let onednn = match tape.backend() {
            // Winograd's fewer multiplications beat oneDNN 3, which has direct convolutions alone, but for matrix units.
            Backend::Onednn(library)
                if portable::uses_winograd::<f32>(geometry, winograd)
                    && !(dtype == DType::BF16 && library.has_fast_bf16()) =>
            {
                None
            }
            Backend::Onednn(library) => Some(Arc::clone(library)),
            // Where CUDA's kernels are emulated, the portable ones stand in for NVIDIA's library.
            Backend::Portable | Backend::Cuda(_) => None,
        };
        Self { onednn, winograd }
    }

    /// For the profile.
    fn name(&self, geometry: &Geometry, phase: Phase, dtype: DType) -> &'static str {
        if self.onednn.is_some() {
            return "onednn";
        }
        let portable: Result<_> = (|| for_element!(dtype, T => Ok(portable::kernel_name::<T>(geometry, self.winograd, phase))))(
        );
        portable.unwrap_or("unknown")
    }

    fn forward(
        &self,
        geometry: &Geometry,
        input: &Activation,
        weight: &Parameter,
        output: &Activation,
    ) -> Result<()> {
        for_element!(input.dtype(), T => read(weight.value(), |w: &[f32]| {
            read(input.tensor(), |x: &[T]| {
                write(output.tensor(), |y: &mut [T]| match &self.onednn {
                    None => {
                        portable::forward(geometry, self.winograd, x, w, y);
                        Ok(())
                    }
                    Some(library) => library.forward(geometry, x, w, y),
                })
            })
        })???
        .map_err(Error::wrap))
    }

    /// The target comes with whether to add to it.
    fn backward_weight(
        &self,
        geometry: &Geometry,
        input: &Activation,
        gradient: &Activation,
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        for_element!(input.dtype(), T => read(input.tensor(), |x: &[T]| {
            read(gradient.tensor(), |dy: &[T]| {
                write(&target, |dw: &mut [f32]| match &self.onednn {
                    None => {
                        portable::backward_weight(geometry, self.winograd, x, dy, dw, accumulate);
                        Ok(())
                    }
                    Some(library) => {
                        library.backward_weight(geometry, x, dy, dw, accumulate)
                    }
                })
            })
        })???
        .map_err(Error::wrap))
    }

    /// The target comes with whether to add to it.
    fn backward_data(
        &self,
        geometry: &Geometry,
        gradient: &Activation,
        weight: &Parameter,
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        for_element!(gradient.dtype(), T => read(weight.value(), |w: &[f32]| {
            read(gradient.tensor(), |dy: &[T]| {
                write(&target, |dx: &mut [T]| match &self.onednn {
                    None => {
                        portable::backward_data(geometry, self.winograd, dy, w, dx, accumulate);
                        Ok(())
                    }
                    Some(library) => {
                        library.backward_data(geometry, dy, w, dx, accumulate)
                    }
                })
            })
        })???
        .map_err(Error::wrap))
    }
}
