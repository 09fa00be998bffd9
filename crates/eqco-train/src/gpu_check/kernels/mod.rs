//! Every kernel against its portable form: random odd shapes, forward and backward, in memory that was NaN.
//!
//! A [`KernelCheck`] computes some results where it is told to; [`KernelCheck::run`] has them computed on the CPU by the portable
//! family and on a device, and [`compare`] says how far they are apart.

mod batch_norm;
mod conv2d;
mod cross_entropy;
mod key_queue;
mod linear;
mod loss;
mod momentum_encoder;
mod optimizers;
mod parameters;
mod pass;
mod pools;
mod relu;
mod upload;
mod views;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use eqco_models::backend::Backend;

use super::distance::{distance, is_beyond};

/// Kernels by what they compute; each has its own checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Convolutions of all sizes of ResNets.
    Conv2d,
    /// Batch norm, with ReLU, residual and groups.
    BatchNorm,
    /// Max and global average pooling.
    Pools,
    /// ReLU on its own.
    Relu,
    /// Linear layers, and rows divided by their length.
    Linear,
    /// Bytes to normalised images.
    Upload,
    /// Views from decoded images.
    Views,
    /// A classifier's loss.
    CrossEntropy,
    /// SGD, Nesterov's momentum, LARS and AdamW.
    Optimizers,
    /// The momentum encoder's update.
    MomentumEncoder,
    /// MoCo's queue.
    KeyQueue,
    /// The contrastive loss with every layout of negatives.
    Loss,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Conv2d,
        Self::BatchNorm,
        Self::Pools,
        Self::Relu,
        Self::Linear,
        Self::Upload,
        Self::Views,
        Self::CrossEntropy,
        Self::Optimizers,
        Self::MomentumEncoder,
        Self::KeyQueue,
        Self::Loss,
    ];

    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv2d => "conv2d",
            Self::BatchNorm => "batch_norm",
            Self::Pools => "pools",
            Self::Relu => "relu",
            Self::Linear => "linear",
            Self::Upload => "upload",
            Self::Views => "views",
            Self::CrossEntropy => "cross_entropy",
            Self::Optimizers => "optimizers",
            Self::MomentumEncoder => "momentum_encoder",
            Self::KeyQueue => "key_queue",
            Self::Loss => "loss",
        }
    }

    /// The checks of this kernel on shapes that follow from `seed`, of about `most` values a tensor at most.
    pub fn checks(self, seed: u64, most: usize) -> Vec<KernelCheck> {
        match self {
            Self::Conv2d => conv2d::checks(seed, most),
            Self::BatchNorm => batch_norm::checks(seed, most),
            Self::Pools => pools::checks(seed, most),
            Self::Relu => relu::checks(seed, most),
            Self::Linear => linear::checks(seed, most),
            Self::Upload => upload::checks(seed, most),
            Self::Views => views::checks(seed, most),
            Self::CrossEntropy => cross_entropy::checks(seed),
            Self::Optimizers => optimizers::checks(seed),
            Self::MomentumEncoder => momentum_encoder::checks(seed),
            Self::KeyQueue => key_queue::checks(seed),
            Self::Loss => loss::checks(seed),
        }
    }
}

/// Where something is computed, and by which family.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where tensors lie.
    pub device: &'a Device,
    /// What computes.
    pub backend: &'a Backend,
}

/// One result of a kernel.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// What it is.
    pub name: String,
    /// On the CPU.
    pub value: Tensor,
    /// How far it may be from the CPU's, see [`distance`].
    pub bound: f64,
}

type Compute = dyn Fn(Place<'_>) -> Result<Vec<Quantity>>;

/// One kernel on one shape.
pub struct KernelCheck {
    /// Kernel, shape and type.
    pub name: String,
    compute: Box<Compute>,
}

impl std::fmt::Debug for KernelCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelCheck")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl KernelCheck {
    fn new(name: String, compute: impl Fn(Place<'_>) -> Result<Vec<Quantity>> + 'static) -> Self {
        Self {
            name,
            compute: Box::new(compute),
        }
    }

    /// Computes at `place`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn compute(&self, place: Place<'_>) -> Result<Vec<Quantity>> {
        (self.compute)(place)
    }

    /// Computes on the CPU and at `place`, and compares.
    ///
    /// # Errors
    /// When either cannot compute, or they do not give the same quantities.
    pub fn run(&self, place: Place<'_>) -> Result<Comparison> {
        let portable = Place {
            device: &Device::Cpu,
            backend: &Backend::Portable,
        };
        let expected = self.compute(portable).context("on the CPU")?;
        compare(&expected, &self.compute(place)?)
    }
}

/// How far the results of a kernel are from those of its portable form.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The quantity that is furthest, in units of its bound.
    pub quantity: String,
    /// Its distance.
    pub distance: f64,
    /// How far it may be.
    pub bound: f64,
}

impl Comparison {
    /// Whether all quantities are within their bounds.
    pub fn passed(&self) -> bool {
        !is_beyond(self.distance, self.bound)
    }

    /// The distance in units of the bound: what must be equal and is not is infinitely far.
    pub fn ratio(&self) -> f64 {
        if self.distance == 0.0 {
            0.0
        } else {
            self.distance / self.bound
        }
    }
}

/// Compares quantities with those expected, whose bounds count.
///
/// # Errors
/// When they are not the same quantities in the same order, or have other shapes.
pub fn compare(expected: &[Quantity], found: &[Quantity]) -> Result<Comparison> {
    let names = |quantities: &[Quantity]| -> Vec<String> {
        quantities.iter().map(|q| q.name.clone()).collect()
    };
    ensure!(!expected.is_empty(), "nothing was computed");
    ensure!(
        names(expected) == names(found),
        "expected {:?}, found {:?}",
        names(expected),
        names(found)
    );
    let mut furthest: Option<Comparison> = None;
    for (expected, found) in expected.iter().zip(found) {
        let comparison = Comparison {
            quantity: expected.name.clone(),
            distance: distance(&expected.value, &found.value, 0.0)
                .with_context(|| expected.name.clone())?,
            bound: expected.bound,
        };
        let so_far = furthest.as_ref().map_or(-1.0, Comparison::ratio);
        if is_beyond(comparison.ratio(), so_far) && !so_far.is_nan() {
            furthest = Some(comparison);
        }
    }
    furthest.context("nothing was computed")
}

/// Both formats of activations, with how far results may be: see `in_f32` and `in_bf16` of the caller.
fn formats(in_f32: f64, in_bf16: f64) -> [(DType, f64); 2] {
    [(DType::F32, in_f32), (DType::BF16, in_bf16)]
}

/// bf16 has 8 digits: values next to each other differ by up to 2^-7 of themselves, and results may round to either side where
/// sums differ in their last digit.
const ONE_ROUNDING_OF_BF16: f64 = 1e-2;
/// Sums of up to some thousand products in f32, which has 6e-8, in another order.
const SUMS_IN_F32: f64 = 1e-5;
