//! What has a known answer, and what is refused.

use candle_core::{DType, Device, Result, Tensor};

use super::compare::{emulator, evaluate_guarded, loss, unit_rows, values};
use crate::{Alpha, DrawKind, LossError, LossOutput, NegativeDraw, Negatives, WantedGradients};

fn shared(
    queries: &Tensor,
    keys: &Tensor,
    negatives: &Tensor,
    alpha: Alpha,
) -> Result<Option<LossOutput>> {
    let Some(queue) = emulator() else {
        return Ok(None);
    };
    let negatives = Negatives::Shared(negatives);
    let evaluate = |memory: &_| {
        loss(0.2, alpha).evaluate_in(
            (&queue, memory),
            queries,
            keys,
            negatives,
            WantedGradients::ALL,
        )
    };
    evaluate_guarded(evaluate).map(Some)
}

#[test]
fn equal_similarities_give_the_logarithm_of_one_plus_alpha() -> Result<()> {
    for (dtype, dim) in [(DType::F32, 128), (DType::BF16, 128), (DType::BF16, 200)] {
        let row = unit_rows(5, 1, dim, dtype)?;
        let rows = |count: usize| row.repeat((count, 1));
        for negatives in [1, 7, 70] {
            let output = shared(
                &rows(3)?,
                &rows(3)?,
                &rows(negatives)?,
                Alpha::Equivalent(4096.0),
            )?;
            let Some(output) = output else {
                return Ok(());
            };
            // A collapsed encoder: similarities of about 1 are off by a few 2^-23, over a temperature of 0.2.
            assert!((output.loss - 4097f64.ln()).abs() < 1e-5, "{}", output.loss);
            assert_eq!(output.statistics.contrast_top1, 0.0);
        }
    }
    Ok(())
}

#[test]
fn large_similarities_neither_overflow_nor_vanish() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let queries = (unit_rows(1, 2, 16, dtype)? * 100.0)?;
        let keys = (unit_rows(2, 2, 16, dtype)? * 100.0)?;
        let negatives = (unit_rows(3, 200, 16, dtype)? * 100.0)?;
        let Some(output) = shared(&queries, &keys, &negatives, Alpha::Infonce)? else {
            return Ok(());
        };
        let all = WantedGradients::ALL;
        let expected = loss(0.2, Alpha::Infonce).evaluate(
            &queries,
            &keys,
            Negatives::Shared(&negatives),
            all,
        )?;
        assert!((output.loss / expected.loss - 1.0).abs() < 1e-5);
        assert!(
            values(&output.queries_gradient)?
                .iter()
                .all(|value| value.is_finite())
        );
    }
    Ok(())
}

#[test]
fn nan_in_any_input_shows_in_the_loss() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let sound = |seed| unit_rows(seed, 3, 128, dtype);
        let broken = Tensor::full(f32::NAN, (3, 128), &Device::Cpu)?.to_dtype(dtype)?;
        let triples = [
            (broken.clone(), sound(2)?, sound(3)?),
            (sound(1)?, broken.clone(), sound(3)?),
            (sound(1)?, sound(2)?, broken.clone()),
        ];
        for (queries, keys, negatives) in triples {
            let Some(queue) = emulator() else {
                return Ok(());
            };
            let output = loss(0.2, Alpha::Infonce).evaluate_on(
                &queue,
                &queries,
                &keys,
                Negatives::Shared(&negatives),
                WantedGradients::QUERIES,
            )?;
            assert!(output.loss.is_nan());
        }
    }
    Ok(())
}

#[test]
fn what_the_cpu_refuses_is_refused_before_any_kernel_runs() -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (rows, wrong) = (
        unit_rows(1, 4, 8, DType::F32)?,
        unit_rows(1, 4, 9, DType::F32)?,
    );
    let loss = loss(0.2, Alpha::Infonce);
    let evaluate = |keys: &Tensor, negatives: Negatives<'_>| {
        loss.evaluate_on(&queue, &rows, keys, negatives, WantedGradients::ALL)
    };
    let other = NegativeDraw::sample(DrawKind::PerQuery, 5, 2, 0, 0)?;
    assert!(matches!(
        evaluate(&wrong, Negatives::Shared(&rows)),
        Err(LossError::Shape { input: "keys", .. })
    ));
    assert!(matches!(
        evaluate(&rows, Negatives::Shared(&wrong)),
        Err(LossError::Shape {
            input: "negatives",
            ..
        })
    ));
    let whole_numbers = rows.to_dtype(DType::U32)?;
    assert!(matches!(
        evaluate(&whole_numbers, Negatives::Shared(&rows)),
        Err(LossError::Dtype { input: "keys", .. })
    ));
    assert!(matches!(
        evaluate(&rows, Negatives::InBatch(&other)),
        Err(LossError::Draw { .. })
    ));
    let none = Tensor::zeros((0, 8), DType::F32, &Device::Cpu)?;
    assert!(matches!(
        evaluate(&rows, Negatives::Shared(&none)),
        Err(LossError::NoNegatives)
    ));
    Ok(())
}
