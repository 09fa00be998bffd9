//! The `[N, K]` matrix of logits never exists. One test, alone in its process: the allocator counts
//! what every thread allocates.

mod counting_allocator;

use candle_core::{Device, Result, Tensor};
use counting_allocator::peak_bytes;
use eqco_core::{Alpha, ContrastiveLoss, LossConfig, Negatives, WantedGradients, nt_xent};

#[test]
fn memory_does_not_grow_with_queries_times_negatives() -> Result<()> {
    let rows = |count: usize| Tensor::rand(-0.5f32, 0.5, (count, 8), &Device::Cpu);
    let (queries, queue) = (rows(512)?, rows(32768)?);
    let matrix_bytes = 512 * 32768 * size_of::<f32>();
    let config = LossConfig {
        temperature: 0.2,
        alpha: Alpha::Infonce,
    };
    let loss = ContrastiveLoss::new(config)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .expect("a pool");

    let (_, bytes) = pool.install(|| {
        let shared = Negatives::Shared(&queue);
        peak_bytes(|| Ok(loss.evaluate(&queries, &queries, shared, WantedGradients::ALL)?))
    })?;
    assert!(
        bytes < matrix_bytes / 8,
        "shared: {bytes} of {matrix_bytes} bytes"
    );

    let views = rows(2048)?;
    let matrix_bytes = 4096 * 4096 * size_of::<f32>();
    let (_, bytes) = pool.install(|| peak_bytes(|| Ok(nt_xent(&config, &views, &views)?)))?;
    assert!(
        bytes < matrix_bytes / 8,
        "NT-Xent: {bytes} of {matrix_bytes} bytes"
    );
    Ok(())
}
