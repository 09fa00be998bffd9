//! An explicit tape: one model definition that trains when it records and infers when it does not.
//!
//! An operation computes its output into a recycled buffer and, on a recording tape, leaves a closure that turns the
//! output's gradient into the gradients of its inputs and parameters. [`Tape::backward`] runs the closures in reverse.
//! Closures own what they need and are dropped as soon as they have run, so activation memory falls while the backward
//! pass proceeds.
//!
//! Why not candle's graph: every edge there costs a zero-fill and an addition of the whole tensor, and all activations
//! live until the end (see ARCHITECTURE.md for the measurement).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Result, Shape, Tensor, bail};

use crate::buffer::{Buffer, BufferPool};
use crate::ops::access;
use crate::params::{Parameter, ParameterSet};

/// How a forward pass treats batch statistics and whether it can be differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, running statistics updated, gradients possible: the query encoder.
    Training,
    /// Batch statistics, running statistics updated, nothing recorded: the momentum encoder's forward pass.
    Unrecorded,
    /// Running statistics, nothing recorded: representations of a finished encoder.
    Evaluation,
}

/// A tensor inside a forward pass, channels-last `[N,H,W,C]` or `[N,C]`, f32. Its memory returns to the pool with the
/// last clone; use [`Activation::to_tensor`] to keep a value.
#[derive(Clone, Debug)]
pub struct Activation {
    tensor: Tensor,
    node: Option<Node>,
    _buffer: Option<Arc<Buffer>>,
}

impl Activation {
    /// Wraps a tensor that needs no gradient, such as the normalised images.
    ///
    /// # Errors
    /// When the tensor is not contiguous f32, or has a side of length 0 other than the batch.
    pub fn constant(tensor: &Tensor) -> Result<Self> {
        if tensor.dims().iter().skip(1).any(|side| *side == 0) {
            bail!(
                "expected pixels and channels, found an empty tensor {:?}",
                tensor.dims()
            );
        }
        if !tensor.is_contiguous() || tensor.dtype() != candle_core::DType::F32 {
            bail!(
                "expected a contiguous f32 tensor, found {:?} with strides {:?}",
                tensor.dtype(),
                tensor.stride()
            );
        }
        Ok(Self {
            tensor: tensor.clone(),
            node: None,
            _buffer: None,
        })
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
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
        })
    }
}

/// A value on the tape of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    pass: u64,
    index: usize,
}

/// A place for the gradient of one activation.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    node: Node,
    shape: Shape,
}

/// Gradients of a [`ParameterSet`], by parameter index, in the parameters' memory layout.
#[derive(Debug)]
pub struct Gradients {
    tensors: Vec<Tensor>,
    written: Vec<bool>,
}

impl Gradients {
    /// Room for the gradient of every parameter of `set`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn new(set: &ParameterSet) -> Result<Self> {
        let tensors = set
            .parameters()
            .iter()
            .map(|p| p.value().zeros_like())
            .collect::<Result<Vec<_>>>()?;
        let written = vec![false; tensors.len()];
        Ok(Self { tensors, written })
    }

    /// The gradient of `parameter`, or `None` when no backward pass has reached it since [`Gradients::reset`] (or when it
    /// is a parameter of a larger set than these gradients were made for).
    pub fn get(&self, parameter: &Parameter) -> Option<&Tensor> {
        let written = *self.written.get(parameter.index())?;
        written.then(|| &self.tensors[parameter.index()])
    }

    /// Forgets all gradients. Without it the next backward pass adds to them.
    pub fn reset(&mut self) {
        self.written.fill(false);
    }

    /// The tensor to write to and whether to add to it.
    pub(crate) fn target(&mut self, parameter: &Parameter) -> (Tensor, bool) {
        let accumulate = std::mem::replace(&mut self.written[parameter.index()], true);
        (self.tensors[parameter.index()].clone(), accumulate)
    }
}

