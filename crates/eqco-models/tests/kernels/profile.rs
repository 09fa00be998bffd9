//! What a profile counts, against numbers worked out by hand.

use candle_core::{Device, Result, Tensor};
use eqco_models::buffer::BufferPool;
use eqco_models::ops::conv2d::conv2d;
use eqco_models::profile::{Phase, Profiler};
use eqco_models::tape::{Gradients, Mode};

use crate::differentiate::declare;
use crate::hashed::hashed;

#[test]
fn a_convolution_counts_its_arrays_and_its_multiplications_in_each_of_three_passes() -> Result<()> {
    let (weight, set) = declare(|b| b.conv_weight("weight", 5, 4, 3))?;
    let profiler = Profiler::on();
    let mut tape = crate::families::tape(Mode::Training, &BufferPool::new(&Device::Cpu))
        .with_profiler(&profiler);
    let images = tape.input(&hashed("images", &[2, 6, 8, 4])?)?;
    let output = conv2d(&mut tape, &images, &weight, 2, 1)?;
    assert_eq!(output.dims(), [2, 3, 4, 5]);
    let gradient: Tensor = hashed("gradient", output.dims())?;
    tape.backward(&output, &gradient, &mut Gradients::new(&set)?, &[&images])?;

    let report = profiler
        .report(1, std::time::Duration::from_secs(1))
        .expect("the profiler is on");
    for phase in [Phase::Forward, Phase::WeightGradient, Phase::InputGradient] {
        let found = report.lines.iter().find(|line| line.phase == phase);
        let line = found.expect("every pass is counted");
        assert!(
            line.operation.starts_with("conv2d 3x3 s2 "),
            "{}",
            line.operation
        );
        assert_eq!(line.calls, 1);
        let elements = 2 * 6 * 8 * 4 + 5 * 3 * 3 * 4 + 2 * 3 * 4 * 5;
        assert_eq!(line.bytes, 4 * elements);
        assert_eq!(line.flops, 2 * (2 * 3 * 4) * 5 * (3 * 3 * 4));
    }
    assert_eq!(report.lines.len(), 4);
    Ok(())
}
