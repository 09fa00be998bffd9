//! Convolutions one by one: GFLOP/s of forward pass, input gradient and weight gradient, with the rate of a large
//! matrix product on the same threads beside them as the measured ceiling.
//!
//! `cargo bench -p eqco-models -- [--threads N]`

use std::hint::black_box;
use std::time::Instant;

use eqco_models::ops::conv2d::{Geometry, portable};

/// Name, batch, input channels, output channels, kernel, stride, side.
const SHAPES: [(&str, usize, usize, usize, usize, usize, usize); 12] = [
    ("3x3 3->16 at 32", 64, 3, 16, 3, 1, 32),
    ("3x3 16->16 at 32", 64, 16, 16, 3, 1, 32),
    ("3x3 32->32 at 16", 64, 32, 32, 3, 1, 16),
    ("3x3 s2 16->32 at 32", 64, 16, 32, 3, 2, 32),
    ("3x3 64->64 at 32", 64, 64, 64, 3, 1, 32),
    ("3x3 128->128 at 16", 64, 128, 128, 3, 1, 16),
    ("3x3 s2 128->128 at 16", 64, 128, 128, 3, 2, 16),
    ("3x3 256->256 at 8", 64, 256, 256, 3, 1, 8),
    ("3x3 512->512 at 4", 64, 512, 512, 3, 1, 4),
    ("1x1 256->64 at 56", 16, 256, 64, 1, 1, 56),
    ("1x1 s2 256->512 at 56", 16, 256, 512, 1, 2, 56),
    ("7x7 s2 3->64 at 224", 16, 3, 64, 7, 2, 224),
];

fn main() {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--threads")
        .skip(1);
    let threads = arguments
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .expect("the pool is built once");
    println!(
        "threads: {threads}; ceiling (1x1 1024->1024 on 1,024 rows): {:.0} GFLOP/s",
        ceiling()
    );
    println!(
        "{:24} {:>9} {:>9} {:>9}",
        "GFLOP/s", "forward", "d input", "d weight"
    );
    for (name, batch, in_channels, out_channels, kernel, stride, side) in SHAPES {
        let padding = kernel / 2;
        let geometry = Geometry {
            batch,
            height: side,
            width: side,
            in_channels,
            out_channels,
            kernel,
            stride,
            padding,
        };
        let [forward, data, weight] = rates(&geometry);
        println!("{name:24} {forward:9.1} {data:9.1} {weight:9.1}");
    }
}

fn ceiling() -> f64 {
    let (batch, channels) = (1, 1024);
    let geometry = Geometry {
        batch,
        height: 32,
        width: 32,
        in_channels: channels,
        out_channels: channels,
        kernel: 1,
        stride: 1,
        padding: 0,
    };
    rates(&geometry)[0]
}

fn rates(geometry: &Geometry) -> [f64; 3] {
    let values = |len: usize| -> Vec<f32> {
        (0..len)
            .map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5)
            .collect()
    };
    let (x, dy) = (
        values(geometry.batch * geometry.in_image()),
        values(geometry.batch * geometry.out_image()),
    );
    let w = values(geometry.out_channels * geometry.patch());
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
    let operations = 2.0 * (geometry.batch * geometry.out_image() * geometry.patch()) as f64;
    [
        operations
            / median_seconds(|| portable::forward(geometry, &x, &w, black_box(&mut y)))
            / 1e9,
        operations
            / median_seconds(|| {
                portable::backward_data(geometry, &dy, &w, black_box(&mut dx), false)
            })
            / 1e9,
        operations
            / median_seconds(|| {
                portable::backward_weight(geometry, &x, &dy, black_box(&mut dw), false)
            })
            / 1e9,
    ]
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
