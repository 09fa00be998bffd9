//! Values inside a pass: their memory, their place on the tape, and how an operation keeps one for its backward pass.

use std::sync::Arc;

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::BackwardPass;
use crate::buffer::{Buffer, BufferPool};
use crate::profile::{Phase, Work, bytes_of};

/// A tensor inside a forward pass, channels-last `[N,H,W,C]` or `[N,C]`, f32 or bf16. Its memory returns to the pool with
/// the last clone; use [`Activation::to_tensor`] to keep a value.
#[derive(Clone, Debug)]
pub struct Activation {
    tensor: Tensor,
    node: Option<Node>,
    recipe: Option<Recipe>,
    buffer: Option<Arc<Buffer>>,
}

impl Activation {
    /// Wraps a tensor that needs no gradient, such as the normalised images.
    ///
    /// # Errors
    /// When the tensor is not contiguous f32 or bf16, or has a side of length 0 other than the batch.
    pub fn constant(tensor: &Tensor) -> Result<Self> {
        if tensor.dims().iter().skip(1).any(|side| *side == 0) {
            bail!(
                "expected pixels and channels, found an empty tensor {:?}",
                tensor.dims()
            );
        }
        if !tensor.is_contiguous() || !matches!(tensor.dtype(), DType::F32 | DType::BF16) {
            bail!(
                "expected a contiguous f32 or bf16 tensor, found {:?} with strides {:?}",
                tensor.dtype(),
                tensor.stride()
            );
        }
        Ok(Self {
            tensor: tensor.clone(),
            node: None,
            recipe: None,
            buffer: None,
        })
    }

    /// Memory from `pool`; contents unspecified.
    pub(super) fn recycled(pool: &Arc<BufferPool>, shape: Shape, dtype: DType) -> Result<Self> {
        let buffer = Arc::new(pool.take(dtype, shape.elem_count())?);
        Ok(Self {
            tensor: buffer.flat().reshape(shape)?,
            node: None,
            recipe: None,
            buffer: Some(buffer),
        })
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// The number format.
    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// A copy that outlives the pass.
    ///
    /// # Errors
    /// When the copy fails on the device.
    pub fn to_tensor(&self) -> Result<Tensor> {
        self.tensor.copy()
    }

    /// The value in place. Crate-private: a clone that outlives the activation would see recycled memory.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether its memory comes from a pool and no clone of it is left.
    pub(super) fn is_sole_holder(&self) -> bool {
        let holders = self.buffer.as_ref().map(Arc::strong_count);
        holders == Some(1)
    }

    /// The name of this value on the tape, with its shape, without keeping its memory.
    pub(crate) fn slot(&self) -> Option<Slot> {
        self.node.map(|node| Slot {
            node,
            shape: self.tensor.shape().clone(),
            dtype: self.tensor.dtype(),
        })
    }

    /// What a backward closure keeps to see this value again: the recipe where there is one, and else the value.
    pub(crate) fn keep(&self) -> Kept {
        match (&self.recipe, self.slot()) {
            (Some(recipe), Some(slot)) => Kept::Recipe(recipe.clone(), slot),
            _ => Kept::Value(self.clone()),
        }
    }

    pub(super) fn node(&self) -> Option<Node> {
        self.node
    }

    pub(super) fn set_node(&mut self, node: Node) {
        self.node = Some(node);
    }

    pub(super) fn set_recipe(&mut self, recipe: Recipe) {
        self.recipe = Some(recipe);
    }
}

/// A value on the tape of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) pass: u64,
    pub(super) index: usize,
}

/// A place for the gradient of one activation.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(super) node: Node,
    pub(super) shape: Shape,
    pub(super) dtype: DType,
}

/// Writes a value, bit for bit as it was, into memory of its shape and type, from what the backward pass keeps anyway.
#[derive(Clone)]
pub(crate) struct Recipe(Arc<WriteInto>);

type WriteInto = dyn Fn(&Activation) -> Result<()> + Send + Sync;

impl Recipe {
    pub(crate) fn new(write: impl Fn(&Activation) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipe")
    }
}

/// A value that a backward closure will read.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Its memory is held.
    Value(Activation),
    /// It is computed again, and its memory is free in the meantime.
    Recipe(Recipe, Slot),
}

impl Kept {
    /// Where the gradient of the value goes, if one is wanted.
    pub(crate) fn slot(&self) -> Option<Slot> {
        match self {
            Self::Value(activation) => activation.slot(),
            Self::Recipe(_, slot) => Some(slot.clone()),
        }
    }

