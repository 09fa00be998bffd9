//! Several processes, here threads with a pool of their own, train as one would that goes through the batch in their parts.

use std::collections::HashMap;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use candle_core::{DType, Tensor};
use eqco_core::BatchStatistics;
use eqco_data::loader::Loader;
use eqco_data::recipe::Recipe;
use eqco_data::{Split, limited, open};
use eqco_models::ProcessGroup;
use eqco_models::group::Rendezvous;
use eqco_train::config::{Resolved, TrainConfig, read_assignment};
use eqco_train::step::Trainer;

const BATCH: usize = 24;
const STEPS: usize = 5;

/// What a rank ends with.
struct End {
    /// The whole state, by name: encoder, momentum encoder, queue, optimiser.
    state: HashMap<String, Tensor>,
    statistics: Vec<BatchStatistics>,
}

fn config(settings: &[&str]) -> TrainConfig {
    let small = [
        "data.source=synthetic",
        "data.recipe.image_size=16",
        "encoder.width=4",
        "projection_head.embedding_dim=16",
        // Small steps: where a ReLU's input is nearly 0, a rounding decides, and large ones make more and more of it.
        "schedule.base_learning_rate=1e-4",
        "schedule.warmup_epochs=0",
        "method.negative_count=5",
    ];
    let batch = format!("data.loader.batch_size={BATCH}");
    let settings = small
        .iter()
        .chain(settings)
        .copied()
        .chain([batch.as_str()]);
    let settings = settings
        .map(|text| read_assignment(text).unwrap())
        .collect();
    Resolved::new("demo", None, settings).unwrap().config
}

fn loader(config: &TrainConfig, (rank, size): (usize, usize)) -> Result<Loader> {
    let recipe = Recipe::new(config.data.recipe.clone())?;
    let data = limited(open("synthetic", Split::Train)?, STEPS * BATCH);
    let settings = eqco_data::loader::LoaderConfig {
        workers: 1,
        ..config.data.loader.clone()
    };
    let loader = Loader::new(data, vec![recipe.clone(), recipe], settings)?;
    Ok(loader.for_part(rank, size)?)
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The steps of one rank, on one thread.
fn train(config: &TrainConfig, group: ProcessGroup) -> Result<End> {
    let place = (group.rank(), group.size());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        let mut trainer = Trainer::new(config, STEPS as u64)?.in_group(group)?;
        let mut statistics = Vec::new();
        for batch in loader(config, place)?.epoch(0, 0) {
            let own = trainer.step(&batch?)?.statistics.wait()?;
            statistics.push(trainer.group().statistics(&own)?);
        }
        assert_eq!(statistics.len(), STEPS);
        let state = trainer.to_checkpoint(0, "test")?.tensors;
        Ok(End {
            state: state.into_iter().collect(),
            statistics,
        })
    })
}

