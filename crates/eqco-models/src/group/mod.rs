//! Processes that train one encoder together, each on its part of every batch.
//!
//! All of them hold the same parameters. A step is that of one process that goes through the batch in as many micro-batches
//! as there are ranks: keys are gathered, gradients averaged, and running statistics put together in the order of ranks. On
//! CPUs messages go over TCP; on GPUs tensors go through NCCL (feature `nccl`), and figures of the host over TCP.

mod bucket;
pub mod error;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(not(feature = "nccl"))]
#[path = "no_nccl.rs"]
mod nccl;
mod peer;
mod rendezvous;
pub(crate) mod running_statistics;
mod star;
#[cfg(feature = "nccl")]
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use eqco_core::BatchStatistics;

use self::nccl::Nccl;
use self::star::Star;
use crate::error::ModelError;

pub use self::error::GroupError;
pub use self::rendezvous::Rendezvous;

/// This process among those that train together. All must call the same operations in the same order; each of them waits for
/// the others, for no longer than [`Rendezvous::patience`] in a row.
///
/// After an error the group has ended: the others are told, and get one, too.
#[derive(Debug)]
pub struct ProcessGroup {
    rank: usize,
    size: usize,
    transport: Transport,
}

/// How values get to the others.
#[derive(Debug)]
enum Transport {
    /// There are none.
    Alone,
    /// Everything over TCP.
    Tcp(Mutex<Star>),
    /// Tensors from GPU to GPU, figures of the host over TCP.
    Gpu(Nccl, Mutex<Star>),
}

