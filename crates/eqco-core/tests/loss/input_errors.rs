//! Inputs that do not fit are named, and strange memory layouts are read rightly.

use candle_core::{DType, Device, Result, Tensor};
use eqco_core::{
    Alpha, ContrastiveLoss, DrawKind, LossError, NegativeDraw, Negatives, WantedGradients,
};

use crate::batches::{config, unit_tensor, values};

fn loss() -> ContrastiveLoss {
    ContrastiveLoss::new(config(0.2, Alpha::Infonce)).expect("valid")
}

fn refused(queries: &Tensor, keys: &Tensor, negatives: &Tensor) -> LossError {
    let shared = Negatives::Shared(negatives);
    loss()
        .evaluate(queries, keys, shared, WantedGradients::ALL)
        .expect_err("a wrong input")
}

#[test]
fn shapes_are_checked_and_named() -> Result<()> {
    let rows = |n, d| Tensor::zeros((n, d), DType::F32, &Device::Cpu);
    let (queries, queue) = (rows(4, 8)?, rows(16, 8)?);
    let flat = Tensor::zeros(8, DType::F32, &Device::Cpu)?;
    let cases = [
        (
            &flat,
            &queries,
            &queue,
            "queries: expected shape [rows, dim]",
        ),
        (
            &rows(0, 8)?,
            &rows(0, 8)?,
            &queue,
            "queries: expected shape [rows, dim]",
        ),
        (
            &rows(4, 0)?,
            &rows(4, 0)?,
            &queue,
            "queries: expected shape [rows, dim]",
        ),
        (
            &queries,
            &rows(5, 8)?,
            &queue,
            "keys: expected shape [4, 8]",
        ),
        (
            &queries,
            &rows(4, 9)?,
            &queue,
            "keys: expected shape [4, 8]",
        ),
        (
            &queries,
            &queries,
            &rows(16, 9)?,
            "negatives: expected shape [K, 8]",
        ),
        (
            &queries,
            &queries,
            &flat,
            "negatives: expected shape [rows, dim]",
        ),
        (&queries, &queries, &rows(0, 8)?, "at least one negative"),
    ];
    for (queries, keys, negatives, message) in cases {
        let error = refused(queries, keys, negatives).to_string();
        assert!(error.starts_with(message), "{error}");
    }
    Ok(())
}

#[test]
fn element_types_are_checked_and_named() -> Result<()> {
    let (queries, queue) = (unit_tensor(100, 4, 8), unit_tensor(101, 16, 8));
    for dtype in [DType::F64, DType::F16, DType::U8] {
        let (wrong_queries, wrong_queue) = (queries.to_dtype(dtype)?, queue.to_dtype(dtype)?);
        for (input, error) in [
            ("queries", refused(&wrong_queries, &queries, &queue)),
            ("keys", refused(&queries, &wrong_queries, &queue)),
            ("negatives", refused(&queries, &queries, &wrong_queue)),
        ] {
            let expected = format!(
                "{input}: expected dtype f32 or bf16, got {}",
                dtype.as_str()
            );
            assert_eq!(error.to_string(), expected);
        }
    }
    Ok(())
}

#[test]
fn a_draw_for_another_batch_is_refused() -> Result<()> {
    let rows = unit_tensor(102, 4, 8);
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 5, 2, 0, 0)?;
    let error = loss()
        .forward(&rows, &rows, Negatives::InBatch(&draw))
        .expect_err("five, not four");
    assert!(
        error
            .to_string()
            .contains("a batch of 5, but there are 4 queries"),
        "{error}"
    );
    Ok(())
}

#[test]
fn invalid_settings_are_refused_at_once() {
    assert!(ContrastiveLoss::new(config(0.0, Alpha::Infonce)).is_err());
    assert!(ContrastiveLoss::new(config(0.2, Alpha::Equivalent(f64::NAN))).is_err());
}

#[test]
fn transposed_and_narrowed_inputs_are_read_as_they_are_seen() -> Result<()> {
    let (queries, keys) = (unit_tensor(103, 6, 8), unit_tensor(104, 6, 8));
    let queue = unit_tensor(105, 40, 8);
    let strided = |t: &Tensor| -> Result<Tensor> {
        let wider = Tensor::cat(&[&t.zeros_like()?, t, &t.ones_like()?], 0)?;
        let turned = wider
            .t()?
            .contiguous()?
            .t()?
            .narrow(0, t.dim(0)?, t.dim(0)?)?;
        assert!(!turned.is_contiguous());
        Ok(turned)
    };
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 6, 3, 0, 0)?;
    let offset = Tensor::cat(&[&queue, &queue], 0)?.narrow(0, 40, 40)?;
    for (plain, other) in [
        (
            Negatives::Shared(&queue),
            Negatives::Shared(&strided(&queue)?),
        ),
        (Negatives::Shared(&queue), Negatives::Shared(&offset)),
        (Negatives::InBatch(&draw), Negatives::InBatch(&draw)),
    ] {
        let wanted = WantedGradients::ALL;
        let a = loss().evaluate(&queries, &keys, plain, wanted)?;
        let b = loss().evaluate(&strided(&queries)?, &strided(&keys)?, other, wanted)?;
        assert_eq!(a.loss, b.loss);
        assert_eq!(values(&a.queries_gradient), values(&b.queries_gradient));
        let keys_gradients = (a.keys_gradient.as_ref(), b.keys_gradient.as_ref());
        assert_eq!(keys_gradients.0.map(values), keys_gradients.1.map(values));
        let gradients = (a.negatives_gradient.as_ref(), b.negatives_gradient.as_ref());
        assert_eq!(gradients.0.map(values), gradients.1.map(values));
    }
    Ok(())
}

#[test]
fn errors_cross_into_candles_result() {
    let rows = unit_tensor(106, 4, 8);
    let wrong = || -> Result<Tensor> {
        Ok(loss().forward(&rows, &rows, Negatives::Shared(&unit_tensor(107, 4, 9)))?)
    };
    let message = wrong().expect_err("nine columns").to_string();
    assert!(
        message.contains("negatives: expected shape [K, 8]"),
        "{message}"
    );
}

#[test]
fn tensors_of_a_gpu_are_told_where_to_go() {
    // No other device can be had without its driver; the words are the same.
    let (input, got) = ("queries", Device::Cpu);
    let message = LossError::Device { input, got }.to_string();
    for part in [
        "queries: expected a tensor on the CPU",
        "evaluate_on and forward_on",
        "feature `cuda`",
    ] {
        assert!(message.contains(part), "{message}");
    }
}
