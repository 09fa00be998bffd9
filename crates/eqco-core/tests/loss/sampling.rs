//! The draw of in-batch negatives.

use std::collections::HashSet;

use eqco_core::{DrawKind, LossError, NegativeDraw};

const KINDS: [DrawKind; 2] = [DrawKind::PerQuery, DrawKind::SharedColumns];

fn sample(kind: DrawKind, batch_size: usize, count: usize, step: u64) -> NegativeDraw {
    NegativeDraw::sample(kind, batch_size, count, 17, step).expect("a possible draw")
}

#[test]
fn never_the_own_key_and_never_a_key_twice() {
    for kind in KINDS {
        for (batch_size, count) in [(2, 1), (3, 2), (8, 7), (64, 16), (256, 255)] {
            for step in 0..20 {
                let draw = sample(kind, batch_size, count, step);
                assert_eq!(draw.indices().len(), batch_size * count);
                for query in 0..batch_size {
                    let keys: HashSet<u32> = draw.of_query(query).iter().copied().collect();
                    assert_eq!(keys.len(), count, "{kind:?}: a key twice");
                    assert!(!keys.contains(&(query as u32)), "{kind:?}: the own key");
                    assert!(keys.iter().all(|&key| (key as usize) < batch_size));
                }
            }
        }
    }
}

/// The draw of each of 16 keys, for each of 17 queries, over 4,000 steps.
///
/// Without replacement, `(n - 1) / (n - K) * sum (observed - expected)^2 / expected` follows chi-square
/// with `n - 1` degrees of freedom for a query with `n` candidates; the sum over 17 independent
/// queries has 255. Its 0.1 % and 99.9 % points
/// are 190.9 and 330.5.
#[test]
fn every_key_is_equally_likely_for_every_query() {
    let (batch_size, count, steps) = (17, 4, 4000);
    let mut seen = vec![[0u32; 17]; batch_size];
    for step in 0..steps {
        let draw = sample(DrawKind::PerQuery, batch_size, count, step);
        for (query, counts) in seen.iter_mut().enumerate() {
            draw.of_query(query)
                .iter()
                .for_each(|&key| counts[key as usize] += 1);
        }
    }
    let candidates = batch_size as f64 - 1.0;
    let expected = steps as f64 * count as f64 / candidates;
    let mut squares = 0.0;
    for (query, counts) in seen.iter().enumerate() {
        for (_, &observed) in counts.iter().enumerate().filter(|&(key, _)| key != query) {
            squares += (f64::from(observed) - expected).powi(2) / expected;
        }
    }
    let statistic = squares * (candidates - 1.0) / (candidates - count as f64);
    assert!(
        (190.9..330.5).contains(&statistic),
        "chi-square {statistic}, 255 degrees of freedom"
    );
}

/// All 10 pairs of the 5 candidates of a query, over 5,000 steps and all 6 queries: chi-square with 54
/// degrees of freedom, whose 0.1 % and 99.9 % points are 27.5 and 91.9.
#[test]
fn every_pair_of_keys_is_equally_likely() {
    let (batch_size, steps) = (6, 5000);
    let mut seen = [[[0u32; 6]; 6]; 6];
    for step in 0..steps {
        let draw = sample(DrawKind::PerQuery, batch_size, 2, step);
        for (query, table) in seen.iter_mut().enumerate() {
            let &[a, b] = draw.of_query(query) else {
                panic!("two negatives")
            };
            table[a.min(b) as usize][a.max(b) as usize] += 1;
        }
    }
    let expected = steps as f64 / 10.0;
    let mut statistic = 0.0;
    for (query, table) in seen.iter().enumerate() {
        for a in (0..6).filter(|&a| a != query) {
            for b in (a + 1..6).filter(|&b| b != query) {
                statistic += (f64::from(table[a][b]) - expected).powi(2) / expected;
            }
        }
    }
    assert!(
        (27.5..91.9).contains(&statistic),
        "chi-square {statistic}, 54 degrees of freedom"
    );
}

/// Columns of the shared draw, over 4,000 steps: 15 degrees of freedom, 0.1 % and 99.9 % points
/// 3.5 and 37.7.
#[test]
fn shared_columns_are_uniform_and_step_over_the_own_key() {
    let (batch_size, count, steps) = (17, 4, 4000);
    let mut seen = [0u32; 16];
    for step in 0..steps {
        let draw = sample(DrawKind::SharedColumns, batch_size, count, step);
        // Query 0 steps over key 0, so column c is key c + 1.
        let columns: Vec<u32> = draw.of_query(0).iter().map(|key| key - 1).collect();
        columns.iter().for_each(|&c| seen[c as usize] += 1);
        for query in 0..batch_size as u32 {
            let expected: Vec<u32> = columns.iter().map(|&c| c + u32::from(c >= query)).collect();
            assert_eq!(draw.of_query(query as usize), expected);
        }
    }
    let expected = f64::from(steps as u32) * count as f64 / 16.0;
    let squares: f64 = seen
        .iter()
        .map(|&o| (f64::from(o) - expected).powi(2) / expected)
        .sum();
    let statistic = squares * 15.0 / 12.0;
    assert!(
        (3.5..37.7).contains(&statistic),
        "chi-square {statistic}, 15 degrees of freedom"
    );
}

#[test]
fn the_draw_depends_on_seed_and_step_alone() {
    for kind in KINDS {
        let draw = |seed, step| NegativeDraw::sample(kind, 32, 8, seed, step).expect("possible");
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
    }
    // A change of the stream would make stored runs impossible to resume.
    assert_eq!(sample(DrawKind::PerQuery, 6, 2, 0).indices(), PINNED);
}

const PINNED: [u32; 12] = [4, 5, 2, 4, 1, 4, 1, 4, 5, 1, 1, 4];

#[test]
fn too_many_negatives_name_the_largest_possible_number() {
    for kind in KINDS {
        let error = NegativeDraw::sample(kind, 32, 32, 0, 0).expect_err("one too many");
        assert!(matches!(
            error,
            LossError::TooManyNegatives { largest: 31, .. }
        ));
        assert!(
            error.to_string().contains("largest possible number is 31"),
            "{error}"
        );
        for batch_size in [0, 1] {
            let error = NegativeDraw::sample(kind, batch_size, 1, 0, 0).expect_err("no others");
            assert!(matches!(
                error,
                LossError::TooManyNegatives { largest: 0, .. }
            ));
        }
        let none = NegativeDraw::sample(kind, 32, 0, 0, 0);
        assert!(matches!(none, Err(LossError::NoNegatives)));
        let endless = NegativeDraw::sample(kind, usize::MAX, usize::MAX - 1, 0, 0);
        assert!(matches!(endless, Err(LossError::Draw { .. })));
    }
}

#[test]
fn given_indices_are_checked() {
    assert_eq!(
        NegativeDraw::from_indices(3, 2, vec![1, 2, 0, 2, 0, 1]).expect("all others"),
        NegativeDraw::all_others(3).expect("all others")
    );
    for (indices, word) in [
        (vec![1, 2, 0, 2, 0], "got 5"),
        (vec![0, 2, 0, 2, 0, 1], "query 0"),
        (vec![1, 2, 0, 2, 0, 3], "got key 3"),
    ] {
        let error = NegativeDraw::from_indices(3, 2, indices).expect_err("a wrong list");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(NegativeDraw::all_others(1).is_err() && NegativeDraw::all_others(0).is_err());
}
