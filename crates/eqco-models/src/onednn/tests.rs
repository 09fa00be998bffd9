//! Against the portable kernels, on odd shapes; needs the library.

use candle_core::{Device, Tensor};
use half::bf16;

use super::*;
use crate::backend::{Backend, BackendError, BackendName};
use crate::cuda::CudaConfig;
use crate::ops::conv2d::{Geometry, portable};
use crate::ops::element::Element;
use crate::tape::{Gradients, Mode};
use crate::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
};

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

/// Whether the library has no bf16 for this CPU; then asking for it is an error that names another way.
fn without_bf16() -> bool {
    match Backend::open(
        BackendName::Onednn,
        Precision::Bf16,
        &Device::Cpu,
        CudaConfig::default(),
    ) {
        Err(BackendError::Onednn(error @ OnednnError::NoBf16 { .. })) => {
            assert!(error.to_string().contains("--backend portable"), "{error}");
            eprintln!("not tested here: {error}");
            true
        }
        _ => false,
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

/// On one thread, and on three, among which most batches do not divide evenly.
fn compare<T: crate::ops::element::Element>(tolerance: f32) {
    let Some(library) = library() else { return };
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| compare_passes::<T>(&library, tolerance));
    }
}

fn compare_passes<T: crate::ops::element::Element>(library: &Onednn, tolerance: f32) {
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
            portable::forward(&g, false, &wide_x, &w, &mut expected);
            let mut found = vec![T::ZERO; dy.len()];
            library.forward(&g, &x, &w, &mut found).unwrap();
            assert!(distance(&found, &expected) < tolerance, "forward {g:?}");

            let (mut found, mut expected) = rounded(noise(x.len(), 5));
            portable::backward_data(&g, false, &wide_dy, &w, &mut expected, accumulate);
            library
                .backward_data(&g, &dy, &w, &mut found, accumulate)
                .unwrap();
            let error = distance(&found, &expected);
            assert!(error < 2.0 * tolerance, "input gradient {g:?}: {error}");

            let mut expected = noise(w.len(), 6);
            let mut found = expected.clone();
            portable::backward_weight(&g, false, &wide_x, &wide_dy, &mut expected, accumulate);
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
    if without_bf16() {
        return;
    }
    // Half a unit of the last of 8 bits.
    compare::<bf16>(0.005);
}

#[test]
fn an_empty_batch_has_no_output_and_no_gradient() {
    let Some(library) = library() else { return };
    let g = Geometry {
        batch: 0,
        ..shapes()[1]
    };
    let w = noise(g.out_channels * g.patch(), 1);
    library.forward::<f32>(&g, &[], &w, &mut []).unwrap();
    library
        .backward_data::<f32>(&g, &[], &w, &mut [], false)
        .unwrap();
    let mut dw = w.clone();
    library
        .backward_weight::<f32>(&g, &[], &[], &mut dw, true)
        .unwrap();
    assert_eq!(dw, w);
    library
        .backward_weight::<f32>(&g, &[], &[], &mut dw, false)
        .unwrap();
    assert!(dw.iter().all(|value| *value == 0.0));
}

/// Embeddings of a whole encoder, and the gradient of its first convolution.
fn encoder_step(backend: Backend, precision: Precision) -> candle_core::Result<[Vec<f32>; 2]> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 8);
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim: 16,
    };
    let encoder = Encoder::new(&config, &head, Normalization::IMAGENET, 3, &Device::Cpu)?
        .with_backend(backend)
        .with_precision(precision);
    let pixels: Vec<u8> = (0..5 * 12 * 12 * 3)
        .map(|i| (i * 7919 % 251) as u8)
        .collect();
    let mut tape = encoder.tape(Mode::Training);
    let embedding = encoder.embed(&mut tape, &encoder.upload(&pixels, 12)?)?;
    let slopes = Tensor::arange(0f32, 80.0, &Device::Cpu)?
        .sin()?
        .reshape((5, 16))?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    tape.backward(&embedding, &slopes, &mut gradients, &[])?;
    let first = &encoder.parameters().parameters()[0];
    let gradient = gradients.get(first).expect("was reached").clone();
    let values = |tensor: Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    Ok([values(embedding.to_tensor()?)?, values(gradient)?])
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_whole_encoder_and_its_gradients_are_those_of_the_portable_family() -> candle_core::Result<()> {
    let Some(library) = library() else {
        return Ok(());
    };
    let expected = encoder_step(Backend::Portable, Precision::F32)?;
    let same = encoder_step(Backend::Onednn(Arc::clone(&library)), Precision::F32)?;
    for (found, expected) in same.iter().zip(&expected) {
        assert!(
            cosine(found, expected) > 0.9999,
            "{}",
            cosine(found, expected)
        );
    }
    if without_bf16() {
        return Ok(());
    }
    let coarse = encoder_step(Backend::Onednn(library), Precision::Bf16)?;
    // The bf16 bound of the portable test family.
    assert!(
        cosine(&coarse[0], &expected[0]) > 0.99,
        "{}",
        cosine(&coarse[0], &expected[0])
    );
    Ok(())
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
    let error = Onednn::open_file(Path::new("/nowhere/libdnnl.so.3")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/libdnnl.so.3") && text.contains("cargo xtask fetch onednn"),
        "{text}"
    );
}

#[test]
fn another_library_is_refused() {
    // The C library of this process is certainly there and certainly not oneDNN.
    let Err(error) = Onednn::open_file(Path::new("libc.so.6")) else {
        panic!("libc is not oneDNN")
    };
    assert!(error.to_string().contains("dnnl_version"), "{error}");
}

#[test]
fn a_library_that_was_cut_off_is_refused_before_the_loader_maps_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libdnnl.so.3");
    // The header of a 64-bit little-endian ELF file with 10 sections of 64 bytes from byte 1,000 on.
    let mut file = vec![0u8; 1639];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[0x28..0x30].copy_from_slice(&1000u64.to_le_bytes());
    file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&10u16.to_le_bytes());
    for (length, expected) in [
        (1639, "expected at least 1640 bytes, found 1639"),
        (63, "63 bytes are too few"),
        (0, "0 bytes are too few"),
    ] {
        std::fs::write(&path, &file[..length]).unwrap();
        let error = Onednn::open_file(&path).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("libdnnl.so.3"),
            "{error}"
        );
    }
}
