//! Convolutions: shares of the batch on the threads of our pool, weights reordered once a call, weight gradients summed
//! over the shares in their order, so that the same number of threads gives the same bits.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::api;
use super::primitive::{Decision, Descriptor, Engine, Operand, Primitive};
use super::{Onednn, OnednnError};
use crate::ops::conv2d::Geometry;
use crate::ops::element::Element;
use crate::ops::scratch::with_scratch;

/// Elements that oneDNN computes with.
pub(crate) trait Storage: Element {
    /// `dnnl_data_type_t`.
    const CODE: c_int;
}

impl Storage for f32 {
    const CODE: c_int = api::F32;
}

impl Storage for half::bf16 {
    const CODE: c_int = api::BF16;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// What a plan is made for: one share of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    share: Geometry,
    pass: Pass,
    element: c_int,
}

/// A convolution on one share, with the reorder between our weights `[O,k,k,I]` in f32 and its own.
pub(super) struct Plan {
    convolution: Primitive,
    input: Descriptor,
    output: Descriptor,
    /// The weights, or their gradient, as the convolution likes them.
    weights: Descriptor,
    /// As a parameter holds them.
    parameter: Descriptor,
    reorder: Primitive,
}

impl Plan {
    fn new(engine: &Engine, key: Key) -> Result<Self, OnednnError> {
        let g = key.share;
        let images = |height, width, channels| {
            let dims = [g.batch, channels, height, width];
            let strides = [height * width * channels, 1, width * channels, channels];
            Descriptor::new(engine, dims, Some(strides), key.element)
        };
        let input = images(g.height, g.width, g.in_channels)?;
        let output = images(g.out_height(), g.out_width(), g.out_channels)?;
        let dims = [g.out_channels, g.in_channels, g.kernel, g.kernel];
        let strides = [g.patch(), 1, g.kernel * g.in_channels, g.in_channels];
        let parameter = Descriptor::new(engine, dims, Some(strides), api::F32)?;
        let decision = decide(engine, key, &input, &output)?;
        let (weights, reorder) = if key.pass == Pass::WeightGradient {
            let weights = decision.descriptor(api::QUERY_WEIGHT_GRADIENT)?;
            let reorder = reorder(engine, &weights, &parameter)?;
            (weights, reorder)
        } else {
            let weights = decision.descriptor(api::QUERY_WEIGHTS)?;
            let reorder = reorder(engine, &parameter, &weights)?;
            (weights, reorder)
        };
        Ok(Self {
            convolution: decision.primitive()?,
            input,
            output,
            weights,
            parameter,
            reorder,
        })
    }

    /// Elements of f32 that hold the weights in the convolution's layout.
    fn weights_len(&self) -> usize {
        self.weights.bytes().div_ceil(size_of::<f32>())
    }

    fn operand<'a>(index: c_int, descriptor: &'a Descriptor, data: *const c_void) -> Operand<'a> {
        Operand {
            index,
            descriptor,
            data: data.cast_mut(),
        }
    }
}

fn reorder(engine: &Engine, from: &Descriptor, to: &Descriptor) -> Result<Primitive, OnednnError> {
    let cpu = engine.handle();
    let create = |place, attributes| {
        // SAFETY: live handles.
        unsafe {
            (engine.api().reorder_create)(place, from.handle(), cpu, to.handle(), cpu, attributes)
        }
    };
    Decision::new(engine, "dnnl_reorder_primitive_desc_create", create)?.primitive()
}

