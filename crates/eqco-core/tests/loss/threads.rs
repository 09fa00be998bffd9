//! The result does not depend on the number of threads, to the last bit.

use candle_core::Result;
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossOutput, NegativeDraw, Negatives, WantedGradients, nt_xent,
};

use crate::batches::{config, unit_tensor, values};

fn bits(out: &LossOutput) -> Vec<u64> {
    let tensors = [
        Some(&out.queries_gradient),
        out.keys_gradient.as_ref(),
        out.negatives_gradient.as_ref(),
    ];
    let gradients = tensors.into_iter().flatten().flat_map(values);
    let s = out.statistics;
    let scalars = [
        out.loss,
        out.temperature_gradient,
        s.contrast_top1,
        s.positive_similarity,
        s.negative_similarity,
        s.gradient_scale,
        s.gradient_scale_deviation,
    ];
    scalars
        .into_iter()
        .chain(gradients)
        .map(f64::to_bits)
        .collect()
}

#[test]
fn one_thread_and_several_give_the_same_bits() -> Result<()> {
    let dim = 16;
    let (queries, keys) = (unit_tensor(90, 150, dim), unit_tensor(91, 150, dim));
    let queue = unit_tensor(92, 5000, dim);
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 150, 37, 0, 0)?;
    let loss = ContrastiveLoss::new(config(0.1, Alpha::Equivalent(65536.0)))?;
    let all = || -> Result<Vec<Vec<u64>>> {
        let wanted = WantedGradients::ALL;
        let shared = loss.evaluate(&queries, &keys, Negatives::Shared(&queue), wanted)?;
        let drawn = loss.evaluate(&queries, &keys, Negatives::InBatch(&draw), wanted)?;
        let both = nt_xent(loss.config(), &queries, &keys)?;
        Ok([shared, drawn, both].iter().map(bits).collect())
    };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(all)
    };
    let one = with(1)?;
    assert_eq!(
        one.iter().map(Vec::len).collect::<Vec<_>>(),
        [84807, 4807, 4807]
    );
    for threads in [2, 5] {
        assert!(with(threads)? == one, "{threads} threads differ from one");
    }
    Ok(())
}
