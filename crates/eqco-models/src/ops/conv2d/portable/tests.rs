//! bf16 against f32, and narrow vector units against the widest, on the same values.

use half::bf16;

use super::*;
use crate::ops::lanes::{narrower_units, with_units};

/// Values in [−1, 1) that look random.
pub(super) fn values(len: usize, salt: u64) -> Vec<f32> {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|value| bf16::from_f32(*value)).collect()
}

fn widen(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

/// One convolution on a batch of four maps of 9x7 pixels, and the kernels of its three passes.
struct Case {
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    winograd: bool,
    names: [&'static str; 3],
}

const PHASES: [Phase; 3] = [Phase::Forward, Phase::InputGradient, Phase::WeightGradient];

impl Case {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, names: [&'static str; 3]) -> Self {
        Self {
            channels,
            kernel,
            stride,
            winograd: true,
            names,
        }
    }

    /// One of every kernel, for each pass that it has.
    fn all() -> [Self; 10] {
        let direct = Self {
            winograd: false,
            ..Self::new([64, 48], 3, 1, ["patches"; 3])
        };
        [
            Self::new([16, 32], 3, 1, ["winograd"; 3]),
            Self::new([128, 144], 3, 1, ["winograd"; 3]),
            Self::new([20, 16], 3, 2, ["direct", "patches", "direct"]),
            Self::new([16, 20], 3, 1, ["patches", "direct", "patches"]),
            Self::new([3, 16], 7, 2, ["direct", "patches", "direct"]),
            Self::new([20, 12], 3, 1, ["patches"; 3]),
            Self::new([48, 16], 5, 1, ["patches", "direct", "patches"]),
            Self::new([20, 48], 1, 1, ["patches"; 3]),
            Self::new([20, 48], 1, 2, ["patches"; 3]),
            direct,
        ]
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            batch: 4,
            height: 9,
            width: 7,
            in_channels: self.channels[0],
            out_channels: self.channels[1],
            kernel: self.kernel,
            stride: self.stride,
            padding: self.kernel / 2,
        }
    }

    /// Output, input gradient and weight gradient in f32.
    fn passes(&self) -> [Vec<f32>; 3] {
        let geometry = self.geometry();
        let x = values(4 * geometry.in_image(), 1);
        let w = values(self.channels[1] * geometry.patch(), 2);
        let dy = values(4 * geometry.out_image(), 3);
        let [mut y, mut dx, mut dw] = [&dy, &x, &w].map(|v| vec![f32::NAN; v.len()]);
        forward(&geometry, self.winograd, &x, &w, &mut y);
        backward_data(&geometry, self.winograd, &dy, &w, &mut dx, false);
        backward_weight(&geometry, self.winograd, &x, &dy, &mut dw, false);
        [y, dx, dw]
    }

    /// The arithmetic is the same: results are f32's, rounded once, to the bit.
    fn assert_bf16_is_rounded_f32(&self) {
        let geometry = self.geometry();
        let names = PHASES.map(|phase| kernel_name::<f32>(&geometry, self.winograd, phase));
        assert_eq!(names, self.names, "{geometry:?}");
        let x = narrow(&values(4 * geometry.in_image(), 1));
        let w = values(self.channels[1] * geometry.patch(), 2);
        let dy = narrow(&values(4 * geometry.out_image(), 3));

        let (mut y, mut exact) = (vec![bf16::NAN; dy.len()], vec![f32::NAN; dy.len()]);
        forward(&geometry, self.winograd, &x, &w, &mut y);
        forward(&geometry, self.winograd, &widen(&x), &w, &mut exact);
        assert_eq!(y, narrow(&exact), "{geometry:?}");

        let mut dx_exact = vec![f32::NAN; x.len()];
        backward_data(
            &geometry,
            self.winograd,
            &widen(&dy),
            &w,
            &mut dx_exact,
            false,
        );
        for accumulate in [false, true] {
            let start = if accumulate { 0.25 } else { f32::NAN };
            let mut dx = vec![bf16::from_f32(start); x.len()];
            backward_data(&geometry, self.winograd, &dy, &w, &mut dx, accumulate);
            let offset = if accumulate { start } else { 0.0 };
            let expected: Vec<f32> = dx_exact.iter().map(|value| value + offset).collect();
            assert_eq!(dx, narrow(&expected), "{geometry:?}");

            let (mut dw, mut dw_exact) = (vec![start; w.len()], vec![start; w.len()]);
            backward_weight(&geometry, self.winograd, &x, &dy, &mut dw, accumulate);
            backward_weight(
                &geometry,
                self.winograd,
                &widen(&x),
                &widen(&dy),
                &mut dw_exact,
                accumulate,
            );
            assert_eq!(dw, dw_exact, "{geometry:?}");
        }
    }
}

#[test]
fn bf16_results_are_those_of_f32_rounded_once() {
    for case in Case::all() {
        case.assert_bf16_is_rounded_f32();
    }
}

#[test]
fn every_vector_unit_agrees_with_the_widest() {
    for case in Case::all() {
        let expected = case.passes();
        for units in narrower_units() {
            let found = with_units(units, || case.passes());
            for (found, expected) in found.iter().zip(&expected) {
                let largest = expected.iter().fold(0.0, |m: f32, e| m.max(e.abs()));
                let differences = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
                let error = differences.fold(0.0, f32::max) / largest;
                assert!(found.iter().all(|value| value.is_finite()), "{units:?}");
                // Twice the bound of Winograd's error.
                assert!(
                    error < 1.2e-5,
                    "{units:?}, {:?}: {error:.1e}",
                    case.geometry()
                );
            }
        }
    }
}

/// Root of the mean square of differences over that of the expected values.
#[cfg(target_arch = "x86_64")]
fn relative_deviation(found: &[f32], expected: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum()
    };
    let differences = squares(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    (differences / squares(&mut expected.iter().copied())).sqrt()
}

/// Products of pairs take weights that are rounded to bf16, and Winograd's gradients take transformed tiles that are.
#[cfg(target_arch = "x86_64")]
#[test]
fn native_bf16_stays_within_its_bounds_of_f32() {
    use crate::ops::lanes::bf16_units;

    let units = bf16_units();
    if units.is_empty() {
        return println!("this CPU has no AVX512-BF16: nothing was tested");
    }
    for units in units {
        with_units(units, assert_native_bf16_is_near_f32);
    }
}

#[cfg(target_arch = "x86_64")]
fn assert_native_bf16_is_near_f32() {
    use crate::ops::native_bf16::NativeBf16;

    let native = |values: &[f32]| values.iter().map(|v| NativeBf16::store(*v)).collect();
    let load = |values: &[NativeBf16]| values.iter().map(|v| v.load()).collect::<Vec<f32>>();
    for case in Case::all() {
        let geometry = case.geometry();
        let x: Vec<NativeBf16> = native(&values(4 * geometry.in_image(), 1));
        let w = values(case.channels[1] * geometry.patch(), 2);
        let dy: Vec<NativeBf16> = native(&values(4 * geometry.out_image(), 3));
        let winograd = uses_winograd::<NativeBf16>(&geometry, case.winograd);
        for accumulate in [false, true] {
            let start = if accumulate { 0.25 } else { f32::NAN };
            let (mut y, mut y_exact) = (dy.clone(), load(&dy));
            forward(&geometry, case.winograd, &x, &w, &mut y);
            forward(&geometry, case.winograd, &load(&x), &w, &mut y_exact);

            let (mut dx, mut dx_exact) = (x.clone(), vec![start; x.len()]);
            dx.fill(NativeBf16::store(start));
            backward_data(&geometry, case.winograd, &dy, &w, &mut dx, accumulate);
            let wide = load(&dy);
            backward_data(
                &geometry,
                case.winograd,
                &wide,
                &w,
                &mut dx_exact,
                accumulate,
            );

            let (mut dw, mut dw_exact) = (vec![start; w.len()], vec![start; w.len()]);
            backward_weight(&geometry, case.winograd, &x, &dy, &mut dw, accumulate);
            let (wide_x, wide_dy) = (load(&x), load(&dy));
            backward_weight(
                &geometry,
                case.winograd,
                &wide_x,
                &wide_dy,
                &mut dw_exact,
                accumulate,
            );

            let errors = [
                relative_deviation(&load(&y), &y_exact),
                relative_deviation(&load(&dx), &dx_exact),
                relative_deviation(&dw, &dw_exact),
            ];
            // Two roundings, of weights and of the result; Winograd's gradients round transformed tiles and weights.
            let gradient = if winograd { 0.013 } else { 0.0025 };
            let bounds = [0.0025, gradient, gradient];
            for (error, bound) in errors.into_iter().zip(bounds) {
                assert!(
                    error < bound,
                    "{geometry:?}: {errors:.5?} beyond {bounds:?}"
                );
            }
            assert!(errors[0] > 1e-4, "bf16 was not exercised");
        }
    }
    let names = Case::all().map(|case| {
        PHASES.map(|phase| kernel_name::<NativeBf16>(&case.geometry(), case.winograd, phase))
    });
    let expected = if has_tiles() { "shifted" } else { "winograd" };
    assert_eq!(names[0][1..], [expected; 2], "of gradients");
}
