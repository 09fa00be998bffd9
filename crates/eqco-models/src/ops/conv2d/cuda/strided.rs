//! A 1x1 convolution with a stride, which shortcuts of residual networks have: the pixels that it reads are put side by side, and are then
//! a matrix like those of any 1x1 convolution. A gradient of the input is added to these pixels alone.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use eqco_core::cuda::{address, address_mut};

use super::kernels::Kernels;
use super::{Geometry, Weights, libraries, output_shape};
use crate::cuda::{Cuda, across, by_type};
use crate::params::Parameter;
use crate::profile::Phase;
use crate::tape::{Activation, Tape};

/// Channels that a thread moves.
const EIGHT: usize = 8;
/// For the profile.
const NAME: &str = "cublaslt";

/// As [`super::conv2d`]; `None` for other convolutions.
pub(super) fn conv2d(
    cuda: &Arc<Cuda>,
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    geometry: Geometry,
) -> Result<Option<Activation>> {
    let Some(pixels) = Pixels::of(&geometry) else {
        return Ok(None);
    };
    let dtype = input.dtype();
    let mut output = tape.allocate(output_shape(&geometry), dtype)?;
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| geometry.work(Phase::Forward, dtype, NAME));
    let weights = Weights::new(cuda, tape, weight, dtype)?;
    let taken = tape.allocate(pixels.shape(), dtype)?;
    pixels.take(cuda, input.tensor(), taken.tensor())?;
    let tensors = [taken.tensor(), weights.tensor(), output.tensor()];
    Kernels::Product.forward(libraries(cuda)?, &pixels.compact, tensors)?;
    let (input, weight, cuda) = (input.keep(), weight.clone(), Arc::clone(cuda));
    tape.record(&mut output, move |gradient, pass| {
        let (kernels, compact) = (Kernels::Product, pixels.compact);
        let slot = input.slot();
        let kept = input.value(pass)?;
        let profiler = pass.profiler().clone();
        let span = profiler.span(|| geometry.work(Phase::WeightGradient, dtype, NAME));
        let taken = pass.allocate(pixels.shape(), dtype)?;
        pixels.take(&cuda, kept.tensor(), taken.tensor())?;
        let target = pass.parameter_target(&weight);
        let factors = [taken.tensor(), gradient.tensor()];
        kernels.weight_gradient(&cuda, &compact, factors, target, pass)?;
        drop((span, kept));
        if let Some(slot) = slot {
            let _span = profiler.span(|| geometry.work(Phase::InputGradient, dtype, NAME));
            let factors = [gradient.tensor(), weights.tensor()];
            let of_taken = (taken.tensor().clone(), false);
            kernels.input_gradient(libraries(&cuda)?, &compact, factors, of_taken)?;
            let (target, accumulate) = pass.target(&slot)?;
            pixels.put(&cuda, taken.tensor(), &target, accumulate)?;
        }
        Ok(())
    });
    Ok(Some(output))
}

/// Which pixels a convolution reads.
#[derive(Clone, Copy, Debug)]
struct Pixels {
    geometry: Geometry,
    /// The convolution of these pixels alone.
    compact: Geometry,
}

impl Pixels {
    /// `None` for a convolution that is no 1x1 with a stride, or has odd numbers of channels.
    fn of(geometry: &Geometry) -> Option<Self> {
        let reads_single_pixels = geometry.kernel == 1 && geometry.padding == 0;
        let channels = [geometry.in_channels, geometry.out_channels];
        let fits = channels.iter().all(|count| count.is_multiple_of(EIGHT));
        let compact = Geometry {
            height: geometry.out_height(),
            width: geometry.out_width(),
            stride: 1,
            ..*geometry
        };
        (reads_single_pixels && geometry.stride > 1 && fits).then_some(Self {
            geometry: *geometry,
            compact,
        })
    }

    /// Of the pixels side by side.
    fn shape(&self) -> (usize, usize, usize, usize) {
        let of = &self.compact;
        (of.batch, of.height, of.width, of.in_channels)
    }

    /// The pixels of `input` `[N,H,W,C]`, in `taken`.
    fn take(&self, cuda: &Cuda, input: &Tensor, taken: &Tensor) -> Result<()> {
        self.launch(
            cuda,
            ["take_pixels_f32", "take_pixels_bf16"],
            [input, taken],
            taken,
        )
    }

