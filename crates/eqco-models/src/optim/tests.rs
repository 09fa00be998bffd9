//! Whole optimisers on small parameter sets: stored PyTorch values, hand-computed steps, resume, refusals.

use candle_core::Device;
use serde::Deserialize;

use super::*;
use crate::cuda::tests::families;
use crate::ops::lanes::CHUNK;
use crate::params::ParameterBuilder;

type TestResult = Result<(), ModelError>;
type Named = HashMap<String, Vec<f32>>;

#[derive(Deserialize)]
struct Golden {
    learning_rates: Vec<f64>,
    start: Named,
    gradients: Vec<Named>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: OptimizerConfig,
    expected: Named,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/optim.json"))
        .expect("the stored values are valid")
}

/// A linear layer with three outputs and five inputs, filled with `values` where given.
fn linear_layer(values: Option<&Named>) -> Result<ParameterSet, ModelError> {
    let mut builder = ParameterBuilder::new(5, &Device::Cpu);
    builder.linear_weight("weight", 3, 5)?;
    builder.bias("bias", 3, 5)?;
    let set = builder.finish();
    if let Some(values) = values {
        for parameter in set.parameters() {
            write(parameter.value(), |w| {
                w.copy_from_slice(&values[parameter.name()])
            })?;
        }
    }
    Ok(set)
}

fn set_gradients(gradients: &mut Gradients, set: &ParameterSet, values: &Named) -> TestResult {
    gradients.reset();
    for parameter in set.parameters() {
        let (target, _) = gradients.target(parameter);
        write(&target, |g| g.copy_from_slice(&values[parameter.name()]))?;
    }
    Ok(())
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

fn named(tensors: Vec<(String, Tensor)>, prefix: &str) -> HashMap<String, Tensor> {
    tensors
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
        .collect()
}

#[test]
fn four_steps_give_the_stored_values_of_pytorch_and_of_simclrs_rule() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let golden = golden();
        assert_eq!(golden.cases.len(), 6);
        for case in &golden.cases {
            let set = linear_layer(Some(&golden.start))?;
            let mut optimizer = Optimizer::new(&case.config, &set)?.with_backend(&backend);
            let mut gradients = Gradients::new(&set)?;
            for (rate, step) in golden.learning_rates.iter().zip(&golden.gradients) {
                set_gradients(&mut gradients, &set, step)?;
                optimizer.step(&set, &gradients, *rate)?;
            }
            for parameter in set.parameters() {
                let expected = &case.expected[parameter.name()];
                for (got, expected) in values(parameter.value())?.iter().zip(expected) {
                    let tolerance = 1e-6 * expected.abs().max(0.5);
                    assert!(
                        (got - expected).abs() <= tolerance,
                        "{:?}: {got}, expected {expected}",
                        case.config
                    );
                }
            }
        }
        Ok(())
    })
}

/// One weight of 2 and one norm scale of 3, with gradients 0.5 and 1.
fn two_scalars() -> Result<(ParameterSet, Gradients), ModelError> {
    let mut builder = ParameterBuilder::new(1, &Device::Cpu);
    builder.linear_weight("weight", 1, 1)?;
    builder.scope("bn", |b| b.norm(1, 3.0))?;
    let set = builder.finish();
    write(set.parameters()[0].value(), |w| w[0] = 2.0)?;
    let mut gradients = Gradients::new(&set)?;
    let values = [("weight", 0.5), ("bn.weight", 1.0), ("bn.bias", 0.0)];
    set_gradients(
        &mut gradients,
        &set,
        &values.map(|(name, g)| (name.to_string(), vec![g])).into(),
    )?;
    Ok((set, gradients))
}

fn scalars(set: &ParameterSet) -> Result<Vec<f32>, ModelError> {
    set.parameters()
        .iter()
        .map(|parameter| Ok(values(parameter.value())?[0]))
        .collect()
}

fn assert_close(got: &[f32], expected: &[f64]) {
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (f64::from(*got) - expected).abs() < 1e-6,
            "got {got}, expected {expected}"
        );
    }
}

#[test]
fn sgd_keeps_the_learning_rate_outside_the_velocity() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let (set, gradients) = two_scalars()?;
        let config = SgdConfig {
            weight_decay: 0.1,
            ..SgdConfig::default()
        };
        let mut optimizer =
            Optimizer::new(&OptimizerConfig::Sgd(config), &set)?.with_backend(&backend);
        // v = 0.5 + 0.1·2 = 0.7, w = 2 − 0.1·0.7; the norm scale decays too: v = 1 + 0.1·3 = 1.3, w = 3 − 0.13.
        optimizer.step(&set, &gradients, 0.1)?;
        assert_close(&scalars(&set)?, &[1.93, 2.87, 0.0]);
        // v = 0.9·0.7 + 0.5 + 0.193 = 1.323, and the new rate acts on all of it: w = 1.93 − 0.01·1.323.
        // Norm scale: v = 0.9·1.3 + 1 + 0.287 = 2.457, w = 2.87 − 0.01·2.457.
        optimizer.step(&set, &gradients, 0.01)?;
        assert_close(&scalars(&set)?, &[1.91677, 2.84543, 0.0]);
        assert_eq!(optimizer.step_count(), 2);
        Ok(())
    })
}