/// Chooses the implementation of a pass, with the weights in the layout that it likes.
fn decide(
    engine: &Engine,
    key: Key,
    input: &Descriptor,
    output: &Descriptor,
) -> Result<Decision, OnednnError> {
    let (api, g) = (engine.api(), key.share);
    let dims = [g.out_channels, g.in_channels, g.kernel, g.kernel];
    let pair = |value: usize| [value as i64, value as i64];
    let (strides, dilation, before) = (pair(g.stride), pair(0), pair(g.padding));
    // Rows and columns that the stride leaves over are not padded.
    let after = |side: usize, out: usize| {
        ((out - 1) * g.stride + g.kernel) as i64 - (side + g.padding) as i64
    };
    let after = [
        after(g.height, g.out_height()),
        after(g.width, g.out_width()),
    ];
    let any = Descriptor::new(engine, dims, None, key.element)?;
    let none = std::ptr::null_mut();
    let forward = Decision::new(engine, "a forward convolution", |place, attributes| {
        // SAFETY: live handles, and arrays of two for two spatial dimensions.
        unsafe {
            (api.forward_create)(
                place,
                engine.handle(),
                api::FORWARD_TRAINING,
                api::CONVOLUTION_DIRECT,
                input.handle(),
                any.handle(),
                none,
                output.handle(),
                strides.as_ptr(),
                dilation.as_ptr(),
                before.as_ptr(),
                after.as_ptr(),
                attributes,
            )
        }
    })?;
    match key.pass {
        Pass::Forward => Ok(forward),
        Pass::InputGradient => {
            Decision::new(
                engine,
                "a convolution's input gradient",
                |place, attributes| {
                    // SAFETY: as above.
                    unsafe {
                        (api.backward_data_create)(
                            place,
                            engine.handle(),
                            api::CONVOLUTION_DIRECT,
                            input.handle(),
                            any.handle(),
                            output.handle(),
                            strides.as_ptr(),
                            dilation.as_ptr(),
                            before.as_ptr(),
                            after.as_ptr(),
                            forward.handle(),
                            attributes,
                        )
                    }
                },
            )
        }
        Pass::WeightGradient => {
            // In f32 also behind bf16 images: the sum over the batch is rounded nowhere.
            let any = Descriptor::new(engine, dims, None, api::F32)?;
            Decision::new(
                engine,
                "a convolution's weight gradient",
                |place, attributes| {
                    // SAFETY: as above.
                    unsafe {
                        (api.backward_weights_create)(
                            place,
                            engine.handle(),
                            api::CONVOLUTION_DIRECT,
                            input.handle(),
                            any.handle(),
                            none,
                            output.handle(),
                            strides.as_ptr(),
                            dilation.as_ptr(),
                            before.as_ptr(),
                            after.as_ptr(),
                            forward.handle(),
                            attributes,
                        )
                    }
                },
            )
        }
    }
}

impl Onednn {
    fn plan<T: Storage>(&self, share: Geometry, pass: Pass) -> Result<Arc<Plan>, OnednnError> {
        let element = T::CODE;
        let key = Key {
            share,
            pass,
            element,
        };
        // A panic while the map is held leaves whole entries.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&key) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::new(&self.engine, key)?);
        plans.insert(key, Arc::clone(&plan));
        Ok(plan)
    }

