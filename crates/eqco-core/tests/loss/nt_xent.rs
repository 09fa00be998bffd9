//! The two-direction loss against forms that hold the whole matrix.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::loss::cross_entropy;
use eqco_core::reference::nt_xent_loss;
use eqco_core::{Alpha, LossError, nt_xent, nt_xent_forward};

use crate::batches::{assert_close, config, unit_tensor, values};

#[test]
fn odd_sizes_match_the_float64_reference() -> Result<()> {
    // 150 images make 300 rows: partners, and the rows themselves, lie in different tiles.
    for (half, dim) in [(2, 3), (5, 8), (65, 16), (150, 7)] {
        let views = [unit_tensor(60, half, dim), unit_tensor(61, half, dim)];
        let stacked = values(&Tensor::cat(&views, 0)?);
        for alpha in [Alpha::Infonce, Alpha::Equivalent(4096.0), Alpha::Decoupled] {
            let setting = config(0.1, alpha);
            let out = nt_xent(&setting, &views[0], &views[1])?;
            let expected = nt_xent_loss(&stacked, dim, &setting)?;
            let what = format!("{half} images, dim {dim}, alpha {alpha}");
            assert_close(&what, &[out.loss], &[expected.loss], 1e-5);
            let second = values(&out.keys_gradient.expect("always there"));
            let got = [values(&out.queries_gradient), second].concat();
            assert_close(&what, &got, &expected.gradient, 1e-5);
            let error = (out.temperature_gradient - expected.temperature_gradient).abs();
            assert!(error < 1e-3, "{what}: temperature off by {error}");
        }
    }
    Ok(())
}

#[test]
fn infonce_is_candles_cross_entropy_over_the_masked_matrix() -> Result<()> {
    let (half, temperature) = (20, 0.1);
    let first = Var::from_tensor(&unit_tensor(62, half, 16))?;
    let second = Var::from_tensor(&unit_tensor(63, half, 16))?;
    let rows = Tensor::cat(&[first.as_tensor(), second.as_tensor()], 0)?;
    let own = (Tensor::eye(2 * half, DType::F32, &Device::Cpu)? * 1e9)?;
    let logits = ((rows.matmul(&rows.t()?)? / temperature)? - own)?;
    let labels: Vec<u32> = (0..2 * half)
        .map(|i| ((i + half) % (2 * half)) as u32)
        .collect();
    let expected = cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu)?)?;
    let gradients = expected.backward()?;

    let got = nt_xent_forward(&config(temperature, Alpha::Infonce), &first, &second)?;
    let got_gradients = got.backward()?;
    assert_close("loss", &values(&got), &values(&expected), 1e-6);
    for var in [&first, &second] {
        let expected = values(gradients.get(var).expect("a gradient"));
        assert_close(
            "view",
            &values(got_gradients.get(var).expect("one")),
            &expected,
            3e-6,
        );
    }
    Ok(())
}

#[test]
fn copies_of_one_image_give_ln_one_plus_alpha() -> Result<()> {
    let view = Tensor::new(&[[0.6f32, 0.8]; 9], &Device::Cpu)?;
    for alpha in [0.5, 16.0, 65536.0] {
        let out = nt_xent(&config(0.05, Alpha::Equivalent(alpha)), &view, &view)?;
        assert_close("loss", &[out.loss], &[alpha.ln_1p()], 1e-5);
        assert_eq!(out.statistics.contrast_top1, 0.0);
    }
    let out = nt_xent(&config(0.05, Alpha::Infonce), &view, &view)?;
    assert_close("16 negatives", &[out.loss], &[17f64.ln()], 1e-5);
    Ok(())
}

#[test]
fn one_image_has_no_negatives() {
    let view = unit_tensor(64, 1, 4);
    let error = nt_xent(&config(0.1, Alpha::Infonce), &view, &view);
    assert!(matches!(error, Err(LossError::NoNegatives)));
}

#[test]
fn views_must_have_one_shape() {
    let (first, second) = (unit_tensor(64, 4, 4), unit_tensor(64, 5, 4));
    let error = nt_xent(&config(0.1, Alpha::Infonce), &first, &second).expect_err("shapes");
    assert!(
        error
            .to_string()
            .starts_with("second_view: expected shape [4, 4]"),
        "{error}"
    );
}
