//! From bytes in host memory to normalised images on the device.

use candle_core::{Device, Result, Tensor, WithDType, bail};
use eqco_core::cuda::{Launch, address_mut};
use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::cuda::{Cuda, across, by_type};
use crate::ops::element::Element;
use crate::precision::Precision;

/// So many bytes a thread keep the grid small; any number is right.
const BYTES_PER_THREAD: usize = 16;

/// Per-channel mean and deviation of the training images, of values in 0..1; part of every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted, for red, green, blue.
    pub mean: [f32; 3],
    /// Divided by; positive.
    pub deviation: [f32; 3],
}

impl Normalization {
    /// torchvision's constants for ImageNet.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        deviation: [0.229, 0.224, 0.225],
    };
    /// The constants in common use for CIFAR-10.
    pub const CIFAR10: Self = Self {
        mean: [0.4914, 0.4822, 0.4465],
        deviation: [0.247, 0.2435, 0.2616],
    };
    /// Fashion-MNIST, grey repeated to three channels.
    pub const FASHION_MNIST: Self = Self {
        mean: [0.286; 3],
        deviation: [0.353; 3],
    };

    /// Turns `pixels` `[N,S,S,3]`, u8, into a tensor `[N,S,S,3]` of (pixel/255 − mean)/deviation in `precision`, computed in
    /// f32.
    ///
    /// # Errors
    /// When the number of bytes is not a multiple of one image, or a deviation is not positive.
    pub fn upload(
        &self,
        pixels: &[u8],
        image_size: usize,
        precision: Precision,
        device: &Device,
        backend: &Backend,
    ) -> Result<Tensor> {
        let image = image_size * image_size * 3;
        if image == 0 || !pixels.len().is_multiple_of(image) {
            bail!(
                "expected a multiple of {image} bytes ({image_size}x{image_size} RGB), found {}",
                pixels.len()
            );
        }
        self.check()?;
        let shape = (pixels.len() / image, image_size, image_size, 3);
        if let Some(cuda) = backend.cuda() {
            // SAFETY: the kernel writes all of it.
            let target = unsafe { Tensor::empty(shape, precision.dtype(), device)? };
            cuda.queue()
                .upload(pixels, |bytes| self.normalize_bytes(cuda, bytes, &target))?;
            return Ok(target);
        }
        match precision {
            Precision::F32 => Tensor::from_vec(self.normalized::<f32>(pixels), shape, device),
            Precision::Bf16 => Tensor::from_vec(self.normalized::<bf16>(pixels), shape, device),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.deviation.iter().all(|d| *d > 0.0) {
            bail!(
                "input normalisation: deviations must be positive, found {:?}",
                self.deviation
            );
        }
        Ok(())
    }

    /// As kernels take them: the means, then the deviations.
    pub(crate) fn constants(&self) -> impl Iterator<Item = f32> {
        self.mean.into_iter().chain(self.deviation)
    }

    /// `bytes` is the address of as many as `target` has elements.
    fn normalize_bytes(&self, cuda: &Cuda, bytes: u64, target: &Tensor) -> Result<()> {
        let count = target.elem_count();
        let kernel = by_type(
            target.dtype(),
            ["normalize_bytes_f32", "normalize_bytes_bf16"],
        );
        let launch = across(kernel, count.div_ceil(BYTES_PER_THREAD))
            .arg(bytes)
            .arg(address_mut(target)?)
            .arg(count as u64);
        let launch = self.constants().fold(launch, Launch::arg);
        // SAFETY: the arguments are those of the kernel, both arrays as long as it is told.
        unsafe { cuda.launch(&launch) }
    }

    /// A table a channel: it was faster than vectorised divisions, and either is bound by the first touch of the memory.
    fn normalized<T: Element + WithDType>(&self, pixels: &[u8]) -> Vec<T> {
        const TASK: usize = 3 << 13;
        let table = self.table::<T>();
        let mut values = vec![T::ZERO; pixels.len()];
        values
            .par_chunks_mut(TASK)
            .zip(pixels.par_chunks(TASK))
            .for_each(|(values, pixels)| {
                for (value, pixel) in values.chunks_exact_mut(3).zip(pixels.chunks_exact(3)) {
                    for channel in 0..3 {
                        value[channel] = table[channel][usize::from(pixel[channel])];
                    }
                }
            });
        values
    }

    fn table<T: Element>(&self) -> [[T; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|level| {
                let value = level as f32 / 255.0;
                T::store((value - self.mean[channel]) / self.deviation[channel])
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::families;

    #[test]
    fn upload_is_the_closed_form_and_refuses_partial_images() -> Result<()> {
        families().into_iter().try_for_each(|backend| {
            let pixels: Vec<u8> = (0..24).map(|i| (i * 10) as u8).collect();
            let images = Normalization::IMAGENET.upload(
                &pixels,
                2,
                Precision::F32,
                &Device::Cpu,
                &backend,
            )?;
            assert_eq!(images.dims(), &[2, 2, 2, 3]);
            let values = images.flatten_all()?.to_vec1::<f32>()?;
            for (index, value) in values.iter().enumerate() {
                let (mean, deviation) = (
                    Normalization::IMAGENET.mean[index % 3],
                    Normalization::IMAGENET.deviation[index % 3],
                );
                assert!((value - (pixels[index] as f32 / 255.0 - mean) / deviation).abs() < 1e-6);
            }
            let message = Normalization::IMAGENET
                .upload(&pixels[1..], 2, Precision::F32, &Device::Cpu, &backend)
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("12 bytes") && message.contains("23"),
                "{message}"
            );
            Ok(())
        })
    }

    /// More pixels than one task takes, and not a multiple.
    #[test]
    fn bf16_is_the_f32_upload_rounded_once() -> Result<()> {
        families().into_iter().try_for_each(|backend| {
            let pixels: Vec<u8> = (0..3 * 61 * 61 * 3).map(|i| (i * 7 % 256) as u8).collect();
            let upload = |precision| {
                Normalization::CIFAR10.upload(&pixels, 61, precision, &Device::Cpu, &backend)
            };
            let (wide, narrow) = (upload(Precision::F32)?, upload(Precision::Bf16)?);
            assert_eq!(narrow.dims(), &[3, 61, 61, 3]);
            let expected = wide.to_dtype(candle_core::DType::BF16)?.flatten_all()?;
            let found = narrow.flatten_all()?.to_vec1::<bf16>()?;
            assert_eq!(found, expected.to_vec1::<bf16>()?);
            Ok(())
        })
    }
}
