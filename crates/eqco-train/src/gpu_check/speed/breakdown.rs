//! Where the time of a training step of ResNet-50 goes, operation by operation.

use std::time::Duration;

use anyhow::Result;
use eqco_models::profile::{Line, Phase, Profiler};

use super::Scale;
use crate::gpu_check::kernels::Place;
use crate::gpu_check::network_step::NetworkStep;
use crate::gpu_check::outcome::{Measurement, Outcome, Work};

/// Steps in which algorithms are chosen and memory is allocated, and those that are measured.
const WARM_UP_STEPS: u64 = 2;
const STEPS: u64 = 5;

/// A measurement for every kind of operation: its time in a step, with a wait for the device around each call.
pub(super) fn measure(place: Place<'_>, scale: Scale) -> Result<Outcome> {
    let (images, side) = (scale.of(256, 2), scale.of(224, 32));
    let mut network = NetworkStep::new(place, scale, [images, side])?;
    for _ in 0..WARM_UP_STEPS {
        network.step()?;
    }
    let profiler = Profiler::on();
    network.encoder = network.encoder.with_profiler(&profiler);
    for _ in 0..STEPS {
        network.step()?;
    }
    let report = profiler.report(STEPS, Duration::ZERO);
    let lines = report.map(|report| report.lines).unwrap_or_default();
    let measurements = lines.iter().filter(|line| line.calls > 0).map(of_step);
    Ok(Outcome {
        measurements: measurements.collect(),
        ..Outcome::default()
    })
}

fn of_step(line: &Line) -> Measurement {
    let phase = match line.phase {
        Phase::Other => String::new(),
        phase => format!(" {}", phase.title()),
    };
    Measurement {
        name: format!(
            "in a step: {}{phase}, {} times",
            line.operation,
            line.calls / STEPS
        ),
        milliseconds: 1e3 * line.seconds / STEPS as f64,
        work: if line.flops > 0 {
            Work::FlopsInBf16(line.flops / STEPS)
        } else {
            Work::Bytes(line.bytes / STEPS)
        },
    }
}