type Backward = Box<dyn FnOnce(Activation, &mut BackwardPass<'_>) -> Result<()> + Send + Sync>;

struct Record {
    output: Node,
    backward: Backward,
}

/// The state of one forward pass.
pub struct Tape {
    /// Unique in this process, so that values of two passes are not taken for each other.
    id: u64,
    mode: Mode,
    pool: Arc<BufferPool>,
    batch_norm_group: Option<usize>,
    node_count: usize,
    records: Vec<Record>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("mode", &self.mode)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

impl Tape {
    /// A fresh pass that takes its memory from `pool`.
    pub fn new(mode: Mode, pool: &Arc<BufferPool>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            mode,
            pool: Arc::clone(pool),
            batch_norm_group: None,
            node_count: 0,
            records: Vec::new(),
        }
    }

    /// Computes batch statistics over groups of `samples` consecutive images, as if each group were on its own device.
    #[must_use]
    pub fn with_batch_norm_group(mut self, samples: Option<usize>) -> Self {
        self.batch_norm_group = samples;
        self
    }

    /// How this pass treats statistics and gradients.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn batch_norm_group(&self) -> Option<usize> {
        self.batch_norm_group
    }

    /// Wraps an input whose gradient is wanted, for instance to differentiate a block on its own.
    ///
    /// # Errors
    /// Those of [`Activation::constant`].
    pub fn input(&mut self, tensor: &Tensor) -> Result<Activation> {
        let mut activation = Activation::constant(tensor)?;
        activation.node = Some(self.new_node());
        Ok(activation)
    }

    /// Room for an operation's output; contents unspecified.
    pub(crate) fn allocate(&mut self, shape: impl Into<Shape>) -> Result<Activation> {
        allocate(&self.pool, shape.into())
    }

    /// Marks `output` as computed by an operation with this backward closure. Does nothing on a pass that does not record.
    pub(crate) fn record(
        &mut self,
        output: &mut Activation,
        backward: impl FnOnce(Activation, &mut BackwardPass<'_>) -> Result<()> + Send + Sync + 'static,
    ) {
        if self.mode == Mode::Training {
            let node = self.new_node();
            output.node = Some(node);
            self.records.push(Record {
                output: node,
                backward: Box::new(backward),
            });
        }
    }

    /// Propagates `gradient` (same shape as `output`) to all parameters and tracked inputs, and empties the tape.
    /// Returns the gradients of the inputs given to [`Tape::input`], in that order, where anything depends on them.
    ///
    /// # Errors
    /// When this tape did not record `output` or has been emptied since, when the shapes differ, or when the pass used a
    /// tracked activation of another pass.
    pub fn backward(
        &mut self,
        output: &Activation,
        gradient: &Tensor,
        parameters: &mut Gradients,
        inputs: &[&Activation],
    ) -> Result<Vec<Option<Tensor>>> {
        let node = self.recorded(output)?;
        if output.dims() != gradient.dims() {
            bail!(
                "gradient: expected shape {:?}, found {:?}",
                output.dims(),
                gradient.dims()
            );
        }
        let seed = allocate(&self.pool, output.tensor.shape().clone())?;
        access::copy_into(&seed.tensor, &gradient.contiguous()?)?;
        let mut slots = vec![None; self.node_count];
        slots[node.index] = Some(seed);
        let mut pass = BackwardPass {
            id: self.id,
            pool: Arc::clone(&self.pool),
            slots,
            parameters,
        };
        while let Some(record) = self.records.pop() {
            if let Some(gradient) = pass.slots[record.output.index].take() {
                (record.backward)(gradient, &mut pass)?;
            }
        }
        inputs
            .iter()
            .map(|input| {
                input
                    .node
                    .filter(|node| node.pass == self.id)
                    .and_then(|node| pass.slots[node.index].take())
                    .map(|g| g.to_tensor())
                    .transpose()
            })
            .collect()
    }

    fn recorded(&self, output: &Activation) -> Result<Node> {
        if self.mode != Mode::Training {
            bail!(
                "backward needs a pass in training mode, this one is in mode {:?}",
                self.mode
            );
        }
        match output.node {
            Some(node) if self.records.iter().any(|record| record.output == node) => Ok(node),
            _ => bail!(
                "backward needs an output that this pass has recorded; a backward pass empties the tape, \
                 and constants are not recorded"
            ),
        }
    }

    fn new_node(&mut self) -> Node {
        let index = self.node_count;
        self.node_count += 1;
        Node {
            pass: self.id,
            index,
        }
    }
}

fn allocate(pool: &Arc<BufferPool>, shape: Shape) -> Result<Activation> {
    let buffer = Arc::new(pool.take(shape.elem_count())?);
    Ok(Activation {
        tensor: buffer.flat().reshape(shape)?,
        node: None,
        _buffer: Some(buffer),
    })
}

/// What a backward closure may do: get room for gradients and hand them on.
pub(crate) struct BackwardPass<'a> {
    id: u64,
    pool: Arc<BufferPool>,
    slots: Vec<Option<Activation>>,
    parameters: &'a mut Gradients,
}

impl BackwardPass<'_> {
    /// Scratch of the given shape; contents unspecified.
    pub(crate) fn allocate(&self, shape: impl Into<Shape>) -> Result<Activation> {
        allocate(&self.pool, shape.into())
    }

    /// The gradient to write for `slot`, and whether another consumer has already written to it (then add).
    pub(crate) fn target(&mut self, slot: &Slot) -> Result<(Tensor, bool)> {
        let index = self.index(slot)?;
        if let Some(existing) = &self.slots[index] {
            return Ok((existing.tensor.clone(), true));
        }
        let fresh = allocate(&self.pool, slot.shape.clone())?;
        let tensor = fresh.tensor.clone();
        self.slots[index] = Some(fresh);
        Ok((tensor, false))
    }

    /// Hands over a finished gradient, adding it if another consumer was first.
    pub(crate) fn give(&mut self, slot: &Slot, gradient: Activation) -> Result<()> {
        let index = self.index(slot)?;
        match &self.slots[index] {
            Some(existing) => access::add_into(&existing.tensor, &gradient.tensor),
            None => {
                self.slots[index] = Some(gradient);
                Ok(())
            }
        }
    }

    fn index(&self, slot: &Slot) -> Result<usize> {
        if slot.node.pass != self.id {
            bail!(
                "a tracked activation of another pass was used in this one; take its value as a constant instead"
            );
        }
        Ok(slot.node.index)
    }

    /// The gradient to write for `parameter`, and whether to add to it.
    pub(crate) fn parameter_target(&mut self, parameter: &Parameter) -> (Tensor, bool) {
        self.parameters.target(parameter)
    }
}
