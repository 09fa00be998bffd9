//! An explicit tape: one model definition that trains when it records and infers when it does not.
//!
//! An operation computes its output into a recycled buffer and, on a recording tape, leaves a closure that turns the
//! output's gradient into the gradients of its inputs and parameters. [`Tape::backward`] runs the closures in reverse.
//! Closures own what they need and are dropped as soon as they have run, so activation memory falls while the backward
//! pass proceeds.
//!
//! Why not candle's graph: every edge there costs a zero-fill and an addition of the whole tensor, and all activations
//! live until the end (see ARCHITECTURE.md for the measurement).

mod activation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Error, Result, Shape, Tensor, bail};

use crate::backend::Backend;
use crate::buffer::BufferPool;
use crate::ops::access;
use crate::ops::lanes::on_pool;
use crate::params::{Parameter, ParameterSet};
use crate::precision::Precision;
use crate::profile::Profiler;

pub use self::activation::Activation;
use self::activation::Node;
pub(crate) use self::activation::{Recipe, Slot};

/// How a forward pass treats batch statistics and whether it can be differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, running statistics updated, gradients possible: the query encoder.
    Training,
    /// Batch statistics, running statistics updated, nothing recorded: the momentum encoder's forward pass.
    Unrecorded,
    /// Batch statistics, running statistics left as they are, nothing recorded: the first of two passes over a batch
    /// whose second one is in mode `Training`.
    Preview,
    /// Running statistics, nothing recorded: representations of a finished encoder.
    Evaluation,
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

    /// All gradients that have been reached.
    pub(crate) fn reached(&self) -> Vec<Tensor> {
        let all = self.tensors.iter().zip(&self.written);
        all.filter(|(_, written)| **written)
            .map(|(tensor, _)| tensor.clone())
            .collect()
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
    backend: Backend,
    winograd: bool,
    precision: Precision,
    pool: Arc<BufferPool>,
    batch_norm_group: Option<usize>,
    profiler: Profiler,
    node_count: usize,
    records: Vec<Record>,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("mode", &self.mode)
            .field("precision", &self.precision)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}

impl Tape {
    /// A fresh pass in f32 that takes its memory from `pool`.
    pub fn new(mode: Mode, pool: &Arc<BufferPool>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            mode,
            backend: Backend::Portable,
            winograd: true,
            precision: Precision::F32,
            pool: Arc::clone(pool),
            batch_norm_group: None,
            profiler: Profiler::off(),
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

    /// Computes with the kernels of `backend`.
    #[must_use]
    pub fn with_backend(mut self, backend: &Backend) -> Self {
        self.backend = backend.clone();
        self
    }

    /// Whether portable 3x3 convolutions of stride 1 may use Winograd's transform: they do unless told otherwise.
    #[must_use]
    pub fn with_winograd(mut self, allowed: bool) -> Self {
        self.winograd = allowed;
        self
    }

    pub(crate) fn winograd(&self) -> bool {
        self.winograd
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Expects images, and so computes the backbone, in `precision`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The number format of the backbone's activations in this pass.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Books the time of every operation of this pass, backward too, with `profiler`.
    #[must_use]
    pub fn with_profiler(mut self, profiler: &Profiler) -> Self {
        self.profiler = profiler.clone();
        self
    }

    pub(crate) fn profiler(&self) -> &Profiler {
        &self.profiler
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
        activation.set_node(self.new_node());
        Ok(activation)
    }

    /// Room for an operation's output; contents unspecified.
    pub(crate) fn allocate(&mut self, shape: impl Into<Shape>, dtype: DType) -> Result<Activation> {
        Activation::recycled(&self.pool, shape.into(), dtype)
    }

    /// Marks `output` as computed by an operation with this backward closure. Does nothing on a pass that does not record.
    pub(crate) fn record(
        &mut self,
        output: &mut Activation,
        backward: impl FnOnce(Activation, &mut BackwardPass<'_>) -> Result<()> + Send + Sync + 'static,
    ) {
        if self.mode == Mode::Training {
            let node = self.new_node();
            output.set_node(node);
            self.records.push(Record {
                output: node,
                backward: Box::new(backward),
            });
        }
    }

    /// Lets later operations that need the recorded `output` in their backward pass compute it again with `recipe` instead
    /// of keeping it. Does nothing on a pass that does not record.
    pub(crate) fn recompute(&self, output: &mut Activation, recipe: Recipe) {
        if self.mode == Mode::Training {
            output.set_recipe(recipe);
        }
    }

    /// Propagates `gradient` (same shape and type as `output`) to all parameters and tracked inputs, and empties the tape.
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
        if output.dims() != gradient.dims() || output.dtype() != gradient.dtype() {
            bail!(
                "gradient: expected shape {:?} of {:?}, found {:?} of {:?}",
                output.dims(),
                output.dtype(),
                gradient.dims(),
                gradient.dtype()
            );
        }
        let shape = output.tensor().shape().clone();
        let seed = Activation::recycled(&self.pool, shape, output.dtype())?;
        access::copy_into(seed.tensor(), &gradient.contiguous()?)?;
        let mut slots = vec![None; self.node_count];
        slots[node.index] = Some(seed);
        let mut pass = BackwardPass {
            id: self.id,
            backend: self.backend.clone(),
            pool: Arc::clone(&self.pool),
            profiler: self.profiler.clone(),
            slots,
            parameters,
        };
        on_pool(|| {
            while let Some(record) = self.records.pop() {
                if let Some(gradient) = pass.slots[record.output.index].take() {
                    (record.backward)(gradient, &mut pass)?;
                }
            }
            Ok::<_, Error>(())
        })?;
        inputs
            .iter()
            .map(|input| {
                input
                    .node()
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
        match output.node() {
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

/// What a backward closure may do: get room for gradients and hand them on.
pub(crate) struct BackwardPass<'a> {
    id: u64,
    backend: Backend,
    pool: Arc<BufferPool>,
    profiler: Profiler,
    slots: Vec<Option<Activation>>,
    parameters: &'a mut Gradients,
}

impl BackwardPass<'_> {
    pub(crate) fn profiler(&self) -> &Profiler {
        &self.profiler
    }

    /// The kernels of the forward pass.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Scratch of the given shape; contents unspecified.
    pub(crate) fn allocate(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Activation> {
        Activation::recycled(&self.pool, shape.into(), dtype)
    }

    /// The value in memory that may be overwritten: its own where nothing else holds it, else a copy.
    pub(crate) fn overwritable(&self, value: Activation) -> Result<Activation> {
        if value.is_sole_holder() {
            return Ok(value);
        }
        let copy = self.allocate(value.tensor().shape().clone(), value.dtype())?;
        access::copy_into(copy.tensor(), value.tensor())?;
        Ok(copy)
    }

    /// The gradient to write for `slot`, and whether another consumer has already written to it (then add).
    pub(crate) fn target(&mut self, slot: &Slot) -> Result<(Tensor, bool)> {
        let index = self.index(slot)?;
        if let Some(existing) = &self.slots[index] {
            return Ok((existing.tensor().clone(), true));
        }
        let fresh = self.allocate(slot.shape.clone(), slot.dtype)?;
        let tensor = fresh.tensor().clone();
        self.slots[index] = Some(fresh);
        Ok((tensor, false))
    }

    /// Hands over a finished gradient, adding it if another consumer was first.
    pub(crate) fn give(&mut self, slot: &Slot, gradient: Activation) -> Result<()> {
        let index = self.index(slot)?;
        match &self.slots[index] {
            Some(existing) => access::add_into(&self.backend, existing.tensor(), gradient.tensor()),
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
