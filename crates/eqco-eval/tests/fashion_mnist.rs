//! Known figures on real images: raw pixels of the embedded 10,000 + 2,000 images of Fashion-MNIST.

use eqco_data::{Split, open};
use eqco_eval::{
    EvalImages, FeaturePair, KnnConfig, LinearProbeConfig, knn, linear_probe, raw_pixels,
};

fn pixels() -> FeaturePair {
    let (train, test) = (
        open("embedded", Split::Train),
        open("embedded", Split::Test),
    );
    raw_pixels(&EvalImages::new(train.unwrap(), test.unwrap(), 28, 2).unwrap()).unwrap()
}

#[test]
fn raw_pixels_reach_the_figures_that_pytorch_finds() {
    let pixels = pixels();
    // PyTorch, the same images and definitions in f32: 81.25 with 20 neighbours, 73.55 with 200.
    // One test image is 0.05; rounding may turn a vote over once or twice.
    for (neighbours, wanted) in [(20, 81.25), (200, 73.55)] {
        let found = knn(
            &pixels,
            &KnnConfig {
                neighbours,
                temperature: 0.07,
            },
        )
        .unwrap();
        let top1 = found.accuracy.top1;
        assert!(
            (top1 - wanted).abs() < 0.11,
            "{neighbours} neighbours: {top1}, not {wanted}"
        );
    }
    // PyTorch, L-BFGS with the best of six L2 penalties on a held-out tenth: 85.15. Another random
    // tenth moves that by up to half a point.
    let config = LinearProbeConfig {
        learning_rates: vec![1.0, 10.0],
        weight_decays: vec![0.0],
        epochs: 20,
        ..LinearProbeConfig::default()
    };
    let top1 = linear_probe(&pixels, &config).unwrap().accuracy.top1;
    assert!((84.4..86.4).contains(&top1), "{top1}, not about 85.15");
}
