//! Recycled activation memory: a training step in steady state allocates nothing large.
//!
//! A first touch of fresh memory costs as much as a pass over it, so buffers go back to their pool when the last
//! activation that uses them is dropped and the next request of the same size gets them again, uncleared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;
use half::vec::HalfBitsVecExt;

use crate::huge_pages;
use crate::ops::access::read;
use crate::ops::element::for_element;

/// In bytes.
const CACHE_LINE: usize = 64;

/// Free flat tensors, by type and element count.
#[derive(Debug)]
pub struct BufferPool {
    device: Device,
    free: Mutex<HashMap<(DType, usize), Vec<Tensor>>>,
}

impl BufferPool {
    /// An empty pool on `device`.
    pub fn new(device: &Device) -> Arc<Self> {
        Arc::new(Self {
            device: device.clone(),
            free: Mutex::new(HashMap::new()),
        })
    }

    /// A flat buffer of `len` elements with unspecified contents.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub(crate) fn take(self: &Arc<Self>, dtype: DType, len: usize) -> Result<Buffer> {
        let recycled = self.lock().get_mut(&(dtype, len)).and_then(Vec::pop);
        let flat = match recycled {
            Some(flat) => flat,
            None if self.device.is_cpu() && dtype != DType::U8 => self.aligned(dtype, len)?,
            None => Tensor::zeros(len, dtype, &self.device)?,
        };
        Ok(Buffer {
            flat,
            pool: Arc::clone(self),
        })
    }

    /// Fresh memory that starts at a cache line, since a vector that straddles two lines costs two loads, and large memory at
    /// a large page. What is allocated beyond `len` for that is never touched.
    fn aligned(&self, dtype: DType, len: usize) -> Result<Tensor> {
        let bytes = len * dtype.size_in_bytes();
        let alignment = huge_pages::alignment(bytes).max(CACHE_LINE);
        let padding = alignment / dtype.size_in_bytes();
        let flat = self.untouched(dtype, len + padding)?;
        let start = for_element!(dtype, T => {
            read(&flat, |values: &[T]| {
                let start = values.as_ptr().align_offset(alignment).min(padding);
                huge_pages::advise(values[start..].as_ptr().cast_mut().cast(), bytes);
                start
            })?
        });
        flat.narrow(0, start, len)
    }

    /// Zeros that the system supplies when they are first read or written.
    fn untouched(&self, dtype: DType, len: usize) -> Result<Tensor> {
        match dtype {
            // candle's zeros would be written one by one.
            DType::BF16 => {
                let zeros: Vec<bf16> = vec![0u16; len].reinterpret_into();
                Tensor::from_vec(zeros, len, &self.device)
            }
            _ => Tensor::zeros(len, dtype, &self.device),
        }
    }

    /// Frees every buffer that is not in use, for instance before a pass with another batch size.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Fills every buffer that is not in use with NaN, bytes with 255: an operation that takes one of them and leaves a part of it
    /// unwritten, or reads it first, shows it in its results. For checks of kernels.
    ///
    /// # Errors
    /// When the device cannot allocate or copy.
    pub fn poison(&self) -> Result<()> {
        self.lock().values().flatten().try_for_each(poison)
    }

    /// Bytes of all buffers that are free: between two steps, all that the pool has ever handed out at one time.
    pub fn free_bytes(&self) -> usize {
        let free = self.lock();
        let bytes = |((dtype, len), buffers): (&(DType, usize), &Vec<Tensor>)| {
            buffers.len() * len * dtype.size_in_bytes()
        };
        free.iter().map(bytes).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(DType, usize), Vec<Tensor>>> {
        // A panic while the map is held leaves at worst a missing entry: the map is still sound.
        self.free
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn poison(flat: &Tensor) -> Result<()> {
    let (len, device) = (flat.elem_count(), flat.device());
    let poison = match flat.dtype() {
        // Bytes have no NaN.
        DType::U8 => Tensor::full(u8::MAX, len, device)?,
        dtype => Tensor::full(f32::NAN, len, device)?.to_dtype(dtype)?,
    };
    flat.slice_set(&poison, 0, 0)
}

/// One buffer on loan; dropping it returns it.
#[derive(Debug)]
pub(crate) struct Buffer {
    flat: Tensor,
    pool: Arc<BufferPool>,
}

impl Buffer {
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let flat = self.flat.clone();
        // The crate's own tests run on poisoned memory: whoever reads a buffer that is returned, or leaves one unwritten,
        // gets a NaN.
        #[cfg(test)]
        poison(&flat).expect("buffers can be written to");
        self.pool
            .lock()
            .entry((flat.dtype(), flat.elem_count()))
            .or_default()
            .push(flat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::normalize::l2_normalize;
    use crate::params::{ParameterBuilder, ParameterSet};
    use crate::precision::Precision;
    use crate::projection_head::{HeadKind, ProjectionHead, ProjectionHeadConfig};
    use crate::resnet::{Architecture, EncoderConfig, ResNet, Stem};
    use crate::tape::{Gradients, Mode, Tape};

    #[test]
    fn a_dropped_buffer_is_handed_out_again_and_a_held_one_is_not() -> Result<()> {
        let pool = BufferPool::new(&Device::Cpu);
        let first = pool.take(DType::F32, 8)?;
        let first_id = first.flat().id();
        let second = pool.take(DType::F32, 8)?;
        assert_ne!(first_id, second.flat().id());
        drop(first);
        assert_ne!(pool.take(DType::F32, 9)?.flat().id(), first_id);
        let again = pool.take(DType::F32, 8)?;
        assert_eq!(again.flat().id(), first_id);
        let values = again.flat().to_vec1::<f32>()?;
        assert!(
            values.iter().all(|v| v.is_nan()),
            "tests see poisoned memory"
        );
        Ok(())
    }

    #[test]
    fn buffers_of_two_types_are_not_taken_for_each_other() -> Result<()> {
        let pool = BufferPool::new(&Device::Cpu);
        drop(pool.take(DType::F32, 8)?);
        let narrow = pool.take(DType::BF16, 8)?;
        assert_eq!(narrow.flat().dtype(), DType::BF16);
        let id = narrow.flat().id();
        drop(narrow);
        let again = pool.take(DType::BF16, 8)?;
        assert_eq!(again.flat().id(), id);
        let values = again.flat().to_vec1::<half::bf16>()?;
        assert!(values.iter().all(|v| v.is_nan()));
        assert_eq!(pool.take(DType::F32, 8)?.flat().dtype(), DType::F32);
        Ok(())
    }

    #[test]
    fn poison_reaches_free_buffers_of_every_type_and_no_other() -> Result<()> {
        let pool = BufferPool::new(&Device::Cpu);
        let held = pool.take(DType::F32, 8)?;
        held.flat()
            .slice_set(&Tensor::ones(8, DType::F32, &Device::Cpu)?, 0, 0)?;
        for dtype in [DType::F32, DType::BF16, DType::U8] {
            let free = pool.take(dtype, 5)?;
            let flat = free.flat().clone();
            drop(free);
            flat.slice_set(&Tensor::zeros(5, dtype, &Device::Cpu)?, 0, 0)?;
            pool.poison()?;
            let values = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let is_poison = |value: &f32| match dtype {
                DType::U8 => *value == 255.0,
                _ => value.is_nan(),
            };
            assert!(values.iter().all(is_poison), "{dtype:?}: {values:?}");
        }
        assert_eq!(held.flat().to_vec1::<f32>()?, [1.0; 8]);
        Ok(())
    }

    struct Model {
        backbone: ResNet,
        head: ProjectionHead,
        parameters: ParameterSet,
    }

    impl Model {
        fn new(architecture: Architecture, stem: Stem, kind: HeadKind) -> Result<Self> {
            let config = EncoderConfig {
                architecture,
                width: 4,
                stem,
                zero_init_residual: false,
            };
            let head = ProjectionHeadConfig {
                kind,
                hidden_dim: 0,
                embedding_dim: 6,
            };
            let mut builder = ParameterBuilder::new(5, &Device::Cpu);
            Ok(Self {
                backbone: builder.scope("backbone", |b| ResNet::new(&config, b))?,
                head: builder.scope("head", |b| {
                    ProjectionHead::new(&head, config.representation_dim(), b)
                })?,
                parameters: builder.finish(),
            })
        }

        /// The bits of the embeddings, the image gradient and all parameter gradients of one step.
        fn step(
            &self,
            images: &Tensor,
            precision: Precision,
            pool: &Arc<BufferPool>,
        ) -> Result<Vec<Vec<u32>>> {
            let mut tape = Tape::new(Mode::Training, pool).with_precision(precision);
            let images = tape.input(&images.to_dtype(precision.dtype())?)?;
            let representation = self.backbone.forward(&mut tape, &images)?;
            let embedding = self.head.forward(&mut tape, &representation)?;
            let embedding = l2_normalize(&mut tape, &embedding)?;
            let mut gradients = Gradients::new(&self.parameters)?;
            let (rows, columns) = (embedding.dims()[0], embedding.dims()[1]);
            let slopes = Tensor::arange(0f32, (rows * columns) as f32, &Device::Cpu)?.sin()?;
            let slopes = slopes.reshape((rows, columns))?;
            let reached = tape.backward(&embedding, &slopes, &mut gradients, &[&images])?;
            let parameters = self.parameters.parameters().iter();
            let tensors = reached
                .into_iter()
                .chain(parameters.map(|p| gradients.get(p).cloned()))
                .map(|gradient| gradient.expect("everything is reached"));
            std::iter::once(embedding.to_tensor()?)
                .chain(tensors)
                .map(|tensor| {
                    let values = tensor
                        .to_dtype(DType::F32)?
                        .flatten_all()?
                        .to_vec1::<f32>()?;
                    assert!(values.iter().all(|v| v.is_finite()), "poison in a result");
                    Ok(values.into_iter().map(f32::to_bits).collect())
                })
                .collect()
        }
    }

    fn count(pool: &Arc<BufferPool>) -> usize {
        pool.lock().values().map(Vec::len).sum()
    }

    #[test]
    fn a_second_step_needs_no_new_buffer_and_depends_on_no_old_content() -> Result<()> {
        let images = Tensor::arange(0f32, (3 * 36 * 40 * 3) as f32, &Device::Cpu)?.cos()?;
        let images = images.reshape((3, 36, 40, 3))?;
        for (architecture, stem, kind) in [
            (Architecture::Resnet18, Stem::Cifar, HeadKind::Mlp),
            (
                Architecture::Resnet50,
                Stem::Imagenet,
                HeadKind::BatchNormMlp,
            ),
        ] {
            let model = Model::new(architecture, stem, kind)?;
            for precision in [Precision::F32, Precision::Bf16] {
                let pool = BufferPool::new(&Device::Cpu);
                let first = model.step(&images, precision, &pool)?;
                let allocated = count(&pool);
                assert!(allocated > 0);
                for _ in 0..2 {
                    // Fresh buffers of the first step held zeros, all of this one's hold NaN.
                    let again = model.step(&images, precision, &pool)?;
                    assert_eq!(first, again, "{architecture:?} {precision:?}");
                    assert_eq!(allocated, count(&pool), "{architecture:?} {precision:?}");
                }
                pool.clear();
                assert_eq!(count(&pool), 0);
            }
        }
        Ok(())
    }
}