/// The steps of all of `size` ranks.
fn train_together(config: &TrainConfig, size: usize) -> Vec<End> {
    let port = port();
    let rendezvous = |rank| Rendezvous {
        rank,
        size,
        host: "127.0.0.1".into(),
        port,
        wait: Duration::from_secs(60),
        patience: Duration::from_secs(60),
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let place = rendezvous(rank);
                scope.spawn(move || train(config, ProcessGroup::join(&place).unwrap()).unwrap())
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference of two tensors over the largest value of the first.
fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    let (expected, found) = (values(expected), values(found));
    let largest = expected
        .iter()
        .fold(1e-3, |most: f64, value| most.max(value.abs()));
    let pairs = expected.iter().zip(&found);
    pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

fn figures(statistics: &BatchStatistics) -> [f64; 6] {
    [
        statistics.loss,
        statistics.gradient_scale,
        statistics.gradient_scale_deviation,
        statistics.positive_similarity,
        statistics.negative_similarity,
        statistics.guaranteed_bound,
    ]
}

/// Trains with `shared` on `ranks` ranks and with `single` in one process, and compares everything.
fn compare(ranks: usize, shared: &[&str], single: &[&str]) {
    let together = train_together(&config(shared), ranks);
    let alone = train(&config(single), ProcessGroup::alone()).unwrap();
    for (rank, end) in together.iter().enumerate() {
        assert_eq!(end.state.len(), alone.state.len());
        for (name, tensor) in &end.state {
            let same = values(tensor) == values(&together[0].state[name]);
            assert!(
                same,
                "{shared:?}: {name} of rank {rank} differs from rank 0's"
            );
            let error = difference(&alone.state[name], tensor);
            // The order of sums alone differs, which five steps carry along: at most 2.5e-5 has been seen.
            assert!(
                error < 1e-4,
                "{shared:?} on {ranks}: {name} is off by {error}"
            );
        }
        for (found, expected) in end.statistics.iter().zip(&alone.statistics) {
            for (found, expected) in figures(found).into_iter().zip(figures(expected)) {
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{shared:?}: {found} {expected}"
                );
            }
        }
    }
    // All of this would be idle if nothing had moved.
    let untrained = Trainer::new(&config(shared), STEPS as u64).unwrap();
    let untrained = untrained.to_checkpoint(0, "test").unwrap().tensors;
    let moved = untrained
        .iter()
        .map(|(name, tensor)| difference(&alone.state[name], tensor));
    assert!(moved.fold(0.0, f64::max) > 0.1);
}

#[test]
fn simo_is_that_of_one_process_in_batch_norm_groups() {
    compare(2, &[], &["method.batch_norm_group=12"]);
    compare(3, &[], &["method.batch_norm_group=8"]);
    compare(
        2,
        &["method.draw=shared_columns"],
        &["method.draw=shared_columns", "method.micro_batch=12"],
    );
}

#[test]
fn moco_is_that_of_one_process_in_batch_norm_groups() {
    let moco = ["method.name=moco_v2", "method.negative_count=40"];
    for (ranks, group) in [
        (2, "method.batch_norm_group=12"),
        (3, "method.batch_norm_group=8"),
    ] {
        compare(ranks, &moco, &[&moco[..], &[group]].concat());
    }
}

#[test]
fn simclr_is_that_of_one_process_in_micro_batches() {
    let simclr = ["method.name=simclr", "method.negative_count=0"];
    for (ranks, part) in [(2, "method.micro_batch=12"), (3, "method.micro_batch=8")] {
        compare(ranks, &simclr, &[&simclr[..], &[part]].concat());
    }
}

#[test]
fn ranks_may_have_micro_batches_and_groups_of_their_own() {
    let parts = ["method.micro_batch=6", "method.batch_norm_group=6"];
    compare(2, &parts, &parts);
    let simclr = ["method.name=simclr", "method.negative_count=0"];
    let both = [&simclr[..], &parts].concat();
    compare(2, &both, &both);
}

#[test]
fn parts_of_a_batch_are_those_of_the_whole() -> Result<()> {
    let config = config(&[]);
    let whole = loader(&config, (0, 1))?.epoch(0, 2);
    let parts: Vec<_> = (0..3)
        .map(|rank| Ok(loader(&config, (rank, 3))?.epoch(0, 2)))
        .collect::<Result<_>>()?;
    let mut parts = parts;
    for batch in whole {
        let batch = batch?;
        let mine: Vec<_> = parts
            .iter_mut()
            .map(|part| part.next().unwrap().unwrap())
            .collect();
        for view in 0..2 {
            let joined: Vec<u8> = mine
                .iter()
                .flat_map(|part| part.views().unwrap()[view].clone())
                .collect();
            assert_eq!(joined, batch.views()?[view]);
        }
        let indices: Vec<u32> = mine.iter().flat_map(|part| part.indices.clone()).collect();
        assert_eq!(indices, batch.indices);
    }
    let told = loader(&config, (0, 7)).map(drop).unwrap_err().to_string();
    assert!(
        told.contains("a multiple of 7, the number of parts"),
        "{told}"
    );
    let told = loader(&config, (3, 3)).map(drop).unwrap_err().to_string();
    assert!(told.contains("a number below 3"), "{told}");
    Ok(())
}

#[test]
fn a_batch_that_does_not_divide_is_refused() {
    let place = |rank, port| Rendezvous {
        rank,
        size: 5,
        host: "127.0.0.1".into(),
        port,
        wait: Duration::from_secs(60),
        patience: Duration::from_secs(60),
    };
    let error = config(&[]).validate_ranks(5).unwrap_err();
    let expected = "batch_size: 5 ranks cannot share out a batch of 24";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.to_string().ends_with("share is 25"), "{error}");
    let port = port();
    thread::scope(|scope| {
        for rank in 0..5 {
            scope.spawn(move || {
                let group = ProcessGroup::join(&place(rank, port)).unwrap();
                let told = train(&config(&[]), group)
                    .map(drop)
                    .unwrap_err()
                    .to_string();
                assert!(told.contains(expected), "{told}");
            });
        }
    });
}
