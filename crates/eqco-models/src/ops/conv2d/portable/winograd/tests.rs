//! Against sums in double precision, and against themselves on other thread counts.

use super::super::tests::values;
use super::*;

/// Calls `visit` with the places of output, input and weight of every product of the convolution.
fn products(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    for (image, y, x) in (0..g.batch).flat_map(|n| {
        (0..g.out_height()).flat_map(move |y| (0..g.out_width()).map(move |x| (n, y, x)))
    }) {
        for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
            let (iy, ix) = (
                (y + ky).wrapping_sub(g.padding),
                (x + kx).wrapping_sub(g.padding),
            );
            if iy >= g.height || ix >= g.width {
                continue;
            }
            let input = ((image * g.height + iy) * g.width + ix) * g.in_channels;
            let output = ((image * g.out_height() + y) * g.out_width() + x) * g.out_channels;
            for o in 0..g.out_channels {
                let weight = (o * 9 + ky * 3 + kx) * g.in_channels;
                for i in 0..g.in_channels {
                    visit(output + o, input + i, weight + i);
                }
            }
        }
    }
}

struct Case {
    geometry: Geometry,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(
        (batch, height, width): (usize, usize, usize),
        (from, to): (usize, usize),
        padding: usize,
    ) -> Self {
        let geometry = Geometry {
            batch,
            height,
            width,
            in_channels: from,
            out_channels: to,
            kernel: 3,
            stride: 1,
            padding,
        };
        Self {
            geometry,
            x: values(batch * geometry.in_image(), 1),
            w: values(to * geometry.patch(), 2),
            dy: values(batch * geometry.out_image(), 3),
        }
    }

    /// Output, input gradient and weight gradient, each added to 0.25.
    fn expected(&self) -> [Vec<f64>; 3] {
        let mut y = vec![0.25; self.dy.len()];
        let mut dx = vec![0.25; self.x.len()];
        let mut dw = vec![0.25; self.w.len()];
        products(&self.geometry, |output, input, weight| {
            let [dy, x, w] = [self.dy[output], self.x[input], self.w[weight]].map(f64::from);
            y[output] += x * w;
            dx[input] += dy * w;
            dw[weight] += dy * x;
        });
        [y, dx, dw]
    }

    fn found(&self, accumulate: bool) -> [Vec<f32>; 3] {
        let start = if accumulate { 0.25 } else { f32::NAN };
        let mut y = vec![start; self.dy.len()];
        let mut dx = vec![start; self.x.len()];
        let mut dw = vec![start; self.w.len()];
        assert!(suits(&self.geometry));
        forward(&self.geometry, &self.x, &self.w, &mut y, accumulate);
        backward_data(&self.geometry, &self.dy, &self.w, &mut dx, accumulate);
        backward_weight(&self.geometry, &self.x, &self.dy, &mut dw, accumulate);
        [y, dx, dw]
    }
}

/// Largest difference over the largest expected value.
fn relative_error(found: &[f32], expected: &[f64], offset: f64) -> f64 {
    let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f64::from(*f) - (e - offset)).abs())
        .fold(0.0, f64::max)
        / largest
}

#[test]
fn agrees_with_double_precision_on_odd_shapes() {
    let cases = [
        Case::new((1, 1, 1), (16, 16), 1),
        Case::new((3, 5, 9), (16, 48), 1),
        Case::new((2, 13, 7), (32, 16), 0),
        Case::new((2, 3, 6), (48, 64), 2),
        Case::new((5, 8, 8), (64, 64), 1),
        // Too many channels for whole blocks: by ranges of channels, the last one not full.
        Case::new((3, 7, 6), (128, 144), 1),
        Case::new((2, 4, 4), (272, 256), 1),
    ];
    for case in cases {
        let expected = case.expected();
        for (accumulate, offset) in [(false, 0.25), (true, 0.0)] {
            for (name, (found, expected)) in ["y", "dx", "dw"]
                .into_iter()
                .zip(case.found(accumulate).iter().zip(&expected))
            {
                let error = relative_error(found, expected, offset);
                assert!(error < 6e-6, "{name} of {:?}: {error:.1e}", case.geometry);
            }
        }
    }
}

#[test]
fn outputs_do_not_depend_on_threads_and_nothing_on_repetition() {
    let case = Case::new((5, 11, 9), (32, 48), 1);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(|| case.found(false))
    };
    let [one, three] = [on(1), on(3)];
    assert_eq!(one[..2], three[..2]);
    assert_eq!(three, on(3));
}
