//! Negatives that all queries share.

use candle_core::{DType, Result};

use super::super::operands::in_one_format;
use super::compare::{BF16, Bounds, F32, check, loss, unit_rows};
use crate::{Alpha, Negatives};

fn check_shape(
    (count, negatives, dim): (usize, usize, usize),
    dtype: DType,
    bounds: Bounds,
    alpha: Alpha,
) -> Result<()> {
    let queries = unit_rows(1, count, dim, dtype)?;
    let keys = unit_rows(2, count, dim, dtype)?;
    let queue = unit_rows(3, negatives, dim, dtype)?;
    let case = format!("{count} queries, {negatives} shared negatives of {dim} in {dtype:?}");
    check(
        &case,
        &loss(0.1, alpha),
        (&queries, &keys),
        Negatives::Shared(&queue),
        bounds,
    )
}

#[test]
fn f32_agrees_with_the_cpu_for_odd_shapes() -> Result<()> {
    for shape in [
        (1, 1, 1),
        (1, 1, 3),
        (1, 70, 17),
        (3, 64, 128),
        (65, 65, 130),
        (2, 5, 1024),
        (70, 130, 4),
    ] {
        check_shape(shape, DType::F32, F32, Alpha::Equivalent(256.0))?;
    }
    Ok(())
}

#[test]
fn bf16_agrees_with_the_cpu_for_odd_shapes() -> Result<()> {
    for shape in [
        (1, 1, 3),
        (1, 70, 17),
        (3, 64, 128),
        (129, 65, 130),
        (2, 5, 400),
        (130, 66, 128),
        (5, 70, 64),
    ] {
        check_shape(shape, DType::BF16, BF16, Alpha::Equivalent(256.0))?;
    }
    Ok(())
}

#[test]
fn every_alpha_goes_through() -> Result<()> {
    for alpha in [Alpha::Infonce, Alpha::Decoupled] {
        check_shape((4, 9, 20), DType::F32, F32, alpha)?;
        check_shape((4, 9, 128), DType::BF16, BF16, alpha)?;
    }
    Ok(())
}

#[test]
fn many_negatives_and_many_queries_are_split_among_blocks() -> Result<()> {
    check_shape((3, 1001, 8), DType::F32, F32, Alpha::Infonce)?;
    check_shape((1001, 3, 8), DType::F32, F32, Alpha::Infonce)?;
    check_shape((3, 1001, 128), DType::BF16, BF16, Alpha::Infonce)?;
    check_shape((600, 3, 128), DType::BF16, BF16, Alpha::Infonce)
}

#[test]
fn rows_that_begin_between_wide_loads_are_read_as_well() -> Result<()> {
    for (dtype, bounds) in [(DType::F32, F32), (DType::BF16, BF16)] {
        // A view of one long row, one value behind its start.
        let shifted = |seed, rows: usize| -> Result<_> {
            let row = unit_rows(seed, rows, 128, dtype)?.flatten_all()?;
            let padded = candle_core::Tensor::cat(&[&row.narrow(0, 0, 1)?, &row], 0)?;
            padded.narrow(0, 1, rows * 128)?.reshape((rows, 128))
        };
        let (queries, keys, queue) = (shifted(1, 3)?, shifted(2, 3)?, shifted(3, 7)?);
        assert!(!in_one_format([&queries])?.1.wide);
        let loss = loss(0.2, Alpha::Infonce);
        check(
            "shifted",
            &loss,
            (&queries, &keys),
            Negatives::Shared(&queue),
            bounds,
        )?;
    }
    Ok(())
}

#[test]
fn transposed_views_and_mixed_types_are_computed_in_f32() -> Result<()> {
    let queries = unit_rows(1, 6, 6, DType::F32)?.t()?;
    let keys = unit_rows(2, 6, 6, DType::BF16)?;
    let queue = unit_rows(3, 10, 6, DType::BF16)?;
    let loss = loss(0.2, Alpha::Infonce);
    // Gradients of bf16 inputs are rounded to bf16 on both sides.
    let bounds = Bounds {
        gradients: BF16.gradients,
        ..F32
    };
    check(
        "mixed",
        &loss,
        (&queries, &keys),
        Negatives::Shared(&queue),
        bounds,
    )
}
