//! The network's first convolution, in bf16: a product of matrices over the pixels that each output sees.
//!
//! Images have three channels, where tensor cores read eight numbers at a time: cuDNN's forward pass and weight gradient took 6.4 ms of a
//! 41 ms step of ResNet-50 on an H200, 2.8 ms with channels of zeros beside the three, and rounded the weights' gradient on the way.
//! Rows of `[N·H·W, k·k·3]` are made for a few images at a time, so that they stay in the second-level cache until they have been
//! multiplied, and again for the backward pass.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use eqco_core::cuda::{address, address_mut};

use super::{Geometry, libraries, output_shape};
use crate::cuda::{Cuda, Matrix, across};
use crate::params::Parameter;
use crate::profile::Phase;
use crate::tape::{Activation, BackwardPass, Tape};

/// Channels of an image.
const CHANNELS: usize = 3;
/// Numbers that are read at a time.
const EIGHT: usize = 8;
/// Bytes of rows at a time: what a second-level cache holds beside the output.
const PIECE: usize = 32 << 20;
/// For the profile.
const NAME: &str = "patches";

/// As [`super::conv2d`]; `None` for other convolutions than those of images, whose gradient nobody wants.
pub(super) fn conv2d(
    cuda: &Arc<Cuda>,
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    geometry: Geometry,
) -> Result<Option<Activation>> {
    let dtype = input.dtype();
    let patches = match Patches::of(&geometry) {
        Some(patches) if dtype == DType::BF16 && input.slot().is_none() => patches,
        _ => return Ok(None),
    };
    let mut output = tape.allocate(output_shape(&geometry), dtype)?;
    let profiler = tape.profiler().clone();
    let _span = profiler.span(|| geometry.work(Phase::Forward, dtype, NAME));
    let weights = tape.allocate((geometry.out_channels, patches.wide), dtype)?;
    patches.widen(cuda, weight.value(), weights.tensor())?;
    let room = tape.allocate(patches.room(), dtype)?;
    let rows = output.tensor().reshape(((), geometry.out_channels))?;
    patches.for_each(cuda, input.tensor(), room.tensor(), |made, place| {
        let (left, right) = (Matrix::plain(made), Matrix::transposed(weights.tensor()));
        let target = rows.narrow(0, place.start, place.len())?;
        libraries(cuda)?.multiply(left, right, None, &target, false)
    })?;
    let (input, weight, cuda) = (input.clone(), weight.clone(), Arc::clone(cuda));
    tape.record(&mut output, move |gradient, pass| {
        let profiler = pass.profiler().clone();
        let _span = profiler.span(|| geometry.work(Phase::WeightGradient, dtype, NAME));
        let target = pass.parameter_target(&weight);
        let factors = [input.tensor(), gradient.tensor()];
        patches.weight_gradient(&cuda, factors, target, pass)
    });
    Ok(Some(output))
}

/// How a convolution's patches lie in memory.
#[derive(Clone, Copy, Debug)]
struct Patches {
    geometry: Geometry,
    kernel: &'static str,
    /// Numbers of a row: those of a patch, and zeros up to whole vectors.
    wide: usize,
    /// Rows of one image.
    rows: usize,
    /// Images whose rows are made at a time.
    images: usize,
}

impl Patches {
    /// `None` where there is no kernel: those of ResNets' first layers are there.
    fn of(geometry: &Geometry) -> Option<Self> {
        let kernel = match (geometry.kernel, geometry.stride, geometry.padding) {
            (7, 2, 3) => "image_patches_7_2",
            (3, 1, 1) => "image_patches_3_1",
            _ => return None,
        };
        let fits = geometry.in_channels == CHANNELS && geometry.out_channels.is_multiple_of(EIGHT);
        let wide = geometry.patch().next_multiple_of(EIGHT);
        let rows = geometry.out_height() * geometry.out_width();
        let bytes = rows * wide * DType::BF16.size_in_bytes();
        fits.then_some(Self {
            geometry: *geometry,
            kernel,
            wide,
            rows,
            images: (PIECE / bytes).clamp(1, geometry.batch.max(1)),
        })
    }

    /// Shape of the rows that are made at a time.
    fn room(&self) -> (usize, usize) {
        (self.images * self.rows, self.wide)
    }

