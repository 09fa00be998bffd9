//! Where the time of training goes: a timer for every kind of operation, off unless asked for.
//!
//! A [`Profiler`] is carried by the encoder and its tapes, not global: two trainings in one process do not mix. An
//! operation opens a [`Span`] with what it is about to do; dropping the span books the time. When the profiler is off,
//! a span costs one branch and the description of the work is never made.
//!
//! On a GPU an operation has only been sent off when its function returns. A profiler that has been told to wait for the device does so
//! before and after every span: times are then those of the kernels with some 10 us of sending each, and the run as a whole is slower.
//!
//! Spans do not nest, so that their times add up to at most the time of the run; what lies between them (the tape itself,
//! copies of embeddings, the queue) is the report's last line.

mod report;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde::Serialize;

pub use report::{Line, Report};

/// Which part of a step an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From input to output, in either encoder.
    Forward,
    /// From the gradient of the output to all others.
    Backward,
    /// To the gradient of a convolution's weights.
    WeightGradient,
    /// To the gradient of a convolution's input.
    InputGradient,
    /// Beside the network.
    Other,
}

impl Phase {
    /// The phase in prose; empty beside the network.
    pub fn title(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::WeightGradient => "weight gradient",
            Self::InputGradient => "input gradient",
            Self::Other => "",
        }
    }
}

/// What one call of an operation does, computed from shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    operation: Cow<'static, str>,
    phase: Phase,
    bytes: u64,
    flops: u64,
}

impl Work {
    /// A call of `operation` that neither moves nor computes anything worth counting.
    pub fn new(operation: impl Into<Cow<'static, str>>, phase: Phase) -> Self {
        Self {
            operation: operation.into(),
            phase,
            bytes: 0,
            flops: 0,
        }
    }

    /// With the bytes of all arrays that it must read and write, each as often as it passes over it. What it does to
    /// scratch memory of its own is not counted.
    #[must_use]
    pub fn moving(mut self, bytes: usize) -> Self {
        self.bytes = bytes as u64;
        self
    }

    /// With the multiplications and additions of the textbook algorithm; a kernel that needs fewer, such as Winograd's,
    /// shows as faster.
    #[must_use]
    pub fn computing(mut self, flops: usize) -> Self {
        self.flops = flops as u64;
        self
    }
}

/// Bytes that one pass over each of these tensors moves.
pub(crate) fn bytes_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> usize {
    let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
    tensors.into_iter().map(bytes).sum()
}

/// Collects times, or does nothing. Clones share what they collect.
#[derive(Clone, Debug, Default)]
pub struct Profiler(Option<Arc<Collected>>);

#[derive(Debug, Default)]
struct Collected {
    totals: Mutex<Totals>,
    /// What to wait for.
    device: OnceLock<Device>,
}

type Totals = BTreeMap<(Cow<'static, str>, Phase), Total>;

/// The sum over all calls of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Total {
    calls: u64,
    elapsed: Duration,
    bytes: u64,
    flops: u64,
}

impl Profiler {
    /// One that does nothing; the default.
    pub fn off() -> Self {
        Self(None)
    }

    /// One that collects.
    pub fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// Waits for `device` around every span from here on. The first device stays; on the CPU there is nothing to wait for.
    pub fn wait_for(&self, device: &Device) {
        if let Some(collected) = &self.0
            && !device.is_cpu()
        {
            let _ = collected.device.set(device.clone());
        }
    }

    /// Books the time until the span is dropped as that of `work`.
    #[inline]
    pub fn span(&self, work: impl FnOnce() -> Work) -> Span {
        Span(self.0.as_ref().map(|collected| {
            collected.wait();
            (self.clone(), work(), Instant::now())
        }))
    }

    /// Books one call.
    pub fn add(&self, work: Work, elapsed: Duration) {
        if let Some(collected) = &self.0 {
            // A panic while the map is held leaves whole entries: it is still sound.
            let mut totals = collected
                .totals
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let total = totals.entry((work.operation, work.phase)).or_default();
            total.calls += 1;
            total.elapsed += elapsed;
            total.bytes += work.bytes;
            total.flops += work.flops;
        }
    }

    /// What has been collected over `steps` steps that took `elapsed` together; `None` when off.
    pub fn report(&self, steps: u64, elapsed: Duration) -> Option<Report> {
        let collected = self.0.as_ref()?;
        let totals = collected
            .totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(Report::new(&totals, steps, elapsed))
    }
}

impl Collected {
    fn wait(&self) {
        if let Some(device) = self.device.get() {
            // A device that fails says so to the operation that needs it next.
            let _ = device.synchronize();
        }
    }
}

/// An operation in progress; its time is booked when this is dropped.
#[derive(Debug)]
#[must_use = "a span that is dropped at once measures nothing"]
pub struct Span(Option<(Profiler, Work, Instant)>);

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some((profiler, work, start)) = self.0.take() {
            if let Some(collected) = &profiler.0 {
                collected.wait();
            }
            profiler.add(work, start.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profiler_that_is_off_asks_for_nothing_and_reports_nothing() {
        let profiler = Profiler::off();
        drop(profiler.span(|| unreachable!("nobody wants to know")));
        profiler.add(Work::new("loss", Phase::Other), Duration::from_secs(1));
        assert_eq!(profiler.report(1, Duration::from_secs(1)), None);
    }

    #[test]
    fn calls_of_one_operation_and_phase_add_up() {
        let profiler = Profiler::on();
        let call = |phase| Work::new("linear", phase).moving(100).computing(7);
        profiler.add(call(Phase::Forward), Duration::from_millis(20));
        profiler
            .clone()
            .add(call(Phase::Forward), Duration::from_millis(40));
        profiler.add(call(Phase::Backward), Duration::from_millis(10));
        let report = profiler.report(2, Duration::from_millis(100)).unwrap();
        let lines: Vec<_> = report
            .lines
            .iter()
            .map(|line| (line.phase, line.calls, line.bytes, line.flops))
            .collect();
        assert_eq!(
            lines,
            [
                (Phase::Forward, 2, 200, 14),
                (Phase::Other, 0, 0, 0),
                (Phase::Backward, 1, 100, 7)
            ]
        );
    }

    #[test]
    fn a_span_books_its_time_once() {
        let profiler = Profiler::on();
        let start = Instant::now();
        let span = profiler.span(|| Work::new("upload", Phase::Other).moving(5));
        assert_eq!(profiler.report(1, start.elapsed()).unwrap().lines.len(), 1);
        drop(span);
        let elapsed = start.elapsed();
        let report = profiler.report(1, elapsed).unwrap();
        let upload = report.lines.iter().find(|line| line.operation == "upload");
        let upload = upload.unwrap();
        assert_eq!((upload.calls, upload.bytes), (1, 5));
        assert!(upload.seconds > 0.0 && upload.seconds <= elapsed.as_secs_f64());
    }
}
