//! Whether batch statistics give the positive away.
//!
//! Query and "positive" are views of different images of the same batch here: they share nothing but the batch. What beats chance
//! has learned to recognise the batch by its statistics, which on real pairs would pass for an understanding of images (He et
//! al. 2020, section 3.3). In SiMo the negatives are of the same batch, encoded at the same time by the same weights (arXiv
//! 2010.01929, section 3.2): nothing of the batch tells the positive from them. MoCo's negatives are of other batches and
//! older weights, and on one batch-norm group it learns just that, which shows that this test can see it.

use candle_core::{Device, Result, Tensor};
use eqco_core::{Alpha, DrawKind, LossConfig};
use eqco_models::method::{Method, MethodConfig, MethodName, StepKey};
use eqco_models::optim::{Optimizer, OptimizerConfig};
use eqco_models::tape::Gradients;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, ProjectionHeadConfig,
};

const SIDE: usize = 8;
const BATCH: usize = 16;
const STEPS: u64 = 400;
/// Negatives of SiMo, all there are.
const K: usize = BATCH - 1;

fn encoder() -> Result<Encoder> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 32,
        embedding_dim: 16,
    };
    Encoder::new(&config, &head, Normalization::CIFAR10, 1, &Device::Cpu)
}

/// Images `[N,S,S,3]` of the batch of a step: each of one random colour with noise on it.
fn images(step: u64) -> Vec<f32> {
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut pixels = Vec::new();
    for _ in 0..BATCH {
        let colour = [random(), random(), random()];
        for _ in 0..SIDE * SIDE {
            pixels.extend(colour.map(|channel| channel * 2.0 + 0.5 * random()));
        }
    }
    pixels
}

/// Mean contrast top-1 of the last quarter of the steps, where image i is paired with the one `distance` on in its batch.
fn top1(method: MethodConfig, distance: u32) -> Result<f64> {
    let encoder = encoder()?;
    let loss = LossConfig {
        temperature: 0.1,
        alpha: Alpha::Infonce,
    };
    let mut trained = Method::new(&method, loss, &encoder, 1)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), encoder.parameters())?;
    let mut gradients = Gradients::new(encoder.parameters())?;
    let last = STEPS / 4;
    let mut sum = 0.0;
    for step in 0..STEPS {
        let shape = (BATCH, SIDE, SIDE, 3);
        let queries = Tensor::from_vec(images(step), shape, &Device::Cpu)?;
        let other = |image: u32| (image + distance) % BATCH as u32;
        let others: Vec<u32> = (0..BATCH as u32).map(other).collect();
        let keys = queries.index_select(&Tensor::new(others, &Device::Cpu)?, 0)?;
        gradients.reset();
        let key = StepKey { seed: 1, step };
        let found = trained.contrast(&encoder, &queries, &keys, key, &mut gradients)?;
        if step >= STEPS - last {
            sum += found.statistics.wait()?.contrast_top1;
        }
        optimizer.step(encoder.parameters(), &gradients, 0.06)?;
    }
    Ok(sum / last as f64)
}

fn config(name: MethodName, negative_count: usize) -> MethodConfig {
    MethodConfig {
        name,
        negative_count,
        draw: DrawKind::PerQuery,
        ema_coefficient: 0.99,
        batch_norm_group: 0,
        micro_batch: 0,
    }
}

#[test]
fn simo_is_not_told_its_positives_by_batch_statistics() -> Result<()> {
    let chance = 1.0 / (K as f64 + 1.0);
    // Four standard errors of 1,600 queries.
    let bound =
        chance + 4.0 * (chance * (1.0 - chance) / (STEPS as f64 / 4.0 * BATCH as f64)).sqrt();
    for distance in [1, 3] {
        let found = top1(config(MethodName::Simo, K), distance)?;
        println!("SiMo, distance {distance}: {found:.4}, chance {chance:.4}");
        // Below it, if anything: the image itself is among the negatives here, and looks like the positive.
        assert!(
            found < bound,
            "distance {distance}: {found} of at most {bound}"
        );
    }
    let queue = 4 * K;
    let chance = 1.0 / (queue as f64 + 1.0);
    let found = [1, 3].map(|distance| top1(config(MethodName::MocoV2, queue), distance));
    let [one, three] = found;
    let (one, three) = (one?, three?);
    println!("MoCo, one group: {one:.4} and {three:.4}, chance {chance:.4}");
    assert!(one.max(three) > 2.5 * chance, "{one} {three}");
    Ok(())
}

/// With the momentum encoder as a copy of the query encoder: keys of a batch in groups, as MoCo computes them, are those of no
/// groups of neighbours, and so of other images than their queries' groups.
#[test]
fn moco_in_groups_computes_keys_beside_other_images_than_their_queries() -> Result<()> {
    let distances = |batch_norm_group: usize| -> Result<Vec<f32>> {
        let encoder = encoder()?;
        let config = MethodConfig {
            name: MethodName::MocoV2,
            negative_count: 8,
            draw: DrawKind::PerQuery,
            ema_coefficient: 1.0,
            batch_norm_group,
            micro_batch: 0,
        };
        let loss = LossConfig {
            temperature: 0.2,
            alpha: Alpha::Infonce,
        };
        let mut method = Method::new(&config, loss, &encoder, 1)?;
        let mut gradients = Gradients::new(encoder.parameters())?;
        let views = Tensor::from_vec(images(0), (BATCH, SIDE, SIDE, 3), &Device::Cpu)?;
        let key = StepKey { seed: 1, step: 0 };
        // Queries and keys are the same images: without shuffling their embeddings would be the same, too.
        let found = method.contrast(&encoder, &views, &views, key, &mut gradients)?;
        let distance = (found.queries - found.keys)?.sqr()?.sum(1)?;
        distance.to_vec1()
    };
    let (whole, groups) = (distances(0)?, distances(4)?);
    assert!(whole.iter().all(|distance| *distance < 1e-8), "{whole:?}");
    // A group of four has the same four images in another order with a probability of about 1 in 1,820.
    assert!(groups.iter().all(|distance| *distance > 1e-4), "{groups:?}");
    Ok(())
}