    /// Makes the rows of `images` `[N,H,W,3]` piece by piece in `room`, and calls `then` with them and with their places among all.
    fn for_each(
        &self,
        cuda: &Cuda,
        images: &Tensor,
        room: &Tensor,
        mut then: impl FnMut(&Tensor, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        for first in (0..self.geometry.batch).step_by(self.images) {
            let count = self.images.min(self.geometry.batch - first);
            let made = room.narrow(0, 0, count * self.rows)?;
            self.make(cuda, &images.narrow(0, first, count)?, &made)?;
            then(&made, first * self.rows..(first + count) * self.rows)?;
        }
        Ok(())
    }

    fn make(&self, cuda: &Cuda, images: &Tensor, rows: &Tensor) -> Result<()> {
        let threads = rows.elem_count() / EIGHT;
        let launch = across(self.kernel, threads)
            .arg(address(images)?)
            .arg(address_mut(rows)?)
            .arg(self.geometry.height)
            .arg(self.geometry.width)
            .arg(self.geometry.out_height())
            .arg(self.geometry.out_width())
            .arg(threads);
        // SAFETY: the images have this geometry, and there is a row for each of their outputs.
        unsafe { cuda.launch(&launch) }
    }

    /// The weights `[O,k,k,3]` in f32 as rows in bf16.
    fn widen(&self, cuda: &Cuda, weight: &Tensor, rows: &Tensor) -> Result<()> {
        let threads = rows.elem_count() / EIGHT;
        let launch = across("widen_rows", threads)
            .arg(address(weight)?)
            .arg(address_mut(rows)?)
            .arg(self.geometry.patch())
            .arg(self.wide)
            .arg(threads);
        // SAFETY: both have a row for each output channel, of the lengths that the kernel is told.
        unsafe { cuda.launch(&launch) }
    }

    /// target `[O,k,k,3]` (+)= rows, both in f32.
    fn take(&self, cuda: &Cuda, rows: &Tensor, target: &Tensor, accumulate: bool) -> Result<()> {
        let threads = target.elem_count();
        let launch = across("take_rows", threads)
            .arg(address(rows)?)
            .arg(address_mut(target)?)
            .arg(self.geometry.patch())
            .arg(self.wide)
            .arg(threads)
            .arg(accumulate);
        // SAFETY: as in `widen`.
        unsafe { cuda.launch(&launch) }
    }

    /// The target comes with whether to add to it.
    fn weight_gradient(
        &self,
        cuda: &Cuda,
        [images, gradient]: [&Tensor; 2],
        (target, accumulate): (Tensor, bool),
        pass: &BackwardPass<'_>,
    ) -> Result<()> {
        let channels = self.geometry.out_channels;
        let room = pass.allocate(self.room(), images.dtype())?;
        let sums = pass.allocate((channels, self.wide), DType::F32)?;
        let gradient = gradient.reshape(((), channels))?;
        self.for_each(cuda, images, room.tensor(), |made, place| {
            let part = gradient.narrow(0, place.start, place.len())?;
            let (left, right) = (Matrix::transposed(&part), Matrix::plain(made));
            let is_first = place.start == 0;
            libraries(cuda)?.multiply(left, right, None, sums.tensor(), !is_first)
        })?;
        self.take(cuda, sums.tensor(), &target, accumulate)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn geometry(kernel: usize, stride: usize, [batch, height, width]: [usize; 3]) -> Geometry {
        Geometry {
            batch,
            height,
            width,
            in_channels: CHANNELS,
            out_channels: 16,
            kernel,
            stride,
            padding: kernel / 2,
        }
    }

    /// Numbers that bf16 holds.
    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|place| (place % 251) as f32 - 100.0)
            .collect()
    }

    fn emulated() -> Option<Cuda> {
        let cuda = Cuda::emulated();
        if let Err(error) = &cuda {
            eprintln!("NOT RUN: {error}");
        }
        cuda.ok()
    }

