//! The portable kernels: which one runs is decided here, by the shape and by whether Winograd's transform is allowed.

mod direct;
mod patches;
mod shares;
#[cfg(target_arch = "x86_64")]
mod shifted;
#[cfg(test)]
mod tests;
mod window;
mod winograd;

use rayon::prelude::*;

use super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::ops::lanes::has_tiles;
use crate::profile::Phase;

/// What computes one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Winograd,
    #[cfg(target_arch = "x86_64")]
    Shifted,
    Direct,
    Patches,
}

impl Kernel {
    /// For the pass of a convolution of `T`.
    fn choose<T: Element>(geometry: &Geometry, winograd: bool, phase: Phase) -> Self {
        #[cfg(target_arch = "x86_64")]
        if shifted::suits::<T>(geometry)
            && (phase != Phase::WeightGradient || shifted::suits_weight_gradient(geometry))
        {
            return Self::Shifted;
        }
        let is_winograd = uses_winograd::<T>(geometry, winograd)
            && (phase != Phase::Forward || outruns_pairs::<T>(geometry));
        if is_winograd {
            return Self::Winograd;
        }
        let is_direct = match phase {
            Phase::WeightGradient => {
                direct::suits::<T>(geometry) && direct::suits_weight_gradient(geometry)
            }
            Phase::InputGradient => {
                transposed(geometry).is_some_and(|turned| direct::suits::<T>(&turned))
            }
            _ => direct::suits::<T>(geometry),
        };
        if is_direct {
            Self::Direct
        } else {
            Self::Patches
        }
    }
}

/// Whether the gradients of a convolution, and where it is quicker its forward pass, run through Winograd's transform where
/// that is allowed. Tiles multiply pairs faster than transforms save products.
pub(crate) fn uses_winograd<T: Element>(geometry: &Geometry, allowed: bool) -> bool {
    let has_tiles = T::Factor::DEPTH > 1 && has_tiles();
    allowed && !has_tiles && winograd::suits(geometry)
}

/// Winograd's forward pass multiplies f32 (see its module), against which direct sums of pairs hold on few tiles.
fn outruns_pairs<T: Element>(geometry: &Geometry) -> bool {
    T::Factor::DEPTH == 1 || winograd::outruns_pairs(geometry)
}

/// `y = conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, winograd: bool, x: &[T], w: &[f32], y: &mut [T]) {
    match Kernel::choose::<T>(geometry, winograd, Phase::Forward) {
        Kernel::Winograd => winograd::forward(geometry, x, w, y, false),
        #[cfg(target_arch = "x86_64")]
        Kernel::Shifted => shifted::forward(geometry, x, w, y, false),
        Kernel::Direct => direct::forward(geometry, x, w, y, false),
        Kernel::Patches => patches::forward(geometry, x, w, y, false),
    }
}

/// `dx (+)= ` gradient with respect to the input, from `dy` and the weights.
///
/// With stride 1 it is itself a convolution, of `dy` with the weights turned by 180°.
pub fn backward_data<T: Element>(
    geometry: &Geometry,
    winograd: bool,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
    accumulate: bool,
) {
    match Kernel::choose::<T>(geometry, winograd, Phase::InputGradient) {
        Kernel::Winograd => winograd::backward_data(geometry, dy, w, dx, accumulate),
        #[cfg(target_arch = "x86_64")]
        Kernel::Shifted => shifted::backward_data(geometry, dy, w, dx, accumulate),
        Kernel::Direct => {
            let turned = transposed(geometry).expect("chosen for such convolutions alone");
            direct::forward(&turned, dy, &turn_weights(geometry, w), dx, accumulate);
        }
        Kernel::Patches => patches::backward_data(geometry, dy, w, dx, accumulate),
    }
}

/// The convolution of the output's gradient that gives the input's, where there is one.
fn transposed(geometry: &Geometry) -> Option<Geometry> {
    let is_convolution =
        !geometry.is_pointwise() && geometry.stride == 1 && geometry.padding < geometry.kernel;
    is_convolution.then(|| Geometry {
        batch: geometry.batch,
        height: geometry.out_height(),
        width: geometry.out_width(),
        in_channels: geometry.out_channels,
        out_channels: geometry.in_channels,
        kernel: geometry.kernel,
        stride: 1,
        padding: geometry.kernel - 1 - geometry.padding,
    })
}

/// The kernel that a pass of this convolution runs through, for the profile.
pub fn kernel_name<T: Element>(geometry: &Geometry, winograd: bool, phase: Phase) -> &'static str {
    match Kernel::choose::<T>(geometry, winograd, phase) {
        Kernel::Winograd => "winograd",
        #[cfg(target_arch = "x86_64")]
        Kernel::Shifted => "shifted",
        Kernel::Direct => "direct",
        Kernel::Patches => "patches",
    }
}

/// `dw (+)= ` gradient with respect to the weights.
pub fn backward_weight<T: Element>(
    geometry: &Geometry,
    winograd: bool,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
    accumulate: bool,
) {
    match Kernel::choose::<T>(geometry, winograd, Phase::WeightGradient) {
        Kernel::Winograd => winograd::backward_weight(geometry, x, dy, dw, accumulate),
        #[cfg(target_arch = "x86_64")]
        Kernel::Shifted => shifted::backward_weight(geometry, x, dy, dw, accumulate),
        Kernel::Direct => direct::backward_weight(geometry, x, dy, dw, accumulate),
        Kernel::Patches => patches::backward_weight(geometry, x, dy, dw, accumulate),
    }
}

/// `[O,k,k,I]` to `[I,k,k,O]` with both kernel directions reversed.
fn turn_weights(geometry: &Geometry, w: &[f32]) -> Vec<f32> {
    let (inputs, outputs, taps) = (
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel * geometry.kernel,
    );
    let mut turned = vec![0.0; w.len()];
    turned
        .par_chunks_mut(taps * outputs)
        .enumerate()
        .for_each(|(input, block)| {
            for (tap, row) in block.chunks_exact_mut(outputs).enumerate() {
                let source = (taps - 1 - tap) * inputs + input;
                for (output, value) in row.iter_mut().enumerate() {
                    *value = w[output * taps * inputs + source];
                }
            }
        });
    turned
}