#[test]
fn exclusion_takes_weight_decay_off_the_norm_and_leaves_it_on_the_weight() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let (set, gradients) = two_scalars()?;
        let config = SgdConfig {
            weight_decay: 0.1,
            exclude_norm_and_bias_from_weight_decay: true,
            ..SgdConfig::default()
        };
        Optimizer::new(&OptimizerConfig::Sgd(config), &set)?
            .with_backend(&backend)
            .step(&set, &gradients, 0.1)?;
        assert_close(&scalars(&set)?, &[1.93, 2.9, 0.0]);
        Ok(())
    })
}

#[test]
fn lars_scales_weights_by_the_decayed_gradient_and_leaves_norms_to_plain_sgd() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let (set, gradients) = two_scalars()?;
        let config = LarsConfig {
            weight_decay: 0.1,
            trust_coefficient: 0.05,
            ..LarsConfig::default()
        };
        let mut optimizer =
            Optimizer::new(&OptimizerConfig::Lars(config), &set)?.with_backend(&backend);
        // One weight: η·|w|/|g + λw| · (g + λw) = 0.05·2 = 0.1, times the rate 0.5. Norm scale: 3 − 0.5·1.
        optimizer.step(&set, &gradients, 0.5)?;
        assert_close(&scalars(&set)?, &[1.95, 2.5, 0.0]);
        // The rate stands inside the velocity: v = 0.9·0.05 + 0.1·0.05·1.95, w = 1.95 − v; norm: v = 0.45 + 0.1.
        optimizer.step(&set, &gradients, 0.1)?;
        assert_close(&scalars(&set)?, &[1.89525, 1.95, 0.0]);

        let (set, gradients) = two_scalars()?;
        let config = LarsConfig {
            exclude_norm_and_bias_from_scaling: false,
            ..config
        };
        Optimizer::new(&OptimizerConfig::Lars(config), &set)?
            .with_backend(&backend)
            .step(&set, &gradients, 0.5)?;
        // Scaled as well now: 3 − 0.5·0.05·3. A shift of 0 with gradient 0 has trust ratio 1 and stays.
        assert_close(&scalars(&set)?, &[1.95, 2.925, 0.0]);
        Ok(())
    })
}

#[test]
fn lars_moves_a_weight_of_zero() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let (set, gradients) = two_scalars()?;
        write(set.parameters()[0].value(), |w| w[0] = 0.0)?;
        Optimizer::new(&OptimizerConfig::Lars(LarsConfig::default()), &set)?
            .with_backend(&backend)
            .step(&set, &gradients, 0.5)?;
        assert_close(&scalars(&set)?, &[-0.25, 2.5, 0.0]);
        Ok(())
    })
}

#[test]
fn lars_norms_span_all_chunks() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let len = 2 * CHUNK + 13;
        let mut builder = ParameterBuilder::new(1, &Device::Cpu);
        builder.linear_weight("weight", 1, len)?;
        let set = builder.finish();
        write(set.parameters()[0].value(), |w| w.fill(2.0))?;
        let mut gradients = Gradients::new(&set)?;
        set_gradients(
            &mut gradients,
            &set,
            &[("weight".to_string(), vec![4.0; len])].into(),
        )?;
        let config = LarsConfig {
            weight_decay: 0.5,
            trust_coefficient: 0.1,
            ..LarsConfig::default()
        };
        Optimizer::new(&OptimizerConfig::Lars(config), &set)?
            .with_backend(&backend)
            .step(&set, &gradients, 1.0)?;
        // ‖w‖/‖g + λw‖ = 2/5 whatever the length: w = 2 − 0.1·0.4·5.
        for got in values(set.parameters()[0].value())? {
            assert!((got - 1.8).abs() < 1e-6, "{got}");
        }
        Ok(())
    })
}

#[test]
fn adamw_starts_with_steps_of_the_learning_rate_and_decays_apart_from_the_moments() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let (set, gradients) = two_scalars()?;
        let config = AdamWConfig {
            weight_decay: 0.5,
            ..AdamWConfig::default()
        };
        Optimizer::new(&OptimizerConfig::AdamW(config), &set)?
            .with_backend(&backend)
            .step(&set, &gradients, 0.1)?;
        // The first corrected moments are g and g²: w·(1 − 0.1·0.5) − 0.1·sign(g).
        assert_close(&scalars(&set)?, &[1.8, 2.75, 0.0]);
        Ok(())
    })
}

