//! Fully connected layer: y = x·Wᵀ + b.

use std::marker::PhantomData;

use candle_core::{DType, Result, Tensor, bail};
use eqco_core::cuda::{address, address_mut};
use rayon::prelude::*;

use super::access::{read, write};
use super::lanes::split;
use super::matmul::{View, matmul};
use super::product::panels::{Order, Weights, panels_len};
use super::product::{Left, Product, Right};
use super::scratch::with_scratch;
use crate::backend::Backend;
use crate::cuda::{Matrix, across};
use crate::params::Parameter;
use crate::profile::{Phase, Work};
use crate::tape::{Activation, Tape};

/// Maps `input` `[N,I]` with `weight` `[O,I]` and `bias` `[O]` to `[N,O]`.
///
/// # Errors
/// When shapes do not fit together.
pub fn linear(
    tape: &mut Tape,
    input: &Activation,
    weight: &Parameter,
    bias: Option<&Parameter>,
) -> Result<Activation> {
    let (&[rows, inputs], &[outputs, weight_inputs]) = (input.dims(), weight.value().dims()) else {
        bail!(
            "{}: expected [N,I] and [O,I], found {:?} and {:?}",
            weight.name(),
            input.dims(),
            weight.value().dims()
        )
    };
    if inputs != weight_inputs {
        bail!(
            "{}: expected {weight_inputs} inputs, found {inputs}",
            weight.name()
        );
    }
    if let Some(bias) = bias.filter(|bias| bias.value().dims() != [outputs]) {
        bail!(
            "{}: expected shape [{outputs}], found {:?}",
            bias.name(),
            bias.value().dims()
        );
    }
    let sizes = Sizes {
        rows,
        inputs,
        outputs,
    };
    let mut output = tape.allocate((rows, outputs), DType::F32)?;
    let _span = tape.profiler().span(|| sizes.work(Phase::Forward, 1));
    sizes.evaluate(tape.backend(), input, weight, bias, &output)?;
    let (input, weight, bias) = (input.clone(), weight.clone(), bias.cloned());
    tape.record(&mut output, move |gradient, pass| {
        let products = 1 + usize::from(input.slot().is_some());
        let _span = pass
            .profiler()
            .span(|| sizes.work(Phase::Backward, products));
        let target = pass.parameter_target(&weight);
        sizes.weight_gradient(pass.backend(), &input, &gradient, target)?;
        if let Some(bias) = &bias {
            let target = pass.parameter_target(bias);
            sizes.bias_gradient(pass.backend(), &gradient, target)?;
        }
        let Some(slot) = input.slot() else {
            return Ok(());
        };
        let target = pass.target(&slot)?;
        sizes.input_gradient(pass.backend(), &gradient, &weight, target)
    });
    Ok(output)
}

/// Fewer rows leave the `gemm` crate's packing of the weights without use: it costs more than the product (measured).
const FEW_ROWS: usize = 32;

