//! Negatives drawn from the batch.

use candle_core::{DType, Result};

use super::compare::{BF16, Bounds, F32, check, loss, unit_rows};
use crate::{Alpha, DrawKind, NegativeDraw, Negatives};

fn check_batch(
    (count, negatives, dim): (usize, usize, usize),
    kind: DrawKind,
    dtype: DType,
    bounds: Bounds,
) -> Result<()> {
    let queries = unit_rows(1, count, dim, dtype)?;
    let keys = unit_rows(2, count, dim, dtype)?;
    let draw = NegativeDraw::sample(kind, count, negatives, 3, 4)?;
    let case = format!("{count} queries, {negatives} drawn negatives of {dim} in {dtype:?}");
    for alpha in [Alpha::Infonce, Alpha::Equivalent(256.0), Alpha::Decoupled] {
        let loss = loss(0.1, alpha);
        check(
            &case,
            &loss,
            (&queries, &keys),
            Negatives::InBatch(&draw),
            bounds,
        )?;
    }
    Ok(())
}

#[test]
fn f32_agrees_with_the_cpu_for_odd_shapes() -> Result<()> {
    for shape in [
        (2, 1, 1),
        (2, 1, 3),
        (5, 4, 17),
        (9, 3, 128),
        (35, 34, 130),
        (34, 33, 4),
    ] {
        check_batch(shape, DrawKind::PerQuery, DType::F32, F32)?;
    }
    check_batch((11, 7, 20), DrawKind::SharedColumns, DType::F32, F32)
}

#[test]
fn bf16_agrees_with_the_cpu_for_odd_shapes() -> Result<()> {
    for shape in [(2, 1, 3), (5, 4, 17), (9, 3, 128), (35, 34, 136)] {
        check_batch(shape, DrawKind::PerQuery, DType::BF16, BF16)?;
    }
    Ok(())
}

#[test]
fn many_negatives_are_split_among_blocks() -> Result<()> {
    let (queries, keys) = (
        unit_rows(1, 140, 8, DType::F32)?,
        unit_rows(2, 140, 8, DType::F32)?,
    );
    let draw = NegativeDraw::all_others(140)?;
    // 5 warps' worth of negatives in 2 parts.
    let loss = loss(0.1, Alpha::Infonce);
    check(
        "2 parts",
        &loss,
        (&queries, &keys),
        Negatives::InBatch(&draw),
        F32,
    )
}

#[test]
fn a_key_that_nobody_drew_is_a_positive_alone() -> Result<()> {
    let draw = NegativeDraw::from_indices(4, 2, vec![1, 3, 3, 3, 1, 0, 1, 0])?;
    let (queries, keys) = (
        unit_rows(1, 4, 6, DType::F32)?,
        unit_rows(2, 4, 6, DType::F32)?,
    );
    let loss = loss(0.2, Alpha::Infonce);
    check(
        "key 2",
        &loss,
        (&queries, &keys),
        Negatives::InBatch(&draw),
        F32,
    )
}

#[test]
fn part_of_a_larger_batch_uses_its_own_rows_of_the_draw() -> Result<()> {
    let batch_keys = unit_rows(2, 20, 16, DType::F32)?;
    let queries = unit_rows(1, 20, 16, DType::F32)?;
    let draw = NegativeDraw::sample(DrawKind::PerQuery, 20, 6, 0, 0)?;
    for (first, count) in [(0, 20), (7, 5), (19, 1)] {
        let part = (
            &queries.narrow(0, first, count)?,
            &batch_keys.narrow(0, first, count)?,
        );
        let negatives = Negatives::InLargerBatch {
            draw: &draw,
            batch_keys: &batch_keys,
            first,
        };
        check(
            "part",
            &loss(0.2, Alpha::Equivalent(64.0)),
            part,
            negatives,
            F32,
        )?;
    }
    Ok(())
}
