//! The probe as a whole: what it solves, what it must not look at, what it refuses.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::Origin;

fn uniform(stream: &mut ChaCha8Rng) -> f32 {
    stream.next_u32() as f32 / 2f32.powi(31) - 1.0
}

fn features(split: &str, values: Vec<f32>, labels: Vec<u32>, classes: u32) -> Features {
    let origin = Origin::new("toy", split, "by hand");
    let dim = values.len() / labels.len();
    Features::new(origin, values, dim, labels, classes as usize).unwrap()
}

/// Uniform values in ±1 with labels that have nothing to do with them.
pub(super) fn random_features(
    split: &str,
    rows: usize,
    dim: usize,
    classes: u32,
    seed: u64,
) -> Features {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..rows * dim).map(|_| uniform(&mut stream)).collect();
    features(
        split,
        values,
        (0..rows as u32).map(|row| row % classes).collect(),
        classes,
    )
}

/// Four classes around four corners of a cube: separable, with noise below half the distance.
fn corners(split: &str, rows: u32, seed: u64) -> Features {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    let corners = [
        [1.0, 1.0, 1.0],
        [1.0, -1.0, -1.0],
        [-1.0, 1.0, -1.0],
        [-1.0, -1.0, 1.0],
    ];
    let labels: Vec<u32> = (0..rows).map(|row| row % 4).collect();
    let values = labels.iter().flat_map(|&label| {
        corners[label as usize].map(|corner| 5.0 + 100.0 * (corner + 0.6 * uniform(&mut stream)))
    });
    features(split, values.collect(), labels.clone(), 4)
}

fn corner_pair() -> FeaturePair {
    FeaturePair::new(corners("train", 200, 1), corners("test", 80, 2)).unwrap()
}

#[test]
fn a_separable_problem_is_solved() {
    let result = linear_probe(&corner_pair(), &LinearProbeConfig::default()).unwrap();
    assert_eq!(result.accuracy.top1, 100.0);
    assert_eq!(result.accuracy.per_class_top1, [Some(100.0); 4]);
    assert_eq!(result.train_top1, 100.0);
    assert_eq!(result.held_out_count, 20);
    let largest = result
        .grid
        .iter()
        .map(|score| score.held_out_top1)
        .fold(0.0, f64::max);
    let chosen = result
        .grid
        .iter()
        .find(|score| score.point == result.chosen)
        .unwrap();
    assert_eq!(chosen.held_out_top1, largest);
}

#[test]
fn labels_without_any_meaning_give_chance() {
    let train = random_features("train", 400, 4, 4, 5);
    let pair = FeaturePair::new(train, random_features("test", 400, 4, 4, 6)).unwrap();
    let top1 = linear_probe(&pair, &LinearProbeConfig::default())
        .unwrap()
        .accuracy
        .top1;
    // 25 % with a deviation of 2.2 %.
    assert!((18.0..32.0).contains(&top1), "{top1}");
}

#[test]
fn the_test_part_takes_no_part_in_the_choice() {
    let config = LinearProbeConfig {
        epochs: 3,
        ..Default::default()
    };
    let pair = corner_pair();
    let labels = pair
        .test()
        .labels()
        .iter()
        .map(|label| (label + 1) % 4)
        .collect();
    let wrong = features("test", pair.test().values().to_vec(), labels, 4);
    let wrong = FeaturePair::new(pair.train().clone(), wrong).unwrap();
    let (a, b) = (
        linear_probe(&pair, &config).unwrap(),
        linear_probe(&wrong, &config).unwrap(),
    );
    assert_eq!(
        (a.chosen, &a.grid, a.train_top1),
        (b.chosen, &b.grid, b.train_top1)
    );
    assert!(a.accuracy.top1 > 90.0 && b.accuracy.top1 < 10.0);
}

#[test]
fn the_number_of_threads_does_not_matter_and_the_seed_does() {
    let train = random_features("train", 300, 70, 3, 7);
    let pair = FeaturePair::new(train, random_features("test", 100, 70, 3, 8)).unwrap();
    let on = |threads: usize, seed: u64| {
        let config = LinearProbeConfig {
            epochs: 4,
            seed,
            ..Default::default()
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| linear_probe(&pair, &config).unwrap())
    };
    assert_eq!(on(1, 0), on(3, 0), "to the last bit of every loss");
    assert_ne!(on(1, 0).grid, on(1, 1).grid);
}

