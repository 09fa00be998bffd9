//! cuDNN's convolutions, channels-last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr::from_ref;

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Error, Result, Tensor, bail};
use eqco_core::cuda::{address, address_mut};

use super::algorithm::{self, Kind, Product};
use super::descriptors::{Descriptors, Outcome};
use super::owned::Owned;
use super::{Libraries, Memory, locked};
use crate::cuda::CudaConfig;
use crate::cuda::candidate::first_usable;
use crate::ops::conv2d::Geometry;

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Problem {
    geometry: Geometry,
    dtype: DType,
    product: Product,
}

/// One product of one convolution, ready to be launched.
struct Plan {
    descriptors: Descriptors,
    kind: Kind,
    workspace: usize,
}

/// cuDNN with a plan for every product met so far.
pub(super) struct Convolutions {
    plans: HashMap<Problem, Plan>,
    handle: Owned<sys::cudnnHandle_t>,
    config: CudaConfig,
}

// SAFETY: cuDNN allows a handle and its descriptors to be used by any thread, one at a time; who has the value has them alone.
unsafe impl Send for Convolutions {}

impl Convolutions {
    /// cuDNN in `stream`, whose context must be the thread's.
    pub(super) fn open(stream: &CudaStream, config: CudaConfig) -> Outcome<Self> {
        let handle = Owned::new(result::create_handle()?, |raw| {
            // SAFETY: given back once. There is nobody to tell of a failure.
            let _ = unsafe { result::destroy_handle(raw) };
        });
        // SAFETY: the handle was made above, and the stream lives as long as [`Libraries`].
        unsafe { result::set_stream(handle.raw(), stream.cu_stream().cast())? };
        Ok(Self {
            plans: HashMap::new(),
            handle,
            config,
        })
    }

    fn plan(&mut self, problem: Problem) -> Result<&Plan> {
        match self.plans.entry(problem) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let plan = Plan::new(self.handle.raw(), &problem, self.config)?;
                Ok(unknown.insert(plan))
            }
        }
    }
}

impl Plan {
    fn new(handle: sys::cudnnHandle_t, problem: &Problem, config: CudaConfig) -> Result<Self> {
        let descriptors =
            Descriptors::new(&problem.geometry, problem.dtype, config.tf32).map_err(Error::wrap)?;
        let timed = !config.deterministic;
        let candidates = algorithm::candidates(handle, &descriptors, problem.product, timed)
            .map_err(Error::wrap)?;
        let usable = |deterministic| first_usable(&candidates, deterministic);
        // Without an order of their own, parts of a sum are added where the result lies, and in bf16 each rounds it: on an H200 some gradients
        // of weights were then off by 1.1 % of the largest.
        let sums_in_bf16 =
            problem.product == Product::WeightGradient && problem.dtype == DType::BF16;
        let ordered = sums_in_bf16.then(|| usable(true)).flatten();
        let Some(chosen) = ordered.or_else(|| usable(config.deterministic)) else {
            bail!(
                "cuDNN has no algorithm for {problem:?}, deterministic = {}; it offers {candidates:?}",
                config.deterministic
            )
        };
        let workspace =
            algorithm::workspace(handle, &descriptors, chosen.kind).map_err(Error::wrap)?;
        Ok(Self {
            descriptors,
            kind: chosen.kind,
            workspace,
        })
    }

    /// `x`, `w` and `y` are the addresses of input, weight and output or of their gradients; `held` is the share of the
    /// target's value that stays in the sum.
    ///
    /// # Safety
    /// They must be those of tensors of this plan's shapes and format, `room` that of memory as large as it says.
    unsafe fn launch(
        &self,
        handle: sys::cudnnHandle_t,
        [x, w, y]: [*mut c_void; 3],
        held: f32,
        room: Memory,
    ) -> Outcome<()> {
        let of = &self.descriptors;
        let convolution = of.convolution.raw();
        let (of_x, of_w, of_y) = (of.input.raw(), of.weight.raw(), of.output.raw());
        let one = 1.0f32;
        // Factors are f32 for tensors of bf16, too.
        let (one, held) = (from_ref(&one).cast(), from_ref(&held).cast());
        let (room, bytes) = (room.start, room.bytes);
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind {
                Kind::Forward(kind) => result::convolution_forward(
                    handle,
                    one,
                    of_x,
                    x,
                    of_w,
                    w,
                    convolution,
                    kind,
                    room,
                    bytes,
                    held,
                    of_y,
                    y,
                ),
                Kind::WeightGradient(kind) => result::convolution_backward_filter(
                    handle,
                    one,
                    of_x,
                    x,
                    of_y,
                    y,
                    convolution,
                    kind,
                    room,
                    bytes,
                    held,
                    of_w,
                    w,
                ),
                Kind::InputGradient(kind) => result::convolution_backward_data(
                    handle,
                    one,
                    of_w,
                    w,
                    of_y,
                    y,
                    convolution,
                    kind,
                    room,
                    bytes,
                    held,
                    of_x,
                    x,
                ),
            }
        }
    }
}

impl Libraries {
    /// output `[N,H,W,O]` = input `[N,H,W,C]` * weight `[O,k,k,C]`, all of the input's type.
    pub(crate) fn convolve(
        &self,
        geometry: &Geometry,
        input: &Tensor,
        weight: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        let addresses = [address(input)?, address(weight)?, address_mut(output)?];
        self.run(geometry, input.dtype(), Product::Forward, addresses, false)
    }

    /// target `[O,k,k,C]` (+)= gradient of the weight, of the images' type.
    pub(crate) fn weight_gradient(
        &self,
        geometry: &Geometry,
        input: &Tensor,
        gradient: &Tensor,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let product = Product::WeightGradient;
        let addresses = [address(input)?, address_mut(target)?, address(gradient)?];
        self.run(geometry, input.dtype(), product, addresses, accumulate)
    }

    /// target `[N,H,W,C]` (+)= gradient of the input.
    pub(crate) fn input_gradient(
        &self,
        geometry: &Geometry,
        gradient: &Tensor,
        weight: &Tensor,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let product = Product::InputGradient;
        let addresses = [address_mut(target)?, address(weight)?, address(gradient)?];
        self.run(geometry, gradient.dtype(), product, addresses, accumulate)
    }

    /// `addresses` are those of input, weight and output or of their gradients.
    fn run(
        &self,
        geometry: &Geometry,
        dtype: DType,
        product: Product,
        addresses: [u64; 3],
        accumulate: bool,
    ) -> Result<()> {
        self.bind()?;
        let mut convolutions = locked(&self.convolutions);
        let handle = convolutions.handle.raw();
        let plan = convolutions.plan(Problem {
            geometry: *geometry,
            dtype,
            product,
        })?;
        let addresses = addresses.map(|address| address as *mut c_void);
        let held = if accumulate { 1.0 } else { 0.0 };
        self.with_workspace(plan.workspace, |room| {
            // SAFETY: the tensors have the shapes and the type of the plan, which is made for this geometry.
            let launched = unsafe { plan.launch(handle, addresses, held, room) };
            launched.map_err(Error::wrap)
        })?
    }
}
