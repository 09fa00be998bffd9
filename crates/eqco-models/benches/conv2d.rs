//! Convolutions one by one: GFLOP/s of forward pass, input gradient and weight gradient, beside the peak of this machine's
//! multiply-add units, measured on the same threads. Operations are those of the direct sum, so that Winograd's transform
//! may pass the peak.
//!
//! `cargo bench -p eqco-models -- [--threads N] [--only PART_OF_A_NAME]`

mod command_line;

use std::hint::black_box;
use std::time::Instant;

use candle_core::DType;
use eqco_models::ops::conv2d::{Geometry, portable};
use eqco_models::ops::element::{Element, ElementVisitor, visit_element};
use eqco_models::profile::Phase;
use pulp::{Arch, Simd, WithSimd};

/// Name, batch, input channels, output channels, kernel, stride, side.
const SHAPES: [(&str, usize, usize, usize, usize, usize, usize); 28] = [
    ("3x3 3->16 at 32", 64, 3, 16, 3, 1, 32),
    ("3x3 16->16 at 32", 64, 16, 16, 3, 1, 32),
    ("3x3 32->32 at 16", 64, 32, 32, 3, 1, 16),
    ("3x3 s2 16->32 at 32", 64, 16, 32, 3, 2, 32),
    ("1x1 s2 16->32 at 32", 64, 16, 32, 1, 2, 32),
    ("3x3 64->64 at 32", 64, 64, 64, 3, 1, 32),
    ("3x3 128->128 at 16", 64, 128, 128, 3, 1, 16),
    ("3x3 64->64 at 8", 64, 64, 64, 3, 1, 8),
    ("3x3 128->128 at 4", 64, 128, 128, 3, 1, 4),
    ("3x3 s2 32->64 at 16", 64, 32, 64, 3, 2, 16),
    ("3x3 s2 64->128 at 8", 64, 64, 128, 3, 2, 8),
    ("3x3 s2 128->128 at 16", 64, 128, 128, 3, 2, 16),
    ("3x3 256->256 at 8", 64, 256, 256, 3, 1, 8),
    ("3x3 512->512 at 4", 64, 512, 512, 3, 1, 4),
    ("3x3 64->64 at 56, 8", 8, 64, 64, 3, 1, 56),
    ("3x3 128->128 at 28, 8", 8, 128, 128, 3, 1, 28),
    ("3x3 256->256 at 14, 8", 8, 256, 256, 3, 1, 14),
    ("3x3 512->512 at 7, 8", 8, 512, 512, 3, 1, 7),
    ("1x1 64->256 at 56, 8", 8, 64, 256, 1, 1, 56),
    ("1x1 256->64 at 56, 8", 8, 256, 64, 1, 1, 56),
    ("1x1 128->512 at 28, 8", 8, 128, 512, 1, 1, 28),
    ("1x1 512->128 at 28, 8", 8, 512, 128, 1, 1, 28),
    ("1x1 256->1024 at 14, 8", 8, 256, 1024, 1, 1, 14),
    ("1x1 1024->256 at 14, 8", 8, 1024, 256, 1, 1, 14),
    ("1x1 512->2048 at 7, 8", 8, 512, 2048, 1, 1, 7),
    ("1x1 2048->512 at 7, 8", 8, 2048, 512, 1, 1, 7),
    ("1x1 s2 256->512 at 56", 16, 256, 512, 1, 2, 56),
    ("7x7 s2 3->64 at 224", 16, 3, 64, 7, 2, 224),
];

fn main() {
    let only = command_line::read();
    println!("peak of f32 multiply-adds: {:.0} GFLOP/s", peak());
    println!(
        "{:22} {:9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "GFLOP/s", "kernel", "f32 fwd", "d input", "d weight", "bf16 fwd", "d input", "d weight"
    );
    for (name, batch, in_channels, out_channels, kernel, stride, side) in SHAPES {
        if !name.contains(&only) {
            continue;
        }
        let geometry = Geometry {
            batch,
            height: side,
            width: side,
            in_channels,
            out_channels,
            kernel,
            stride,
            padding: kernel / 2,
        };
        line(name, &geometry, true);
        if portable::kernel_name::<f32>(&geometry, true, Phase::Forward) == "winograd" {
            line(name, &geometry, false);
        }
    }
}

/// One line of the table, with or without Winograd's transform.
fn line(name: &str, geometry: &Geometry, winograd: bool) {
    let kernel = portable::kernel_name::<f32>(geometry, winograd, Phase::Forward);
    print!("{name:22} {kernel:9}");
    for dtype in [DType::F32, DType::BF16] {
        let passes = Passes { geometry, winograd };
        for rate in visit_element(dtype, passes).expect("f32 and bf16 are elements") {
            print!(" {rate:9.0}");
        }
    }
    println!();
}

/// GFLOP/s of the three passes of a convolution.
struct Passes<'a> {
    geometry: &'a Geometry,
    winograd: bool,
}

impl ElementVisitor for Passes<'_> {
    type Output = [f64; 3];

    fn visit<T: Element>(self) -> [f64; 3] {
        rates::<T>(self.geometry, self.winograd)
    }
}

fn rates<T: Element>(geometry: &Geometry, winograd: bool) -> [f64; 3] {
    let values = |len: usize| (0..len).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5);
    let elements = |len: usize| -> Vec<T> { values(len).map(T::store).collect() };
    let x = elements(geometry.batch * geometry.in_image());
    let dy = elements(geometry.batch * geometry.out_image());
    let w: Vec<f32> = values(geometry.out_channels * geometry.patch()).collect();
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
    let operations = 2.0 * (geometry.batch * geometry.out_image() * geometry.patch()) as f64;
    [
        median_seconds(|| portable::forward(geometry, winograd, &x, &w, black_box(&mut y))),
        median_seconds(|| {
            portable::backward_data(geometry, winograd, &dy, &w, black_box(&mut dx), false);
        }),
        median_seconds(|| {
            portable::backward_weight(geometry, winograd, &x, &dy, black_box(&mut dw), false);
        }),
    ]
    .map(|seconds| operations / seconds / 1e9)
}

fn median_seconds(mut run: impl FnMut()) -> f64 {
    run();
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

/// GFLOP/s of multiply-adds that touch registers alone, all threads together.
fn peak() -> f64 {
    const STEPS: usize = 20_000_000;
    let started = Instant::now();
    let operations: Vec<usize> =
        rayon::broadcast(|_| Arch::new().dispatch(MultiplyAdds { steps: STEPS }));
    operations.into_iter().sum::<usize>() as f64 / started.elapsed().as_secs_f64() / 1e9
}

struct MultiplyAdds {
    steps: usize,
}

impl WithSimd for MultiplyAdds {
    type Output = usize;

    /// Returns the operations that it did.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        /// Independent sums: more than two units with a latency of four steps each can keep busy.
        const SUMS: usize = 12;
        let factor = black_box(simd.splat_f32s(0.999));
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, factor);
            }
        }
        black_box(sums);
        2 * self.steps * SUMS * S::F32_LANES
    }
}
