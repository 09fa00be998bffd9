//! NVIDIA's library for GPUs of several processes. Every call only joins the device's own stream: nothing here waits for the
//! GPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp, group_end, group_start};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Device, InplaceOp1, Layout, Result, Shape, Tensor, bail,
};

use super::error::GroupError;
use super::peer::Kind;
use super::star::Star;
use super::watch::Watch;
use crate::error::ModelError;

/// Bytes of the name under which the processes find each other.
const ID_BYTES: usize = 128;

/// One process's part of a communicator.
pub(super) struct Nccl {
    /// Ends before the communicator does.
    watch: Watch,
    communicator: Mutex<Communicator>,
    stream: Arc<CudaStream>,
    size: usize,
}

/// NCCL's handle, which may move between threads but not be used by two at a time.
struct Communicator(Comm);

// SAFETY: NCCL allows a communicator to be used by any thread, one at a time: the mutex around it sees to that, and nothing
// made from it leaves the lock.
unsafe impl Send for Communicator {}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nccl").finish_non_exhaustive()
    }
}

impl Nccl {
    /// Joins the GPUs of all ranks, each the `device` of its process.
    pub(super) fn open(
        star: &mut Star,
        (rank, size): (usize, usize),
        device: &Device,
    ) -> std::result::Result<Self, GroupError> {
        let Device::Cuda(gpu) = device else {
            let found = format!("{:?}", device.location());
            return Err(nccl("use the device", found));
        };
        let stream = gpu.cuda_stream();
        let bound = stream.context().bind_to_thread();
        bound.map_err(|error| nccl("use the device", error.to_string()))?;
        let own = match rank {
            0 => *Id::new()
                .map_err(|error| failed("name the group", &error))?
                .internal(),
            _ => [0; ID_BYTES],
        };
        let shared = star.broadcast(Kind::NcclId, &own.map(|byte| byte as u8))?;
        let mut name = own;
        for (place, byte) in name.iter_mut().zip(shared) {
            *place = byte as std::ffi::c_char;
        }
        // From here on a rank that dies would leave the others waiting inside of NCCL.
        let watch = Watch::start(star)?;
        let comm = Comm::from_rank(Arc::clone(&stream), rank, size, Id::uninit(name))
            .map_err(|error| failed("join the GPUs", &error))?;
        Ok(Self {
            watch,
            communicator: Mutex::new(Communicator(comm)),
            stream,
            size,
        })
    }

    /// From now on the others may end.
    pub(super) fn end(&self) {
        self.watch.end();
    }

    /// Sums every tensor over the ranks, or takes the mean, in place: one launch for all of them.
    pub(super) fn reduce(
        &self,
        tensors: &[Tensor],
        mean: bool,
    ) -> std::result::Result<(), ModelError> {
        let communicator = self.lock()?;
        let reduce = Reduce {
            comm: &communicator.0,
            mean,
        };
        group_start().map_err(|error| failed("begin a sum", &error))?;
        let begun = tensors
            .iter()
            .try_for_each(|tensor| tensor.inplace_op1(&reduce));
        // Also after a failure: the library would wait for the end for ever.
        group_end().map_err(|error| failed("sum over the ranks", &error))?;
        Ok(begun?)
    }

    /// The rows of all ranks in order.
    pub(super) fn rows(&self, own: &Tensor) -> std::result::Result<Tensor, ModelError> {
        let communicator = self.lock()?;
        let gather = Gather {
            comm: &communicator.0,
            size: self.size,
        };
        Ok(own.contiguous()?.apply_op1_no_bwd(&gather)?)
    }

    fn lock(&self) -> std::result::Result<MutexGuard<'_, Communicator>, GroupError> {
        let bound = self.stream.context().bind_to_thread();
        bound.map_err(|error| nccl("use the device", error.to_string()))?;
        Ok(self
            .communicator
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

struct Reduce<'a> {
    comm: &'a Comm,
    mean: bool,
}

impl InplaceOp1 for Reduce<'_> {
    fn name(&self) -> &'static str {
        "eqco-all-reduce"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("expected a tensor on a GPU, found one on the CPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let op = if self.mean {
            ReduceOp::Avg
        } else {
            ReduceOp::Sum
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!(
                "expected a contiguous tensor, found strides {:?}",
                layout.stride()
            );
        };
        let mut values = storage
            .as_cuda_slice_mut::<f32>()?
            .try_slice_mut(start..end)
            .ok_or_else(|| candle_core::Error::msg("a tensor is larger than its memory"))?;
        let begun = self.comm.all_reduce_in_place(&mut values, &op);
        begun.map_err(|error| failed("sum over the ranks", &error))?;
        Ok(())
    }
}

struct Gather<'a> {
    comm: &'a Comm,
    size: usize,
}

impl CustomOp1 for Gather<'_> {
    fn name(&self) -> &'static str {
        "eqco-all-gather"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("expected a tensor on a GPU, found one on the CPU")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let gpu = storage.device().clone();
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!(
                "expected a contiguous tensor, found strides {:?}",
                layout.stride()
            );
        };
        let own = storage.as_cuda_slice::<f32>()?.slice(start..end);
        let count = self.size * (end - start);
        // SAFETY: every value is written by the call below before anything in the same stream reads it.
        let mut all = unsafe { gpu.alloc::<f32>(count)? };
        let begun = self.comm.all_gather(&own, &mut all);
        begun.map_err(|error| failed("gather rows", &error))?;
        let mut dims = layout.dims().to_vec();
        dims[0] *= self.size;
        Ok((CudaStorage::wrap_cuda_slice(all, gpu), dims.into()))
    }
}

fn nccl(action: &'static str, problem: String) -> GroupError {
    GroupError::Nccl { action, problem }
}

fn failed(action: &'static str, error: &NcclError) -> GroupError {
    nccl(action, format!("{error:?}"))
}

/// Lets `?` carry our errors out of candle's operations.
impl From<GroupError> for candle_core::Error {
    fn from(error: GroupError) -> Self {
        Self::wrap(error)
    }
}