    /// The value.
    pub(crate) fn value(&self, pass: &BackwardPass<'_>) -> Result<Activation> {
        match self {
            Self::Value(activation) => Ok(activation.clone()),
            Self::Recipe(recipe, slot) => {
                let value = pass.allocate(slot.shape.clone(), slot.dtype)?;
                let _span = pass.profiler().span(|| {
                    let bytes = bytes_of([value.tensor(), value.tensor()]);
                    Work::new("recomputed output", Phase::Backward).moving(bytes)
                });
                (recipe.0)(&value)?;
                Ok(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use candle_core::Device;

    use super::*;
    use crate::ops::batch_norm::{Activate, BatchNorm};
    use crate::params::ParameterBuilder;
    use crate::tape::{Gradients, Mode, Tape};

    fn images(dtype: DType) -> Result<Tensor> {
        let values = Tensor::arange(0f32, (4 * 5 * 3 * 7) as f32, &Device::Cpu)?.sin()?;
        values.reshape((4, 5, 3, 7))?.to_dtype(dtype)
    }

    fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?;
        Ok(values
            .to_vec1::<f32>()?
            .into_iter()
            .map(f32::to_bits)
            .collect())
    }

    #[test]
    fn a_batch_norm_leaves_a_recipe_that_gives_its_output_to_the_bit() -> Result<()> {
        let mut builder = ParameterBuilder::new(0, &Device::Cpu);
        let norm = BatchNorm::new(&mut builder, "norm", 7, 1.5)?;
        let set = builder.finish();
        for dtype in [DType::F32, DType::BF16] {
            let pool = BufferPool::new(&Device::Cpu);
            let mut tape = Tape::new(Mode::Training, &pool).with_batch_norm_group(Some(2));
            let input = tape.input(&images(dtype)?)?;
            let mut output = norm.forward(&mut tape, &input, None, Activate::Relu)?;
            let (kept, expected) = (output.keep(), output.to_tensor()?);
            assert!(matches!(kept, Kept::Recipe(..)));
            let found = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&found);
            // An operation behind it, which looks at the value and passes nothing on.
            tape.record(&mut output, move |_, pass| {
                let value = kept.value(pass)?.to_tensor()?;
                *seen.lock().expect("one thread") = Some(value);
                Ok(())
            });
            let gradient = expected.zeros_like()?;
            tape.backward(&output, &gradient, &mut Gradients::new(&set)?, &[])?;
            let found = found
                .lock()
                .expect("one thread")
                .take()
                .expect("was called");
            assert_eq!(bits(&found)?, bits(&expected)?, "{dtype:?}");
        }
        Ok(())
    }

    #[test]
    fn values_that_cannot_be_recomputed_or_are_not_recorded_are_held() -> Result<()> {
        let mut builder = ParameterBuilder::new(0, &Device::Cpu);
        let norm = BatchNorm::new(&mut builder, "norm", 7, 1.5)?;
        let pool = BufferPool::new(&Device::Cpu);
        let input = Activation::constant(&images(DType::F32)?)?;
        assert!(matches!(input.keep(), Kept::Value(_)));
        let mut training = Tape::new(Mode::Training, &pool);
        let output = norm.forward(&mut training, &input, Some(&input), Activate::Relu)?;
        assert!(matches!(output.keep(), Kept::Value(_)));
        for mode in [Mode::Unrecorded, Mode::Evaluation] {
            let mut tape = Tape::new(mode, &pool);
            let output = norm.forward(&mut tape, &input, None, Activate::Relu)?;
            // A recipe would hold the input for nothing.
            assert!(output.recipe.is_none(), "{mode:?}");
        }
        Ok(())
    }

    #[test]
    fn an_output_that_is_held_survives_its_backward_pass_and_a_constant_residual_masks_as_well()
    -> Result<()> {
        let mut builder = ParameterBuilder::new(0, &Device::Cpu);
        let norm = BatchNorm::new(&mut builder, "norm", 7, 1.5)?;
        let set = builder.finish();
        let images = images(DType::F32)?;
        let pool = BufferPool::new(&Device::Cpu);
        let mut found = Vec::new();
        for is_tracked in [false, true] {
            let mut tape = Tape::new(Mode::Training, &pool);
            let input = tape.input(&images)?;
            let residual = if is_tracked {
                tape.input(&images)?
            } else {
                Activation::constant(&images)?
            };
            let output = norm.forward(&mut tape, &input, Some(&residual), Activate::Relu)?;
            let value = output.to_tensor()?;
            assert!(!output.is_sole_holder(), "the tape holds it too");
            let mut gradients = Gradients::new(&set)?;
            let reached = tape.backward(&output, &images, &mut gradients, &[&input, &residual])?;
            assert_eq!(bits(output.tensor())?, bits(&value)?);
            assert!(output.is_sole_holder());
            assert_eq!(reached[1].is_some(), is_tracked);
            if let Some(masked) = &reached[1] {
                // The gradient where the output is positive, and 0 elsewhere.
                let expected = (value.gt(0f64)?.to_dtype(DType::F32)? * &images)?;
                assert_eq!(
                    masked.flatten_all()?.to_vec1::<f32>()?,
                    expected.flatten_all()?.to_vec1::<f32>()?
                );
            }
            found.push(bits(reached[0].as_ref().expect("the input is tracked"))?);
        }
        assert_eq!(found[0], found[1]);
        Ok(())
    }
}