    /// The rows of all images, made one by one from the definition.
    fn expected(of: &Geometry, wide: usize, images: &[f32]) -> Vec<Vec<f32>> {
        let at = |image: usize, y: isize, x: isize, channel: usize| {
            let inside =
                (0..of.height as isize).contains(&y) && (0..of.width as isize).contains(&x);
            if !inside {
                return 0.0;
            }
            let place = (image * of.height + y as usize) * of.width + x as usize;
            images[place * CHANNELS + channel]
        };
        let mut rows = Vec::new();
        for image in 0..of.batch {
            for row in 0..of.out_height() {
                for column in 0..of.out_width() {
                    let start = |place: usize| (place * of.stride) as isize - of.padding as isize;
                    let mut patch: Vec<f32> = (0..of.patch())
                        .map(|number| {
                            let (tap, channel) = (number / CHANNELS, number % CHANNELS);
                            let y = start(row) + (tap / of.kernel) as isize;
                            let x = start(column) + (tap % of.kernel) as isize;
                            at(image, y, x, channel)
                        })
                        .collect();
                    patch.resize(wide, 0.0);
                    rows.push(patch);
                }
            }
        }
        rows
    }

    #[test]
    fn every_output_has_the_row_of_what_it_sees_and_zeros_outside_of_the_image() -> Result<()> {
        let Some(cuda) = emulated() else {
            return Ok(());
        };
        for (kernel, stride, shape) in [(7, 2, [3, 13, 10]), (7, 2, [1, 2, 1]), (3, 1, [2, 5, 6])] {
            let geometry = geometry(kernel, stride, shape);
            let mut patches = Patches::of(&geometry).expect("has a kernel");
            // Two pieces, the second shorter.
            patches.images = patches.images.min(2);
            let [batch, height, width] = shape;
            let pixels = values(batch * height * width * CHANNELS);
            let images = Tensor::new(&pixels[..], &Device::Cpu)?;
            let images = images.reshape((batch, height, width, CHANNELS))?;
            let room = Tensor::full(f32::NAN, patches.room(), &Device::Cpu)?;
            let room = room.to_dtype(DType::BF16)?;
            let (mut found, mut places) = (Vec::new(), Vec::new());
            let images = images.to_dtype(DType::BF16)?;
            patches.for_each(&cuda, &images, &room, |made, place| {
                found.extend(made.to_dtype(DType::F32)?.to_vec2::<f32>()?);
                places.extend(place);
                Ok(())
            })?;
            assert_eq!(
                found,
                expected(&geometry, patches.wide, &pixels),
                "{kernel}"
            );
            assert_eq!(places, (0..found.len()).collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn weights_are_put_before_zeros_and_gradients_taken_back() -> Result<()> {
        let Some(cuda) = emulated() else {
            return Ok(());
        };
        let geometry = geometry(7, 2, [1, 9, 9]);
        let patches = Patches::of(&geometry).expect("has a kernel");
        assert_eq!((geometry.patch(), patches.wide), (147, 152));
        let weight = Tensor::new(values(16 * 147), &Device::Cpu)?.reshape((16, 7, 7, 3))?;
        let rows = Tensor::full(f32::NAN, (16, 152), &Device::Cpu)?.to_dtype(DType::BF16)?;
        patches.widen(&cuda, &weight, &rows)?;
        let rows = rows.to_dtype(DType::F32)?;
        let flat = weight.reshape((16, 147))?;
        assert_eq!(
            rows.narrow(1, 0, 147)?.to_vec2::<f32>()?,
            flat.to_vec2::<f32>()?
        );
        assert_eq!(rows.narrow(1, 147, 5)?.to_vec2::<f32>()?, [[0.0; 5]; 16]);
        let back = Tensor::full(f32::NAN, (16, 7, 7, 3), &Device::Cpu)?;
        for (accumulate, times) in [(false, 1.0), (true, 2.0)] {
            patches.take(&cuda, &rows, &back, accumulate)?;
            let found = back.flatten_all()?.to_vec1::<f32>()?;
            let expected = (&weight * times)?.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(found, expected);
        }
        Ok(())
    }

    #[test]
    fn rows_are_made_for_as_many_images_as_the_cache_holds() {
        let of = |kernel, stride, side| {
            Patches::of(&geometry(kernel, stride, [256, side, side])).map(|patches| patches.images)
        };
        // 112 x 112 rows of 152 numbers: 3.8 MB an image.
        assert_eq!(of(7, 2, 224), Some(8));
        assert_eq!(of(3, 1, 32), Some(256));
        assert_eq!(of(7, 2, 4000), Some(1));
        assert_eq!(of(3, 2, 32), None);
        let mut grey = geometry(7, 2, [4, 32, 32]);
        grey.in_channels = 1;
        assert!(Patches::of(&grey).is_none());
    }
}
