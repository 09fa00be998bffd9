//! Against the portable kernels, on odd shapes; needs the library.

use half::bf16;

use super::*;
use crate::ops::conv2d::{Geometry, portable};
use crate::ops::element::Element;

/// The library, or a line that says that this test did not run.
fn library() -> Option<Arc<Onednn>> {
    match Onednn::open() {
        Ok(library) => Some(library),
        Err(error) => {
            eprintln!("not tested here: {error}");
            None
        }
    }
}

fn shapes() -> Vec<Geometry> {
    let shape = |batch, side, channels: (usize, usize), kernel, stride, padding| Geometry {
        batch,
        height: side,
        width: side + 2,
        in_channels: channels.0,
        out_channels: channels.1,
        kernel,
        stride,
        padding,
    };
    vec![
        shape(5, 9, (3, 16), 3, 1, 1),
        shape(3, 8, (16, 24), 3, 1, 1),
        shape(3, 7, (24, 17), 3, 2, 1),
        shape(4, 6, (32, 16), 1, 1, 0),
        shape(1, 6, (16, 40), 1, 2, 0),
        shape(2, 19, (3, 8), 7, 2, 3),
    ]
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    (0..len)
        .map(|i| ((i as f32 + 1.0) * 12.9898 + seed as f32 * 78.233).sin())
        .collect()
}

/// Largest difference over the largest value.
fn distance<T: Element>(found: &[T], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0f32, |m, (f, e)| m.max((f.load() - e).abs())) / largest
}

fn compare<T: super::convolution::Storage>(tolerance: f32) {
    let Some(library) = library() else { return };
    for g in shapes() {
        let rounded = |values: Vec<f32>| -> (Vec<T>, Vec<f32>) {
            let stored: Vec<T> = values.into_iter().map(T::store).collect();
            let widened = stored.iter().map(|v| v.load()).collect();
            (stored, widened)
        };
        let (x, wide_x) = rounded(noise(g.batch * g.in_image(), 1));
        let (dy, wide_dy) = rounded(noise(g.batch * g.out_image(), 2));
        let w = rounded(noise(g.out_channels * g.patch(), 3)).1;
        for accumulate in [false, true] {
            let mut expected = noise(wide_dy.len(), 4);
            portable::forward(&g, &wide_x, &w, &mut expected);
            let mut found = vec![T::ZERO; dy.len()];
            library.forward(&g, &x, &w, &mut found).unwrap();
            assert!(distance(&found, &expected) < tolerance, "forward {g:?}");

            let (mut found, mut expected) = rounded(noise(x.len(), 5));
            portable::backward_data(&g, &wide_dy, &w, &mut expected, accumulate);
            library
                .backward_data(&g, &dy, &w, &mut found, accumulate)
                .unwrap();
            let error = distance(&found, &expected);
            assert!(error < 2.0 * tolerance, "input gradient {g:?}: {error}");

            let mut expected = noise(w.len(), 6);
            let mut found = expected.clone();
            portable::backward_weight(&g, &wide_x, &wide_dy, &mut expected, accumulate);
            library
                .backward_weight(&g, &x, &dy, &mut found, accumulate)
                .unwrap();
            let error = distance(&found, &expected);
            // Sums are f32 in either format of images.
            assert!(error < 1e-5, "weight gradient {g:?}: {error}");
        }
    }
}

#[test]
fn f32_passes_are_those_of_the_portable_kernels() {
    compare::<f32>(3e-6);
}

#[test]
fn bf16_passes_round_once() {
    // Half a unit of the last of 8 bits.
    compare::<bf16>(0.005);
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let Some(library) = library() else { return };
    let g = shapes()[1];
    let (x, dy) = (
        noise(g.batch * g.in_image(), 1),
        noise(g.batch * g.out_image(), 2),
    );
    let gradient = || {
        let mut dw = vec![0f32; g.out_channels * g.patch()];
        library
            .backward_weight(&g, &x, &dy, &mut dw, false)
            .unwrap();
        dw.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(gradient(), gradient());
}

#[test]
fn a_missing_library_is_an_error_with_the_command_that_mends_it() {
    let error = Onednn::open_first(&[PathBuf::from("/nowhere/libdnnl.so.3")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/libdnnl.so.3") && text.contains("cargo xtask fetch onednn"),
        "{text}"
    );
}

#[test]
fn another_library_is_refused() {
    // The C library of this process is certainly there and certainly not oneDNN.
    let Err(error) = Onednn::open_first(&[PathBuf::from("libc.so.6")]) else {
        panic!("libc is not oneDNN")
    };
    assert!(error.to_string().contains("dnnl_version"), "{error}");
}