    /// `y = conv(x, w)`.
    pub(crate) fn forward<T: Storage>(
        &self,
        geometry: &Geometry,
        x: &[T],
        w: &[f32],
        y: &mut [T],
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, x.len(), w.len(), y.len());
        self.with_weights::<T>(geometry, Pass::Forward, w, |weights| {
            let shares = shares(geometry);
            let xs = split(x, &shares, geometry.in_image());
            let ys = split_mut(y, &shares, geometry.out_image());
            xs.into_par_iter().zip(ys).try_for_each(|(x, y)| {
                let share = with_batch(geometry, x.len() / geometry.in_image());
                let plan = self.plan::<T>(share, Pass::Forward)?;
                let operands = [
                    Plan::operand(api::SOURCE, &plan.input, x.as_ptr().cast()),
                    Plan::operand(api::WEIGHTS, &plan.weights, weights.as_ptr().cast()),
                    Plan::operand(api::DESTINATION, &plan.output, y.as_mut_ptr().cast()),
                ];
                with_scratch(plan.convolution.scratch_len(), |scratch| {
                    // SAFETY: lengths were checked against the geometry; only `y` is written.
                    unsafe { plan.convolution.execute(&operands, scratch) }
                })
            })
        })
    }

    /// `dx (+)= ` gradient with respect to the input.
    pub(crate) fn backward_data<T: Storage>(
        &self,
        geometry: &Geometry,
        dy: &[T],
        w: &[f32],
        dx: &mut [T],
        accumulate: bool,
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, dx.len(), w.len(), dy.len());
        self.with_weights::<T>(geometry, Pass::InputGradient, w, |weights| {
            let shares = shares(geometry);
            let dys = split(dy, &shares, geometry.out_image());
            let dxs = split_mut(dx, &shares, geometry.in_image());
            dys.into_par_iter().zip(dxs).try_for_each(|(dy, dx)| {
                let share = with_batch(geometry, dy.len() / geometry.out_image());
                let plan = self.plan::<T>(share, Pass::InputGradient)?;
                let run = |target: *mut c_void| {
                    let operands = [
                        Plan::operand(api::DESTINATION_GRADIENT, &plan.output, dy.as_ptr().cast()),
                        Plan::operand(api::WEIGHTS, &plan.weights, weights.as_ptr().cast()),
                        Plan::operand(api::SOURCE_GRADIENT, &plan.input, target),
                    ];
                    with_scratch(plan.convolution.scratch_len(), |scratch| {
                        // SAFETY: lengths were checked; `target` has the length of `dx`.
                        unsafe { plan.convolution.execute(&operands, scratch) }
                    })
                };
                if !accumulate {
                    return run(dx.as_mut_ptr().cast());
                }
                // The library only overwrites.
                let len = size_of_val::<[T]>(dx).div_ceil(size_of::<f32>());
                with_scratch(len, |fresh| {
                    run(fresh.as_mut_ptr().cast())?;
                    // SAFETY: `fresh` holds as many elements of T as `dx`, written above, at an alignment of 4.
                    let fresh =
                        unsafe { std::slice::from_raw_parts(fresh.as_ptr().cast::<T>(), dx.len()) };
                    add(dx, fresh);
                    Ok(())
                })
            })
        })
    }

    /// `dw (+)= ` gradient with respect to the weights.
    pub(crate) fn backward_weight<T: Storage>(
        &self,
        geometry: &Geometry,
        x: &[T],
        dy: &[T],
        dw: &mut [f32],
        accumulate: bool,
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, x.len(), dw.len(), dy.len());
        let shares = shares(geometry);
        let len = dw.len();
        let xs = split(x, &shares, geometry.in_image());
        let dys = split(dy, &shares, geometry.out_image());
        // Every share's gradient in the parameter's layout: layouts of shares of different sizes may differ.
        with_scratch(len * shares.len(), |partials| {
            xs.into_par_iter()
                .zip(dys)
                .zip(partials.par_chunks_mut(len))
                .try_for_each(|((x, dy), partial)| {
                    let share = with_batch(geometry, x.len() / geometry.in_image());
                    let plan = self.plan::<T>(share, Pass::WeightGradient)?;
                    weight_gradient(&plan, x, dy, partial)
                })?;
            let partials: Vec<&[f32]> = partials.chunks_exact(len).collect();
            sum_partials(&partials, dw, accumulate);
            Ok(())
        })
    }

    /// Calls `f` with the weights as the pass's primitives like them.
    fn with_weights<T: Storage>(
        &self,
        geometry: &Geometry,
        pass: Pass,
        w: &[f32],
        f: impl FnOnce(&[f32]) -> Result<(), OnednnError>,
    ) -> Result<(), OnednnError> {
        let plan = self.plan::<T>(with_batch(geometry, shares(geometry)[0]), pass)?;
        with_scratch(plan.weights_len(), |weights| {
            let operands = [
                Plan::operand(api::SOURCE, &plan.parameter, w.as_ptr().cast()),
                Plan::operand(api::DESTINATION, &plan.weights, weights.as_mut_ptr().cast()),
            ];
            with_scratch(plan.reorder.scratch_len(), |scratch| {
                // SAFETY: `w` and `weights` have the lengths that the descriptors say.
                unsafe { plan.reorder.execute(&operands, scratch) }
            })?;
            f(weights)
        })
    }
}