#[test]
fn a_parameter_without_a_gradient_is_named_and_nothing_moves() -> TestResult {
    let golden = golden();
    let set = linear_layer(Some(&golden.start))?;
    let mut gradients = Gradients::new(&set)?;
    gradients.target(&set.parameters()[0]);
    for config in [
        OptimizerConfig::default(),
        OptimizerConfig::Lars(LarsConfig::default()),
    ] {
        let mut optimizer = Optimizer::new(&config, &set)?;
        let error = optimizer.step(&set, &gradients, 0.1).unwrap_err();
        assert!(
            matches!(&error, ModelError::MissingGradient { parameter } if parameter == "bias"),
            "{error}"
        );
        assert_eq!(values(set.parameters()[0].value())?, golden.start["weight"]);
        assert_eq!(optimizer.step_count(), 0);
    }
    Ok(())
}

#[test]
fn another_set_and_an_impossible_rate_are_refused() -> TestResult {
    let set = linear_layer(None)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), &set)?;
    let (other, gradients) = two_scalars()?;
    let message = optimizer
        .step(&other, &gradients, 0.1)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("position 1: expected bias, found bn.weight"),
        "{message}"
    );
    for rate in [f64::NAN, f64::INFINITY, -0.1] {
        let gradients = Gradients::new(&set)?;
        assert!(
            optimizer
                .step(&set, &gradients, rate)
                .unwrap_err()
                .to_string()
                .contains("learning_rate")
        );
    }
    let invalid = OptimizerConfig::Sgd(SgdConfig {
        sgd_momentum: 2.0,
        ..SgdConfig::default()
    });
    assert!(Optimizer::new(&invalid, &set).is_err());
    Ok(())
}

#[test]
fn a_resumed_optimiser_repeats_the_run_bit_by_bit() -> TestResult {
    families().into_iter().try_for_each(|backend| {
        let golden = golden();
        for case in &golden.cases {
            let set = linear_layer(Some(&golden.start))?;
            let mut optimizer = Optimizer::new(&case.config, &set)?.with_backend(&backend);
            let mut gradients = Gradients::new(&set)?;
            let run = |optimizer: &mut Optimizer,
                       set: &ParameterSet,
                       gradients: &mut Gradients,
                       steps: [usize; 2]| {
                for step in steps {
                    set_gradients(gradients, set, &golden.gradients[step])?;
                    optimizer.step(set, gradients, golden.learning_rates[step])?;
                }
                Ok::<_, ModelError>(())
            };
            run(&mut optimizer, &set, &mut gradients, [0, 1])?;
            let state = named(optimizer.state()?, "optimizer.");
            let resumed_set = linear_layer(None)?;
            resumed_set.copy_from(&set)?;
            let mut resumed = Optimizer::new(&case.config, &resumed_set)?.with_backend(&backend);
            resumed.load_state("optimizer.", &state)?;
            run(&mut optimizer, &set, &mut gradients, [2, 3])?;
            let mut resumed_gradients = Gradients::new(&resumed_set)?;
            run(&mut resumed, &resumed_set, &mut resumed_gradients, [2, 3])?;
            assert_eq!(resumed.step_count(), 4);
            for (first, second) in set.parameters().iter().zip(resumed_set.parameters()) {
                assert_eq!(
                    values(first.value())?,
                    values(second.value())?,
                    "{:?}: {}",
                    case.config,
                    first.name()
                );
            }
        }
        Ok(())
    })
}

#[test]
fn the_state_of_another_optimiser_is_refused_and_changes_nothing() -> TestResult {
    let (set, gradients) = two_scalars()?;
    let mut sgd = Optimizer::new(&OptimizerConfig::default(), &set)?;
    sgd.step(&set, &gradients, 0.1)?;
    let mut state = named(sgd.state()?, "");
    let mut adamw = Optimizer::new(&OptimizerConfig::AdamW(AdamWConfig::default()), &set)?;
    let message = adamw.load_state("", &state).unwrap_err().to_string();
    assert!(
        message.contains("first_moment.weight") && message.contains("nothing"),
        "{message}"
    );

    let mut fresh = Optimizer::new(&OptimizerConfig::default(), &set)?;
    state.insert(
        "velocity.bn.bias".into(),
        Tensor::new(&[0f32, 0.0], &Device::Cpu)?,
    );
    let message = fresh.load_state("", &state).unwrap_err().to_string();
    assert!(
        message.contains("velocity.bn.bias") && message.contains("[2]"),
        "{message}"
    );
    assert_eq!(fresh.step_count(), 0);
    for (name, tensor) in fresh.state()? {
        if name != STEP_COUNT {
            assert_eq!(values(&tensor)?, [0.0], "{name}");
        }
    }
    Ok(())
}
