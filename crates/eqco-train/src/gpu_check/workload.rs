//! What people do with a GPU, timed on its own and in turns with PyTorch.

use std::time::{Duration, Instant};

use anyhow::Result;
use eqco_models::method::{MethodName, Statistics};
use eqco_models::optim::{OptimizerConfig, SgdConfig};
use eqco_models::{Architecture, EncoderConfig, Precision, Stem};

use super::Problem;
use super::kernels::Place;
use super::memory;
use super::network_step::NetworkStep;
use super::outcome::{Measurement, Outcome, PeerComparison, Work};
use super::part::Workload;
use super::pytorch::{Absent, Interpreter, Peer, Variant};
use super::speed::{FusedLoss, Scale, median};

/// Turns of PyTorch; ours has one more.
const ROUNDS: usize = 2;
const WARM_UP_STEPS: usize = 5;
/// What PyTorch may take: to import, compile and warm up, and for a measurement.
const WARM_UP_LIMIT: Duration = Duration::from_secs(180);
const MEASUREMENT_LIMIT: Duration = Duration::from_secs(30);

/// How much is timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    /// How large.
    pub(super) scale: Scale,
    /// Steps of one turn.
    pub(super) steps: usize,
    /// `None` to leave PyTorch out.
    pub(super) pytorch: Option<&'a Interpreter>,
}

/// Times a workload, alone and in turns with every variant of PyTorch. What PyTorch cannot do is noted, and no error.
///
/// # Errors
/// When ours fails.
pub(super) fn measure(
    workload: Workload,
    place: Place<'_>,
    settings: Settings<'_>,
    progress: &dyn Fn(&str),
    keep: &dyn Fn(&Outcome),
) -> Result<Outcome> {
    progress("ours");
    let mut ours = Ours::new(workload, place, settings)?;
    let alone = ours.turn()?;
    let our_peak_bytes = memory::peak_bytes(place.device)?;
    let mut outcome = Outcome {
        measurements: vec![Measurement {
            name: ours.title.to_owned(),
            milliseconds: alone,
            work: ours.work,
        }],
        ..Outcome::default()
    };
    let Some(interpreter) = settings.pytorch else {
        outcome.notes.push(not_compared("it was left out"));
        return Ok(outcome);
    };
    for variant in Variant::ALL {
        keep(&outcome);
        progress(&format!("PyTorch, {}", variant.name()));
        let peer = Peer::start(interpreter, workload, variant, WARM_UP_LIMIT);
        match peer.and_then(|peer| in_turns(&mut ours, peer)) {
            Ok(turns) => outcome.comparisons.push(PeerComparison {
                workload: workload.name().to_owned(),
                variant: variant.name().to_owned(),
                our_peak_bytes,
                ..turns
            }),
            Err(error) if error.is::<Absent>() => {
                outcome.notes.push(not_compared(&error.to_string()));
                break;
            }
            Err(error) => {
                let what = format!("{} of {}: {error:#}", variant.name(), workload.name());
                outcome.notes.push(not_compared(&what));
            }
        }
    }
    Ok(outcome)
}

fn not_compared(reason: &str) -> String {
    format!("NOT COMPARED with PyTorch: {reason}")
}

/// Ours, theirs, ours, theirs, ours.
fn in_turns(ours: &mut Ours<'_>, mut peer: Peer) -> Result<PeerComparison> {
    let mut ours_of_rounds = vec![ours.turn()?];
    let (mut theirs_of_rounds, mut peak) = (Vec::new(), None);
    for _ in 0..ROUNDS {
        let theirs = peer.measure(MEASUREMENT_LIMIT)?;
        theirs_of_rounds.push(theirs.milliseconds);
        peak = theirs.peak_bytes;
        ours_of_rounds.push(ours.turn()?);
    }
    Ok(PeerComparison {
        workload: String::new(),
        variant: String::new(),
        version: peer.ready.version.clone(),
        warm_up_seconds: peer.ready.warm_up_seconds,
        speedup: speedup(&ours_of_rounds, &theirs_of_rounds),
        our_milliseconds: median(ours_of_rounds),
        their_milliseconds: median(theirs_of_rounds),
        our_peak_bytes: None,
        their_peak_bytes: peak,
    })
}

/// The median of PyTorch's rounds over the mean of ours before and after each.
fn speedup(ours: &[f64], theirs: &[f64]) -> f64 {
    let neighbours = ours.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let ratios: Vec<f64> = theirs.iter().zip(neighbours).map(|(t, o)| t / o).collect();
    // Of two the mean: there is no middle one.
    match ratios[..] {
        [first, second] => (first + second) / 2.0,
        _ => median(ratios),
    }
}

