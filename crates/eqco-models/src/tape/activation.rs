//! Values inside a pass: their memory, their place on the tape, and how an operation keeps one for its backward pass.

use std::sync::Arc;

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::BackwardPass;
use crate::buffer::{Buffer, BufferPool};

/// A tensor inside a forward pass, channels-last `[N,H,W,C]` or `[N,C]`, f32 or bf16. Its memory returns to the pool with
/// the last clone; use [`Activation::to_tensor`] to keep a value.
#[derive(Clone, Debug)]
pub struct Activation {
    tensor: Tensor,
    node: Option<Node>,
    recipe: Option<Recipe>,
    _buffer: Option<Arc<Buffer>>,
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
            _buffer: None,
        })
    }

    /// Memory from `pool`; contents unspecified.
    pub(super) fn recycled(pool: &Arc<BufferPool>, shape: Shape, dtype: DType) -> Result<Self> {
        let buffer = Arc::new(pool.take(dtype, shape.elem_count())?);
        Ok(Self {
            tensor: buffer.flat().reshape(shape)?,
            node: None,
            recipe: None,
            _buffer: Some(buffer),
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
pub(crate) struct Recipe(Arc<dyn Fn(&Activation) -> Result<()> + Send + Sync>);

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
                (recipe.0)(&value)?;
                Ok(value)
            }
        }
    }
}