#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    /// `products` matrix products, each of which reads two of input, weight and output, or their gradients, and writes
    /// the third.
    fn work(&self, phase: Phase, products: usize) -> Work {
        let elements =
            self.rows * self.inputs + self.inputs * self.outputs + self.rows * self.outputs;
        Work::new("linear", phase)
            .moving(products * elements * size_of::<f32>())
            .computing(products * 2 * self.rows * self.inputs * self.outputs)
    }

    fn evaluate(
        &self,
        backend: &Backend,
        input: &Activation,
        weight: &Parameter,
        bias: Option<&Parameter>,
        output: &Activation,
    ) -> Result<()> {
        if let Some(libraries) = backend.libraries() {
            let (left, right) = (
                Matrix::plain(input.tensor()),
                Matrix::transposed(weight.value()),
            );
            return libraries.multiply(
                left,
                right,
                bias.map(Parameter::value),
                output.tensor(),
                false,
            );
        }
        read(input.tensor(), |x| {
            read(weight.value(), |w| {
                write(output.tensor(), |y| self.forward(x, w, y))
            })
        })???;
        let Some(bias) = bias else { return Ok(()) };
        read(bias.value(), |b| {
            write(output.tensor(), |y| {
                y.chunks_exact_mut(self.outputs).for_each(|row| add(row, b))
            })
        })?
    }

    /// The target comes with whether to add to it.
    fn weight_gradient(
        &self,
        backend: &Backend,
        input: &Activation,
        gradient: &Activation,
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        if let Some(libraries) = backend.libraries() {
            let (left, right) = (
                Matrix::transposed(gradient.tensor()),
                Matrix::plain(input.tensor()),
            );
            return libraries.multiply(left, right, None, &target, accumulate);
        }
        read(input.tensor(), |x| {
            read(gradient.tensor(), |dy| {
                write(&target, |dw| self.backward_weight(x, dy, dw, accumulate))
            })
        })??
    }

    /// The target comes with whether to add to it.
    fn bias_gradient(
        &self,
        backend: &Backend,
        gradient: &Activation,
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        if let Some(cuda) = backend.cuda() {
            let launch = across("sum_rows", self.outputs)
                .arg(address(gradient.tensor())?)
                .arg(address_mut(&target)?)
                .arg(self.rows)
                .arg(self.outputs)
                .arg(accumulate);
            // SAFETY: the arguments are those of the kernel.
            return unsafe { cuda.launch(&launch) };
        }
        read(gradient.tensor(), |dy| {
            write(&target, |db| sum_rows(dy, db, accumulate))
        })?
    }

    /// The target comes with whether to add to it.
    fn input_gradient(
        &self,
        backend: &Backend,
        gradient: &Activation,
        weight: &Parameter,
        (target, accumulate): (Tensor, bool),
    ) -> Result<()> {
        if let Some(libraries) = backend.libraries() {
            let (left, right) = (
                Matrix::plain(gradient.tensor()),
                Matrix::plain(weight.value()),
            );
            return libraries.multiply(left, right, None, &target, accumulate);
        }
        read(weight.value(), |w| {
            read(gradient.tensor(), |dy| {
                write(&target, |dx| self.backward_data(dy, w, dx, accumulate))
            })
        })??
    }

    /// Rows that one thread handles.
    fn share(&self) -> usize {
        self.rows.div_ceil(rayon::current_num_threads()).max(1)
    }

    fn forward(&self, x: &[f32], w: &[f32], y: &mut [f32]) {
        if self.rows <= FEW_ROWS {
            return self.forward_of_few(x, w, y);
        }
        let share = self.share();
        let weights = View::row_major(w, self.outputs, self.inputs).transposed();
        y.par_chunks_mut(share * self.outputs)
            .zip(x.par_chunks(share * self.inputs))
            .for_each(|(y, x)| {
                matmul(
                    y,
                    false,
                    View::row_major(x, y.len() / self.outputs, self.inputs),
                    weights,
                );
            });
    }

    /// yᵀ = W·xᵀ: the weights are read once, as they lie.
    fn forward_of_few(&self, x: &[f32], w: &[f32], y: &mut [f32]) {
        let share = self.outputs.div_ceil(rayon::current_num_threads());
        let columns = Weights {
            values: x,
            columns: self.rows,
            order: Order::Columns(self.inputs),
        };
        with_scratch(panels_len::<f32>(self.inputs, self.rows), |panels| {
            columns.pack::<f32>(panels);
            let panels = &*panels;
            with_scratch(self.outputs * self.rows, |transposed| {
                transposed
                    .par_chunks_mut(share * self.rows)
                    .zip(w.par_chunks(share * self.inputs))
                    .for_each(|(target, w)| self.multiply_few(w, panels, target));
                for (output, values) in transposed.chunks_exact(self.rows).enumerate() {
                    for (row, value) in values.iter().enumerate() {
                        y[row * self.outputs + output] = *value;
                    }
                }
            });
        });
    }

    /// `target[outputs, rows] = w[outputs, inputs] · panels`, for some of the outputs.
    fn multiply_few(&self, w: &[f32], panels: &[f32], target: &mut [f32]) {
        Product {
            rows: w.len() / self.inputs,
            inner: self.inputs,
            columns: self.rows,
            left: Left {
                words: w,
                row_stride: self.inputs,
                column_stride: 1,
            },
            right: Right::panels(panels, self.inputs),
            target,
            target_stride: self.rows,
            accumulate: false,
            factor: PhantomData::<f32>,
        }
        .run();
    }

    fn backward_data(&self, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
        let share = self.share();
        let weights = View::row_major(w, self.outputs, self.inputs);
        dx.par_chunks_mut(share * self.inputs)
            .zip(dy.par_chunks(share * self.outputs))
            .for_each(|(dx, dy)| {
                matmul(
                    dx,
                    accumulate,
                    View::row_major(dy, dx.len() / self.inputs, self.outputs),
                    weights,
                );
            });
    }

    /// Threads share the output rows of the weight, so that the sum over samples has one order whatever their number.
    fn backward_weight(&self, x: &[f32], dy: &[f32], dw: &mut [f32], accumulate: bool) {
        let x = View::row_major(x, self.rows, self.inputs);
        let mut rest = dw;
        let mut tasks = Vec::new();
        for share in split(self.outputs, rayon::current_num_threads()) {
            let (block, tail) = rest.split_at_mut(share.len() * self.inputs);
            tasks.push((share, block));
            rest = tail;
        }
        tasks.into_par_iter().for_each(|(share, dw)| {
            let columns = View::row_major(dy, self.rows, self.outputs)
                .columns(share)
                .transposed();
            matmul(dw, accumulate, columns, x);
        });
    }
}

fn add(target: &mut [f32], source: &[f32]) {
    target.iter_mut().zip(source).for_each(|(t, s)| *t += s);
}

fn sum_rows(dy: &[f32], db: &mut [f32], accumulate: bool) {
    if !accumulate {
        db.fill(0.0);
    }
    dy.chunks_exact(db.len()).for_each(|row| add(db, row));
}
