//! The portable kernels: which one runs is decided here, by the shape and by whether Winograd's transform is allowed.

mod direct;
mod patches;
#[cfg(test)]
mod tests;
mod window;
mod winograd;

use rayon::prelude::*;

use super::Geometry;
use crate::ops::element::Element;
use crate::ops::factor::Factor;
use crate::profile::Phase;

/// `y = conv(x, w)`.
pub fn forward<T: Element>(geometry: &Geometry, winograd: bool, x: &[T], w: &[f32], y: &mut [T]) {
    if uses_winograd_forward::<T>(geometry, winograd) {
        winograd::forward(geometry, x, w, y, false);
    } else if direct::suits::<T>(geometry) {
        direct::forward(geometry, x, w, y, false);
    } else {
        patches::forward(geometry, x, w, y, false);
    }
}

/// Whether a convolution, and its gradients, run through Winograd's transform where that is allowed.
pub(crate) fn uses_winograd(geometry: &Geometry, allowed: bool) -> bool {
    allowed && winograd::suits(geometry)
}

/// Winograd's forward pass multiplies f32 (see its module), against which direct sums of pairs hold on few tiles.
fn uses_winograd_forward<T: Element>(geometry: &Geometry, allowed: bool) -> bool {
    uses_winograd(geometry, allowed) && (T::Factor::DEPTH == 1 || winograd::outruns_pairs(geometry))
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
    if uses_winograd(geometry, winograd) {
        return winograd::backward_data(geometry, dy, w, dx, accumulate);
    }
    match transposed(geometry) {
        Some(turned) if direct::suits::<T>(&turned) => {
            direct::forward(&turned, dy, &turn_weights(geometry, w), dx, accumulate);
        }
        _ => patches::backward_data(geometry, dy, w, dx, accumulate),
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
    let is_winograd = match phase {
        Phase::Forward => uses_winograd_forward::<T>(geometry, winograd),
        _ => uses_winograd(geometry, winograd),
    };
    if is_winograd {
        return "winograd";
    }
    let is_direct = match phase {
        Phase::WeightGradient => uses_direct_weight_gradient::<T>(geometry),
        Phase::InputGradient => {
            transposed(geometry).is_some_and(|turned| direct::suits::<T>(&turned))
        }
        _ => direct::suits::<T>(geometry),
    };
    if is_direct { "direct" } else { "patches" }
}

fn uses_direct_weight_gradient<T: Element>(geometry: &Geometry) -> bool {
    direct::suits::<T>(geometry) && direct::suits_weight_gradient(geometry)
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
    if uses_winograd(geometry, winograd) {
        winograd::backward_weight(geometry, x, dy, dw, accumulate);
    } else if uses_direct_weight_gradient::<T>(geometry) {
        direct::backward_weight(geometry, x, dy, dw, accumulate);
    } else {
        patches::backward_weight(geometry, x, dy, dw, accumulate);
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