#[test]
fn ties_of_accuracy_are_broken_by_the_loss() {
    let score = |learning_rate, held_out_top1, held_out_loss| GridScore {
        point: GridPoint {
            learning_rate,
            weight_decay: 0.0,
        },
        held_out_top1,
        held_out_loss,
    };
    let grid = [
        score(0.1, 90.0, Some(0.1)),
        score(1.0, 91.0, Some(0.5)),
        score(2.0, 91.0, Some(0.4)),
        score(3.0, 91.0, Some(0.4)),
        score(9.0, 99.0, None),
    ];
    assert_eq!(best(&grid).unwrap().point.learning_rate, 2.0);
    assert!(best(&grid[4..]).is_none());
}

#[test]
fn divergence_is_an_error_with_a_hint() {
    // Above the largest f32: the first step leaves its range.
    let config = LinearProbeConfig {
        learning_rates: vec![1e39, 1e40],
        ..Default::default()
    };
    let train = random_features("train", 300, 7, 3, 9);
    let pair = FeaturePair::new(train.clone(), train).unwrap();
    let error = linear_probe(&pair, &config).unwrap_err();
    assert!(matches!(error, EvalError::Diverged { .. }), "{error}");
    assert!(error.hint().unwrap().contains("lower"));
}

#[test]
fn settings_out_of_range_are_refused() {
    let default = LinearProbeConfig::default;
    let cases = [
        (
            "learning_rates",
            LinearProbeConfig {
                learning_rates: vec![],
                ..default()
            },
        ),
        (
            "learning_rates",
            LinearProbeConfig {
                learning_rates: vec![0.1, 0.0],
                ..default()
            },
        ),
        (
            "weight_decays",
            LinearProbeConfig {
                weight_decays: vec![-0.1],
                ..default()
            },
        ),
        (
            "sgd_momentum",
            LinearProbeConfig {
                sgd_momentum: 1.0,
                ..default()
            },
        ),
        (
            "batch_size",
            LinearProbeConfig {
                batch_size: 0,
                ..default()
            },
        ),
        (
            "epochs",
            LinearProbeConfig {
                epochs: 0,
                ..default()
            },
        ),
        (
            "held_out_share",
            LinearProbeConfig {
                held_out_share: 0.0,
                ..default()
            },
        ),
        (
            "held_out_share",
            LinearProbeConfig {
                held_out_share: f64::NAN,
                ..default()
            },
        ),
    ];
    for (name, config) in cases {
        match linear_probe(&corner_pair(), &config).unwrap_err() {
            EvalError::InvalidSetting { setting, .. } => assert_eq!(setting, name),
            other => panic!("{name}: {other}"),
        }
    }
    let single = features("train", vec![0.0, 1.0], vec![0, 1], 2);
    let pair = FeaturePair::new(single.clone(), single).unwrap();
    let message = linear_probe(&pair, &default()).unwrap_err().to_string();
    assert!(
        message.contains("a class with at least two training images"),
        "{message}"
    );
}

#[test]
fn the_result_is_its_own_protocol() {
    let config = LinearProbeConfig {
        epochs: 2,
        seed: 11,
        ..Default::default()
    };
    let result = linear_probe(&corner_pair(), &config).unwrap();
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(
        json["protocol"]["config"],
        serde_json::to_value(&config).unwrap()
    );
    assert_eq!(json["protocol"]["config"]["seed"], 11);
    assert_eq!(json["protocol"]["test"]["count"], 80);
    assert_eq!(json["grid"].as_array().unwrap().len(), config.grid().len());
    assert_eq!(json["grid"][0]["learning_rate"], config.learning_rates[0]);
    assert_eq!(
        serde_json::from_value::<LinearProbeResult>(json).unwrap(),
        result
    );
    let unknown = serde_json::json!({"epochs": 3, "epoch": 3});
    let message = serde_json::from_value::<LinearProbeConfig>(unknown)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`epoch`"), "{message}");
}