    /// `target` `[N,H,W,C]` (+)= `taken` at its pixels, and without adding zero elsewhere.
    fn put(&self, cuda: &Cuda, taken: &Tensor, target: &Tensor, accumulate: bool) -> Result<()> {
        if accumulate {
            self.launch(
                cuda,
                ["add_pixels_f32", "add_pixels_bf16"],
                [taken, target],
                taken,
            )
        } else {
            self.launch(
                cuda,
                ["put_pixels_f32", "put_pixels_bf16"],
                [taken, target],
                target,
            )
        }
    }

    /// A kernel with a thread for every vector of `counted`.
    fn launch(
        &self,
        cuda: &Cuda,
        kernels: [&'static str; 2],
        [source, target]: [&Tensor; 2],
        counted: &Tensor,
    ) -> Result<()> {
        debug_assert!(matches!(source.dtype(), DType::F32 | DType::BF16));
        let threads = counted.elem_count() / EIGHT;
        let launch = across(by_type(source.dtype(), kernels), threads)
            .arg(address(source)?)
            .arg(address_mut(target)?)
            .arg(self.geometry.height)
            .arg(self.geometry.width)
            .arg(self.compact.height)
            .arg(self.compact.width)
            .arg(self.geometry.in_channels / EIGHT)
            .arg(self.geometry.stride)
            .arg(threads);
        // SAFETY: one has the shape of the input and the other that of the pixels, in the order that the kernel expects.
        unsafe { cuda.launch(&launch) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn geometry(stride: usize, [batch, height, width]: [usize; 3], channels: usize) -> Geometry {
        Geometry {
            batch,
            height,
            width,
            in_channels: channels,
            out_channels: 16,
            kernel: 1,
            stride,
            padding: 0,
        }
    }

    /// What `take` should find, and where.
    fn places(of: &Geometry) -> Vec<usize> {
        let mut places = Vec::new();
        for image in 0..of.batch {
            for row in (0..of.height).step_by(of.stride) {
                for column in (0..of.width).step_by(of.stride) {
                    let pixel = (image * of.height + row) * of.width + column;
                    places.extend((0..of.in_channels).map(|c| pixel * of.in_channels + c));
                }
            }
        }
        places
    }

    #[test]
    fn pixels_are_taken_put_among_zeros_and_added() -> Result<()> {
        let cuda = match Cuda::emulated() {
            Ok(cuda) => cuda,
            Err(error) => {
                eprintln!("NOT RUN: {error}");
                return Ok(());
            }
        };
        for (stride, shape, channels) in [(2, [3, 7, 6], 8), (2, [1, 1, 1], 24), (3, [2, 5, 9], 16)]
        {
            let geometry = geometry(stride, shape, channels);
            let pixels = Pixels::of(&geometry).expect("a 1x1 convolution with a stride");
            let [batch, height, width] = shape;
            let count = batch * height * width * channels;
            let values: Vec<f32> = (0..count)
                .map(|place| (place % 119) as f32 - 50.0)
                .collect();
            let places = places(&geometry);
            for dtype in [DType::F32, DType::BF16] {
                let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu)?.to_dtype(dtype);
                let read =
                    |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
                let input = tensor(&values)?.reshape((batch, height, width, channels))?;
                let taken = tensor(&vec![f32::NAN; places.len()])?.reshape(pixels.shape())?;
                pixels.take(&cuda, &input, &taken)?;
                let expected: Vec<f32> = places.iter().map(|place| values[*place]).collect();
                assert_eq!(read(&taken)?, expected, "{geometry:?}");
                let target = tensor(&vec![f32::NAN; count])?.reshape(input.shape())?;
                let mut expected = vec![0.0; count];
                for (accumulate, times) in [(false, 1.0), (true, 2.0)] {
                    pixels.put(&cuda, &taken, &target, accumulate)?;
                    for place in &places {
                        expected[*place] = times * values[*place];
                    }
                    assert_eq!(read(&target)?, expected, "{geometry:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn other_convolutions_are_left_to_others() {
        assert!(Pixels::of(&geometry(1, [2, 5, 5], 8)).is_none());
        assert!(Pixels::of(&geometry(2, [2, 5, 5], 12)).is_none());
        let mut wide = geometry(2, [2, 5, 5], 8);
        wide.kernel = 3;
        assert!(Pixels::of(&wide).is_none());
    }
}
