//! bf16 against f32 on the same values: the arithmetic is the same, so that results are f32's, rounded once, to the bit.

use half::bf16;

use super::*;

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
    fn check(&self) {
        let geometry = Geometry {
            batch: 4,
            height: 9,
            width: 7,
            in_channels: self.channels[0],
            out_channels: self.channels[1],
            kernel: self.kernel,
            stride: self.stride,
            padding: self.kernel / 2,
        };
        let names = PHASES.map(|phase| kernel_name(&geometry, self.winograd, phase));
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
    let case = |channels, kernel, stride, names| Case {
        channels,
        kernel,
        stride,
        winograd: true,
        names,
    };
    for case in [
        case([16, 32], 3, 1, ["winograd"; 3]),
        case([128, 144], 3, 1, ["winograd"; 3]),
        case([20, 16], 3, 2, ["direct", "patches", "direct"]),
        case([16, 20], 3, 1, ["patches", "direct", "patches"]),
        case([3, 16], 7, 2, ["direct", "patches", "direct"]),
        case([20, 12], 3, 1, ["patches"; 3]),
        case([20, 48], 1, 1, ["patches"; 3]),
        case([20, 48], 1, 2, ["patches"; 3]),
    ] {
        case.check();
    }
    Case {
        winograd: false,
        ..case([64, 48], 3, 1, ["patches"; 3])
    }
    .check();
}
