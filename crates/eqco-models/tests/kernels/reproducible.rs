//! Results do not depend on recycled memory or repetition, and on the number of threads only by rounding.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::params::ParameterSet;
use eqco_models::resnet::{Architecture, EncoderConfig, ResNet, Stem};
use eqco_models::tape::{Gradients, Mode};

use crate::differentiate::{declare, in_exchange_shapes, on_threads};
use crate::families::on_every_family;
use crate::golden::{bits, largest_relative_error, values};
use crate::hashed::hashed;

fn network(architecture: Architecture, stem: Stem) -> Result<(ResNet, ParameterSet)> {
    let config = EncoderConfig {
        architecture,
        width: 6,
        stem,
        zero_init_residual: false,
    };
    declare(|b| ResNet::new(&config, b))
}

/// Output, image gradient and all parameter gradients of one step.
fn step(
    network: &ResNet,
    set: &ParameterSet,
    images: &Tensor,
    pool: &Arc<BufferPool>,
) -> Result<Vec<Tensor>> {
    let mut tape = crate::families::tape(Mode::Training, pool);
    let images = tape.input(images)?;
    let output = network.forward(&mut tape, &images)?;
    let mut results = vec![output.to_tensor()?];
    let mut gradients = Gradients::new(set)?;
    let gradient = hashed("reproducible gradient", output.dims())?;
    let inputs = tape.backward(&output, &gradient, &mut gradients, &[&images])?;
    results.extend(inputs.into_iter().flatten());
    results.extend(
        in_exchange_shapes(set, &gradients)?
            .into_iter()
            .map(|(_, g)| g),
    );
    Ok(results)
}

fn all_bits(results: &[Tensor]) -> Result<Vec<Vec<u32>>> {
    results.iter().map(bits).collect()
}

#[test]
fn repetition_and_recycled_memory_change_no_bit() -> Result<()> {
    on_every_family(|| {
        for (architecture, stem, side) in [
            (Architecture::Resnet18, Stem::Cifar, 12),
            (Architecture::Resnet50, Stem::Imagenet, 40),
        ] {
            let (network, set) = network(architecture, stem)?;
            let images = hashed("images", &[4, side, side + 3, 3])?;
            let first = step(&network, &set, &images, &BufferPool::new(&Device::Cpu))?;
            assert_eq!(first.len(), 2 + set.parameters().len());
            let first = all_bits(&first)?;
            let pool = BufferPool::new(&Device::Cpu);
            for round in 0..3 {
                let again = step(&network, &set, &images, &pool)?;
                assert_eq!(first, all_bits(&again)?, "{architecture:?}, round {round}");
                // Other values and another batch leave foreign contents in buffers of the same and of other sizes.
                step(&network, &set, &(&images * -3.0)?, &pool)?;
                step(&network, &set, &images.narrow(0, 0, 2)?, &pool)?;
            }
        }
        Ok(())
    })
}

/// The number of threads decides how work is cut up, and with it the order of some sums: rounding alone may differ. Runs
/// on one number of threads agree to the bit.
#[test]
fn thread_count_changes_rounding_alone() -> Result<()> {
    let (network, set) = network(Architecture::Resnet18, Stem::Imagenet)?;
    let images = hashed("images", &[5, 43, 37, 3])?;
    let run = |threads| {
        on_threads(threads, || {
            step(&network, &set, &images, &BufferPool::new(&Device::Cpu))
        })
    };
    let single = run(1)?;
    for threads in [1, 2, 3] {
        let several = run(threads)?;
        let repeated = run(threads)?;
        assert_eq!(
            all_bits(&several)?,
            all_bits(&repeated)?,
            "{threads} threads"
        );
        for (index, (one, other)) in single.iter().zip(&several).enumerate() {
            let error = largest_relative_error(&values(other)?, &values(one)?);
            let tolerance = if index == 0 { 1e-5 } else { 1e-4 };
            println!("{threads} threads, result {index}: {error:.1e} of {tolerance:.0e}");
            assert!(
                error <= tolerance,
                "{threads} threads, result {index}: {error:e}"
            );
        }
    }
    Ok(())
}
