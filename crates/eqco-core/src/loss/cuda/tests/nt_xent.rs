//! SimCLR's loss.

use candle_core::{DType, Result};

use super::super::nt_xent::nt_xent_in;
use super::compare::{BF16, Bounds, F32, assert_near, emulator, evaluate_guarded, unit_rows};
use crate::{Alpha, LossConfig, nt_xent};

fn check(half: usize, dim: usize, dtype: DType, bounds: Bounds) -> Result<()> {
    let Some(queue) = emulator() else {
        return Ok(());
    };
    let (first, second) = (
        unit_rows(1, half, dim, dtype)?,
        unit_rows(2, half, dim, dtype)?,
    );
    for alpha in [Alpha::Infonce, Alpha::Equivalent(64.0)] {
        let config = LossConfig {
            temperature: 0.1,
            alpha,
        };
        let expected = nt_xent(&config, &first, &second)?;
        let got =
            evaluate_guarded(|memory| nt_xent_in((&queue, memory), &config, &first, &second))?;
        let case = format!("{half} images of {dim} in {dtype:?}");
        assert_near(&case, &got, &expected, bounds)?;
    }
    Ok(())
}

#[test]
fn f32_agrees_with_the_cpu() -> Result<()> {
    for (half, dim) in [(2, 3), (5, 17), (33, 130), (70, 8)] {
        check(half, dim, DType::F32, F32)?;
    }
    Ok(())
}

#[test]
fn bf16_agrees_with_the_cpu() -> Result<()> {
    for (half, dim) in [(2, 3), (33, 128), (70, 20)] {
        check(half, dim, DType::BF16, BF16)?;
    }
    Ok(())
}
