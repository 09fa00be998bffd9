//! Convolutions: shares of the batch on the threads of our pool, weights reordered once a call, weight gradients summed
//! over the shares in their order, so that the same number of threads gives the same bits.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, PoisonError};

use candle_core::DType;
use rayon::prelude::*;

use super::api;
use super::primitive::{Decision, Descriptor, Engine, Operand, Primitive};
use super::{Onednn, OnednnError};
use crate::ops::conv2d::Geometry;
use crate::ops::element::Element;
use crate::ops::scratch::with_scratch;

/// `dnnl_data_type_t` of elements.
fn code<T: Element>() -> c_int {
    match T::DTYPE {
        DType::BF16 => api::BF16,
        _ => api::F32,
    }
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

    /// Calls `f` with the parameter `w` in the convolution's layout.
    fn with_weights<R>(
        &self,
        w: &[f32],
        f: impl FnOnce(&[f32]) -> Result<R, OnednnError>,
    ) -> Result<R, OnednnError> {
        with_scratch(self.weights_len(), |weights| {
            let operands = [
                Self::operand(api::SOURCE, &self.parameter, w.as_ptr().cast()),
                Self::operand(api::DESTINATION, &self.weights, weights.as_mut_ptr().cast()),
            ];
            with_scratch(self.reorder.scratch_len(), |scratch| {
                // SAFETY: `w` and `weights` have the lengths that the descriptors say.
                unsafe { self.reorder.execute(&operands, scratch) }
            })?;
            f(weights)
        })
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
    let (strides, dilation, padding) = (pair(g.stride), pair(0), pair(g.padding));
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
                padding.as_ptr(),
                padding.as_ptr(),
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
                            padding.as_ptr(),
                            padding.as_ptr(),
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
                            padding.as_ptr(),
                            padding.as_ptr(),
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
    fn plan<T: Element>(&self, share: Geometry, pass: Pass) -> Result<Arc<Plan>, OnednnError> {
        let element = code::<T>();
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
    pub(crate) fn forward<T: Element>(
        &self,
        geometry: &Geometry,
        x: &[T],
        w: &[f32],
        y: &mut [T],
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, x.len(), w.len(), y.len());
        if geometry.batch == 0 {
            return Ok(());
        }
        let shares = Shares::of(geometry);
        self.with_weights::<T>(&shares, Pass::Forward, w, |weights| {
            x.par_chunks(shares.images * geometry.in_image())
                .zip(y.par_chunks_mut(shares.images * geometry.out_image()))
                .try_for_each(|(x, y)| {
                    let (plan, weights) = weights.of(x.len() / geometry.in_image());
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
    pub(crate) fn backward_data<T: Element>(
        &self,
        geometry: &Geometry,
        dy: &[T],
        w: &[f32],
        dx: &mut [T],
        accumulate: bool,
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, dx.len(), w.len(), dy.len());
        if geometry.batch == 0 {
            return Ok(());
        }
        let shares = Shares::of(geometry);
        self.with_weights::<T>(&shares, Pass::InputGradient, w, |weights| {
            dy.par_chunks(shares.images * geometry.out_image())
                .zip(dx.par_chunks_mut(shares.images * geometry.in_image()))
                .try_for_each(|(dy, dx)| {
                    let (plan, weights) = weights.of(dy.len() / geometry.out_image());
                    input_gradient(plan, dy, weights, dx, accumulate)
                })
        })
    }

    /// `dw (+)= ` gradient with respect to the weights.
    pub(crate) fn backward_weight<T: Element>(
        &self,
        geometry: &Geometry,
        x: &[T],
        dy: &[T],
        dw: &mut [f32],
        accumulate: bool,
    ) -> Result<(), OnednnError> {
        check_lengths(geometry, x.len(), dw.len(), dy.len());
        if geometry.batch == 0 {
            if !accumulate {
                dw.fill(0.0);
            }
            return Ok(());
        }
        let shares = Shares::of(geometry);
        let [whole, last] = self.plans::<T>(&shares, Pass::WeightGradient)?;
        let len = dw.len();
        // Every share's gradient in the parameter's layout: those of shares of two sizes may differ.
        with_scratch(len * shares.count(), |partials| {
            x.par_chunks(shares.images * geometry.in_image())
                .zip(dy.par_chunks(shares.images * geometry.out_image()))
                .zip(partials.par_chunks_mut(len))
                .try_for_each(|((x, dy), partial)| {
                    let is_whole = x.len() == shares.images * geometry.in_image();
                    weight_gradient(if is_whole { &whole } else { &last }, x, dy, partial)
                })?;
            let partials: Vec<&[f32]> = partials.chunks_exact(len).collect();
            sum_partials(&partials, dw, accumulate);
            Ok(())
        })
    }

    /// The plans of whole shares and of the last one.
    fn plans<T: Element>(
        &self,
        shares: &Shares,
        pass: Pass,
    ) -> Result<[Arc<Plan>; 2], OnednnError> {
        let whole = self.plan::<T>(shares.geometry(shares.images), pass)?;
        let last = self.plan::<T>(shares.geometry(shares.last()), pass)?;
        Ok([whole, last])
    }

    /// Calls `f` with the weights as the pass's primitives like them.
    fn with_weights<T: Element>(
        &self,
        shares: &Shares,
        pass: Pass,
        w: &[f32],
        f: impl FnOnce(&Weights<'_>) -> Result<(), OnednnError>,
    ) -> Result<(), OnednnError> {
        let [whole, last] = self.plans::<T>(shares, pass)?;
        let whole_images = shares.images;
        whole.with_weights(w, |whole_weights| {
            let whole = (&*whole, whole_weights);
            if shares.last() == shares.images {
                let last = whole;
                return f(&Weights {
                    whole,
                    last,
                    whole_images,
                });
            }
            // oneDNN may like another layout for another number of images.
            last.with_weights(w, |last_weights| {
                let last = (&*last, last_weights);
                f(&Weights {
                    whole,
                    last,
                    whole_images,
                })
            })
        })
    }
}

/// How the batch is divided: one task a thread, all but the last of the same number of images.
struct Shares {
    geometry: Geometry,
    images: usize,
}

impl Shares {
    fn of(geometry: &Geometry) -> Self {
        Self {
            geometry: *geometry,
            images: geometry.batch.div_ceil(rayon::current_num_threads()),
        }
    }

    fn count(&self) -> usize {
        self.geometry.batch.div_ceil(self.images)
    }

    /// Images of the last share.
    fn last(&self) -> usize {
        self.geometry.batch - (self.count() - 1) * self.images
    }

    fn geometry(&self, images: usize) -> Geometry {
        Geometry {
            batch: images,
            ..self.geometry
        }
    }
}

/// Plans with weights in their layout.
struct Weights<'a> {
    whole: (&'a Plan, &'a [f32]),
    last: (&'a Plan, &'a [f32]),
    whole_images: usize,
}

impl<'a> Weights<'a> {
    fn of(&self, images: usize) -> (&'a Plan, &'a [f32]) {
        if images == self.whole_images {
            self.whole
        } else {
            self.last
        }
    }
}

fn input_gradient<T: Element>(
    plan: &Plan,
    dy: &[T],
    weights: &[f32],
    dx: &mut [T],
    accumulate: bool,
) -> Result<(), OnednnError> {
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
    with_scratch(size_of_val::<[T]>(dx).div_ceil(size_of::<f32>()), |fresh| {
        run(fresh.as_mut_ptr().cast())?;
        // SAFETY: `fresh` holds as many elements of T as `dx`, written above, and is aligned to 64 bytes.
        let fresh = unsafe { std::slice::from_raw_parts(fresh.as_ptr().cast::<T>(), dx.len()) };
        add(dx, fresh);
        Ok(())
    })
}

fn weight_gradient<T: Element>(
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

/// The caller has checked shapes; what is unsafe here rests on them, so once more.
fn check_lengths(geometry: &Geometry, input: usize, weights: usize, output: usize) {
    assert_eq!(input, geometry.batch * geometry.in_image(), "input");
    assert_eq!(output, geometry.batch * geometry.out_image(), "output");
    assert_eq!(weights, geometry.out_channels * geometry.patch(), "weights");
}