/// Our side of a workload.
struct Ours<'a> {
    title: &'static str,
    work: Work,
    steps: usize,
    place: Place<'a>,
    step: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl<'a> Ours<'a> {
    /// Ready, with warm algorithms, and a peak of memory that counts from here.
    fn new(workload: Workload, place: Place<'a>, settings: Settings<'_>) -> Result<Self> {
        let scale = settings.scale;
        let (images, side) = match scale {
            Scale::Full => (256, 224),
            Scale::Tiny => (8, 32),
        };
        let (title, work, step): (_, _, Box<dyn FnMut() -> Result<()> + 'a>) = match workload {
            Workload::ResNet50 => {
                let mut network = NetworkStep::new(place, scale, [images, side])?;
                let title = "ResNet-50 step, 224 pixels, batch 256, bf16";
                let work = Work::Images(images as u64);
                (title, work, Box::new(move || network.step()))
            }
            Workload::Simo => {
                let mut state = simo(scale, images, side).on(place.device, place.backend)?;
                let (views, mut step, mut before) = (state.views(0), 0, None::<Statistics>);
                let title = "SiMo step, ResNet-50, 224 pixels, batch 256, bf16";
                // Every loss is read, when the next step has been sent off, as in training.
                let run = move || {
                    step += 1;
                    let statistics = state.send(step, &views)?;
                    if let Some(before) = before.replace(statistics) {
                        before.wait()?;
                    }
                    Ok(())
                };
                (title, Work::Images(images as u64), Box::new(run))
            }
            Workload::Loss => {
                let loss = FusedLoss::new(place, scale)?;
                let title = "loss 4096 x 65536 x 128, bf16, queue";
                let work = Work::FlopsInBf16(loss.flops());
                (title, work, Box::new(move || loss.send()))
            }
        };
        let mut ours = Self {
            title,
            work,
            steps: settings.steps,
            place,
            step,
        };
        for _ in 0..WARM_UP_STEPS {
            (ours.step)()?;
        }
        memory::reset_peak(place.device)?;
        Ok(ours)
    }

    /// Milliseconds of a step.
    fn turn(&mut self) -> Result<f64> {
        self.place.device.synchronize()?;
        let start = Instant::now();
        for _ in 0..self.steps {
            (self.step)()?;
        }
        self.place.device.synchronize()?;
        Ok(1e3 * start.elapsed().as_secs_f64() / self.steps.max(1) as f64)
    }
}

fn simo(scale: Scale, batch_size: usize, image_size: usize) -> Problem {
    let (architecture, width) = match scale {
        Scale::Full => (Architecture::Resnet50, 64),
        Scale::Tiny => (Architecture::Resnet18, 4),
    };
    Problem {
        encoder: EncoderConfig {
            architecture,
            width,
            stem: Stem::Imagenet,
            zero_init_residual: false,
        },
        method: MethodName::Simo,
        optimizer: OptimizerConfig::Sgd(SgdConfig::default()),
        precision: Precision::Bf16,
        image_size,
        batch_size,
        batch_norm_group: 0,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use eqco_models::backend::Backend;

    use super::*;

    #[test]
    fn a_round_of_pytorch_is_compared_with_ours_before_and_after() {
        // 3/1.5 and 8/2.
        assert!((speedup(&[1.0, 2.0, 2.0], &[3.0, 8.0]) - 3.0).abs() < 1e-12);
        assert!((speedup(&[1.0, 1.0, 1.0, 1.0], &[5.0, 2.0, 3.0]) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn every_workload_runs_and_a_missing_python_is_said_aloud() -> Result<()> {
        let place = Place {
            device: &Device::Cpu,
            backend: &Backend::Portable,
        };
        let interpreter = Interpreter {
            python: "/no/such/python3".into(),
            device: "cpu",
            is_small: true,
        };
        let settings = Settings {
            scale: Scale::Tiny,
            steps: 1,
            pytorch: Some(&interpreter),
        };
        for workload in Workload::ALL {
            let outcome = measure(workload, place, settings, &|_| (), &|_| ())?;
            assert!(outcome.measurements[0].milliseconds > 0.0);
            assert!(outcome.comparisons.is_empty() && outcome.passed());
            let [note] = &outcome.notes[..] else {
                panic!("{:?}", outcome.notes)
            };
            assert!(note.starts_with("NOT COMPARED with PyTorch: `/no/such/python3`"));
        }
        Ok(())
    }
}
