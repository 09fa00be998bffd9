//! What computes: the device that encoders run on, and threads of the CPU.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Args;
use eqco_eval::EvalError;
use eqco_models::backend::{Backend, BackendError, BackendName};
use eqco_models::checkpoint::{Checkpoint, CheckpointMetadata};
use eqco_models::cuda::CudaConfig;
use eqco_models::{DeviceName, Encoder, Precision};
use serde::Serialize;

/// Flags of every command that runs an encoder.
#[derive(Args, Debug)]
pub(super) struct ComputeArgs {
    /// Where the encoder runs and is trained: `cpu`, or `cuda:1` for the second GPU; `cuda` is the first one. Neighbours, linear
    /// probe and pictures are computed on the CPU
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::Cpu)]
    device: DeviceName,
    /// Threads; 0 for one a core
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
}

/// A device with its kernels, ready, and the one pool of threads, started.
pub(super) struct Compute {
    name: DeviceName,
    device: Device,
    backend: Backend,
    /// Size of the pool.
    pub(super) threads: usize,
}

/// Where the encoder ran; part of the JSON result.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ComputedOn {
    device: DeviceName,
    backend: BackendName,
}

impl ComputeArgs {
    /// Starts the threads and makes the device ready, never another one than the one asked for. A GPU is named on stderr.
    pub(super) fn start(&self) -> Result<Compute> {
        let (device, backend) =
            opened(self.device).map_err(|reason| EvalError::Device { reason })?;
        if self.device != DeviceName::Cpu {
            eprintln!("the encoder runs on {}: {backend}", self.device);
        }
        Ok(Compute {
            name: self.device,
            device,
            backend,
            threads: start_threads(self.threads)?,
        })
    }
}

/// A device with the kernels that suit it.
fn opened(name: DeviceName) -> Result<(Device, Backend), BackendError> {
    let device = name.open()?;
    let family = match name {
        DeviceName::Cpu => BackendName::Portable,
        DeviceName::Cuda(_) => BackendName::Cuda,
    };
    let backend = Backend::open(family, Precision::F32, &device, CudaConfig::default())?;
    Ok((device, backend))
}

/// Sizes the one pool that all kernels share, 0 for one thread a core; answers with its size.
fn start_threads(threads: u16) -> Result<usize> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => usize::from(threads),
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    pool.with_context(|| format!("{threads} threads cannot be started"))?;
    Ok(threads)
}

impl Compute {
    /// The encoder of a checkpoint, which was read from `path`.
    pub(super) fn encoder(&self, checkpoint: &Checkpoint, path: &Path) -> Result<Encoder> {
        let encoder = Encoder::from_checkpoint(checkpoint, &self.device)
            .with_context(|| format!("the encoder of {} cannot be built", path.display()))?;
        Ok(encoder.with_backend(self.backend.clone()))
    }

    /// An encoder as a checkpoint describes it, at the initialisation of a seed.
    pub(super) fn untrained(&self, metadata: &CheckpointMetadata, seed: u64) -> Result<Encoder> {
        let (encoder, head) = (&metadata.encoder, &metadata.projection_head);
        let encoder = Encoder::new(encoder, head, metadata.normalization, seed, &self.device)?;
        Ok(encoder.with_backend(self.backend.clone()))
    }

    /// What results say.
    pub(super) fn provenance(&self) -> ComputedOn {
        ComputedOn {
            device: self.name,
            backend: self.backend.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_comes_with_its_own_kernels_or_not_at_all() {
        let (device, backend) = opened(DeviceName::Cpu).unwrap();
        assert!(device.is_cpu());
        assert_eq!(backend.name(), BackendName::Portable);
        let reason = opened(DeviceName::Cuda(99)).unwrap_err();
        let error = EvalError::Device { reason };
        assert!(error.to_string().starts_with("`device`: "), "{error}");
        let hint = error.hint().unwrap();
        assert_eq!(hint, "leave --device away to compute on the CPU");
    }
}
