//! Launches of our CUDA kernels, on a GPU or emulated.
//!
//! Kernels (`.cu` files beside their portable forms) are written against `kernel.cuh`: CUDA where nvcc compiles, and for tests
//! a few hundred lines of C++ that run a grid's threads as fibres. Everything in Rust around a kernel (the size of its grid,
//! the order of its arguments) is the same in both cases, so that all but the speed of a kernel is tested without a GPU.
//!
//! With neither feature `cuda` nor `cuda-emulation` a [`Queue`] cannot be had, and opening one says so.

mod argument;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda-emulation")]
mod emulated;
mod error;
mod tensors;
mod transfer;

pub use argument::Argument;
pub use error::CudaError;
pub use tensors::{Element, address, address_mut};
pub use transfer::Fetch;

/// Where kernels are sent to; they run in the order in which they are launched.
#[derive(Debug)]
pub struct Queue(Target);

#[derive(Debug)]
enum Target {
    #[cfg(feature = "cuda")]
    Device(device::Gpu),
    #[cfg(feature = "cuda-emulation")]
    Emulated,
}

/// Kernels of one crate, compiled by its build script: empty in a build without CUDA.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// Name for messages.
    pub name: &'static str,
    /// What nvcc made of the sources: code for several generations of GPUs.
    pub fatbin: &'static [u8],
}

/// One launch: a kernel's name, the shape of its grid and its arguments.
///
/// Arguments are pushed in the order of the kernel's parameters; their types are for the caller to get right, and a parameter
/// has at most 8 bytes.
#[derive(Clone, Debug)]
#[must_use]
pub struct Launch {
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: usize,
    arguments: Vec<Argument>,
}

impl Launch {
    /// A launch of one block of one thread without arguments.
    pub fn new(kernel: &'static str) -> Self {
        Self {
            kernel,
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            arguments: Vec::new(),
        }
    }

    /// Blocks along x, y and z.
    pub fn grid(mut self, x: usize, y: usize, z: usize) -> Self {
        self.grid = [x, y, z].map(count);
        self
    }

    /// Threads of a block along x and y.
    pub fn block(mut self, x: usize, y: usize) -> Self {
        self.block = [count(x), count(y), 1];
        self
    }

    /// Dynamic shared memory of a block in bytes.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared_bytes = bytes;
        self
    }

    /// The next argument.
    pub fn arg(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

/// Sizes of grids are 32 bits wide. Saturated, a size that is not is refused by the launch.
fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Queue {
    /// The queue of a GPU.
    ///
    /// # Errors
    /// [`CudaError::NotBuilt`] in a build without feature `cuda`, [`CudaError::NotACudaDevice`] for a CPU.
    pub fn of(device: &candle_core::Device) -> Result<Self, CudaError> {
        #[cfg(feature = "cuda")]
        return device::Gpu::of(device).map(|gpu| Self(Target::Device(gpu)));
        #[cfg(not(feature = "cuda"))]
        {
            let _ = device;
            Err(CudaError::NotBuilt)
        }
    }

    /// A queue that runs kernels on the CPU, for tests; its tensors are on the CPU.
    ///
    /// # Errors
    /// [`CudaError::NoEmulator`] in a build without feature `cuda-emulation`, or without a C++ compiler.
    pub fn emulated() -> Result<Self, CudaError> {
        #[cfg(feature = "cuda-emulation")]
        return emulated::is_built()
            .then_some(Self(Target::Emulated))
            .ok_or(CudaError::NoEmulator);
        #[cfg(not(feature = "cuda-emulation"))]
        Err(CudaError::NoEmulator)
    }

    /// Whether kernels run on the CPU.
    pub fn is_emulated(&self) -> bool {
        match self.0 {
            #[cfg(feature = "cuda")]
            Target::Device(_) => false,
            #[cfg(feature = "cuda-emulation")]
            Target::Emulated => true,
        }
    }

    /// Whether the tensors of a device can be handed to kernels of this queue.
    pub fn serves(&self, device: &candle_core::Device) -> bool {
        let _ = device;
        match self.0 {
            #[cfg(feature = "cuda")]
            Target::Device(ref gpu) => gpu.serves(device),
            #[cfg(feature = "cuda-emulation")]
            Target::Emulated => device.is_cpu(),
        }
    }

    /// Sends a kernel of `kernels` off. On a GPU it may still run when this returns.
    ///
    /// # Safety
    /// The arguments must be those of the kernel, in number, order and type, with addresses that the kernel may read and
    /// write as it does until it has ended.
    ///
    /// # Errors
    /// [`CudaError::Launch`] when there is no such kernel or the grid cannot be run.
    pub unsafe fn launch(&self, kernels: Kernels, launch: &Launch) -> Result<(), CudaError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let result = unsafe { self.dispatch(kernels, launch) };
        result.map_err(|problem| CudaError::Launch {
            kernel: launch.kernel,
            grid: launch.grid,
            block: launch.block,
            problem,
        })
    }

    /// # Safety
    /// That of [`Self::launch`].
    unsafe fn dispatch(&self, kernels: Kernels, launch: &Launch) -> Result<(), String> {
        let _ = (kernels, launch);
        match self.0 {
            #[cfg(feature = "cuda")]
            // SAFETY: the caller's promise.
            Target::Device(ref gpu) => unsafe { gpu.launch(kernels, launch) },
            #[cfg(feature = "cuda-emulation")]
            // SAFETY: the caller's promise; addresses are those of tensors on the CPU.
            Target::Emulated => unsafe { emulated::launch(launch) },
        }
    }
}

/// The kernels of this crate.
pub(crate) const KERNELS: Kernels = Kernels {
    name: "eqco-core",
    fatbin: include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")),
};

#[cfg(test)]
mod tests;