impl ProcessGroup {
    /// One process on its own: nothing is sent, and every operation gives back what it got.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            transport: Transport::Alone,
        }
    }

    /// Waits for all processes. Tensors of the group are on CPUs, until [`ProcessGroup::on_device`].
    ///
    /// # Errors
    /// When one does not come in time, or does not fit: [`GroupError`] names it.
    pub fn join(rendezvous: &Rendezvous) -> Result<Self, GroupError> {
        let (rank, size) = (rendezvous.rank, rendezvous.size);
        if (rank, size) == (0, 1) {
            return Ok(Self::alone());
        }
        let star = Star::meet(rendezvous)?;
        Ok(Self {
            rank,
            size,
            transport: Transport::Tcp(Mutex::new(star)),
        })
    }

    /// The same group for tensors on `device`: over NCCL where that is a GPU. To be called by all ranks.
    ///
    /// # Errors
    /// [`GroupError::NotBuilt`] for GPUs in a build without feature `nccl`, [`GroupError::Nccl`] when it fails.
    pub fn on_device(self, device: &Device) -> Result<Self, GroupError> {
        let (rank, size) = (self.rank, self.size);
        let transport = match self.transport {
            Transport::Tcp(star) if !device.is_cpu() => {
                let mut open = star.into_inner().unwrap_or_else(PoisonError::into_inner);
                let gpu = Nccl::open(&mut open, (rank, size), device)
                    .inspect_err(|error| open.leave(&error.to_string()))?;
                Transport::Gpu(gpu, Mutex::new(open))
            }
            other => other,
        };
        Ok(Self {
            rank,
            size,
            transport,
        })
    }

    /// This process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes, at least 1.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is the process that writes, shows and evaluates.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The mean of every tensor over all ranks, in place. Contiguous f32 of the same shapes on all ranks. On CPUs the ranks'
    /// values are added in order; on all devices every rank has the same result.
    ///
    /// # Errors
    /// When another rank is gone or at another place, or a tensor is of another kind.
    pub fn average(&self, tensors: &[Tensor]) -> Result<(), ModelError> {
        self.reduce(tensors, true)
    }

    /// The sum of every tensor over all ranks, in place, otherwise as [`ProcessGroup::average`].
    ///
    /// # Errors
    /// Those of [`ProcessGroup::average`].
    pub fn sum(&self, tensors: &[Tensor]) -> Result<(), ModelError> {
        self.reduce(tensors, false)
    }

    fn reduce(&self, tensors: &[Tensor], mean: bool) -> Result<(), ModelError> {
        let star = match &self.transport {
            Transport::Alone => return Ok(()),
            Transport::Gpu(gpu, _) => return gpu.reduce(tensors, mean),
            Transport::Tcp(star) => star,
        };
        let divisor = if mean { self.size as f32 } else { 1.0 };
        let mut star = locked(star);
        for bucket in bucket::buckets(tensors.iter().map(Tensor::elem_count), bucket::CAPACITY) {
            let mut values = bucket::fill(&bucket, tensors)?;
            star.sum(&mut values, divisor)?;
            bucket::empty(&bucket, &values, tensors)?;
        }
        Ok(())
    }

    /// The rows `[R·n, ...]` of all R ranks in order, from as many rows `[n, ...]` of each; f32 or bf16.
    ///
    /// # Errors
    /// When another rank is gone, at another place, or has other rows.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        if let Transport::Alone = self.transport {
            return Ok(rows.clone());
        }
        // Exact, also for bf16.
        let own = rows.to_dtype(DType::F32)?.contiguous()?;
        let all = match &self.transport {
            Transport::Gpu(gpu, _) => gpu.rows(&own)?,
            Transport::Tcp(star) => {
                let values = locked(star).rows(&own.flatten_all()?.to_vec1::<f32>()?)?;
                let mut dims = own.dims().to_vec();
                dims[0] *= self.size;
                Tensor::from_vec(values, dims, own.device())?
            }
            Transport::Alone => own,
        };
        Ok(all.to_dtype(rows.dtype())?)
    }

    /// Of rows `[R·n, ...]` of all ranks the `n` of this one.
    ///
    /// # Errors
    /// When the ranks do not divide the rows.
    pub fn own_rows(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        let rows = all.dim(0)?;
        if !rows.is_multiple_of(self.size) {
            let problem = format!("{} ranks do not divide {rows} rows", self.size);
            return Err(ModelError::Conflict { problem });
        }
        let own = rows / self.size;
        Ok(all.narrow(0, self.rank * own, own)?)
    }

    /// The figures of all ranks, as many of each, in order.
    ///
    /// # Errors
    /// When another rank is gone or at another place.
    pub fn numbers(&self, mine: &[f64]) -> Result<Vec<Vec<f64>>, GroupError> {
        match &self.transport {
            Transport::Alone => Ok(vec![mine.to_vec()]),
            Transport::Tcp(star) | Transport::Gpu(_, star) => locked(star).numbers(mine),
        }
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// When another rank is gone or at another place.
    pub fn barrier(&self) -> Result<(), GroupError> {
        self.numbers(&[]).map(drop)
    }

    /// Whether it is so on any rank.
    ///
    /// # Errors
    /// When another rank is gone or at another place.
    pub fn any(&self, here: bool) -> Result<bool, GroupError> {
        let all = self.numbers(&[f64::from(u8::from(here))])?;
        Ok(all.iter().flatten().any(|flag| *flag > 0.0))
    }

    /// The statistics of a whole batch from those of this rank's part.
    ///
    /// # Errors
    /// When another rank is gone or at another place.
    pub fn statistics(&self, mine: &BatchStatistics) -> Result<BatchStatistics, GroupError> {
        if self.size == 1 {
            return Ok(*mine);
        }
        let all = self.numbers(&to_numbers(mine))?;
        let parts: Vec<BatchStatistics> = all.iter().map(|part| from_numbers(part)).collect();
        Ok(BatchStatistics::of_equal_parts(&parts))
    }

    /// The last operation of the group: waits until all ranks are here. From then on each may end when it likes.
    ///
    /// # Errors
    /// When another rank is gone or at another place.
    pub fn end(&self) -> Result<(), GroupError> {
        self.barrier()?;
        if let Transport::Gpu(gpu, _) = &self.transport {
            gpu.end();
        }
        Ok(())
    }

    /// Tells the others that this process ends, and why. They get [`GroupError::Left`] where they would wait for it.
    pub fn leave(&self, reason: &str) {
        if let Transport::Tcp(star) | Transport::Gpu(_, star) = &self.transport {
            locked(star).leave(reason);
        }
    }
}

fn locked(star: &Mutex<Star>) -> MutexGuard<'_, Star> {
    star.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_numbers(statistics: &BatchStatistics) -> [f64; 8] {
    let BatchStatistics {
        loss,
        contrast_top1,
        positive_similarity,
        negative_similarity,
        gradient_scale,
        gradient_scale_deviation,
        guaranteed_bound,
        paper_bound,
    } = *statistics;
    [
        loss,
        contrast_top1,
        positive_similarity,
        negative_similarity,
        gradient_scale,
        gradient_scale_deviation,
        guaranteed_bound,
        paper_bound,
    ]
}

fn from_numbers(numbers: &[f64]) -> BatchStatistics {
    let at = |place: usize| numbers.get(place).copied().unwrap_or(f64::NAN);
    BatchStatistics {
        loss: at(0),
        contrast_top1: at(1),
        positive_similarity: at(2),
        negative_similarity: at(3),
        gradient_scale: at(4),
        gradient_scale_deviation: at(5),
        guaranteed_bound: at(6),
        paper_bound: at(7),
    }
}

#[cfg(test)]
mod tests;