fn weight_gradient<T: Storage>(
    plan: &Plan,
    x: &[T],
    dy: &[T],
    partial: &mut [f32],
) -> Result<(), OnednnError> {
    with_scratch(plan.weights_len(), |gradient| {
        let operands = [
            Plan::operand(api::SOURCE, &plan.input, x.as_ptr().cast()),
            Plan::operand(api::DESTINATION_GRADIENT, &plan.output, dy.as_ptr().cast()),
            Plan::operand(
                api::WEIGHT_GRADIENT,
                &plan.weights,
                gradient.as_mut_ptr().cast(),
            ),
        ];
        with_scratch(plan.convolution.scratch_len(), |scratch| {
            // SAFETY: lengths were checked; only `gradient` is written.
            unsafe { plan.convolution.execute(&operands, scratch) }
        })?;
        let operands = [
            Plan::operand(api::SOURCE, &plan.weights, gradient.as_ptr().cast()),
            Plan::operand(
                api::DESTINATION,
                &plan.parameter,
                partial.as_mut_ptr().cast(),
            ),
        ];
        with_scratch(plan.reorder.scratch_len(), |scratch| {
            // SAFETY: `partial` has the parameter's length.
            unsafe { plan.reorder.execute(&operands, scratch) }
        })
    })
}

/// Images of each task: one task a thread, sizes differ by one at most.
fn shares(geometry: &Geometry) -> Vec<usize> {
    let tasks = rayon::current_num_threads().clamp(1, geometry.batch.max(1));
    (0..tasks)
        .map(|task| (geometry.batch * (task + 1)) / tasks - (geometry.batch * task) / tasks)
        .collect()
}

fn with_batch(geometry: &Geometry, batch: usize) -> Geometry {
    Geometry { batch, ..*geometry }
}

fn split<'a, T>(mut values: &'a [T], shares: &[usize], image: usize) -> Vec<&'a [T]> {
    let mut parts = Vec::with_capacity(shares.len());
    for share in shares {
        let (part, rest) = values.split_at(share * image);
        parts.push(part);
        values = rest;
    }
    parts
}

fn split_mut<'a, T>(mut values: &'a mut [T], shares: &[usize], image: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(shares.len());
    for share in shares {
        let (part, rest) = values.split_at_mut(share * image);
        parts.push(part);
        values = rest;
    }
    parts
}

fn add<T: Element>(target: &mut [T], values: &[T]) {
    crate::ops::lanes::vectorized(
        #[inline(always)]
        || {
            for (t, v) in target.iter_mut().zip(values) {
                *t = T::store(t.load() + v.load());
            }
        },
    );
}

fn sum_partials(partials: &[&[f32]], dw: &mut [f32], accumulate: bool) {
    const TASK: usize = 1 << 14;
    dw.par_chunks_mut(TASK).enumerate().for_each(|(task, dw)| {
        let range = task * TASK..task * TASK + dw.len();
        let (first, rest) = partials.split_first().expect("at least one share");
        if accumulate {
            add(dw, &first[range.clone()]);
        } else {
            dw.copy_from_slice(&first[range.clone()]);
        }
        rest.iter()
            .for_each(|partial| add(dw, &partial[range.clone()]));
    });
}

fn check_lengths(geometry: &Geometry, input: usize, weights: usize, output: usize) {
    assert_eq!(input, geometry.batch * geometry.in_image(), "input");
    assert_eq!(output, geometry.batch * geometry.out_image(), "output");
    assert_eq!(weights, geometry.out_channels * geometry.patch(), "weights");
}
