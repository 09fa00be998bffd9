//! What can go wrong with kernels on a GPU.

/// Why a kernel could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The program was built without CUDA.
    #[error("this build has no CUDA kernels; build it with `--features cuda`")]
    NotBuilt,
    /// The program was built without the emulator, or there was no C++ compiler then.
    #[error(
        "this build has no emulated kernels: they need the feature `cuda-emulation` and a C++ compiler"
    )]
    NoEmulator,
    /// Kernels are asked for on another device.
    #[error("expected a CUDA device, found {found}")]
    NotACudaDevice {
        /// What was found.
        found: String,
    },
    /// A kernel could not be started.
    #[error("kernel {kernel} on a grid of {grid:?} blocks of {block:?} threads: {problem}")]
    Launch {
        /// Its name.
        kernel: &'static str,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: [u32; 3],
        /// What the driver or the emulator says.
        problem: String,
    },
    /// The driver or a library refuses.
    #[error("CUDA: {0}")]
    Driver(String),
}

impl From<CudaError> for candle_core::Error {
    fn from(error: CudaError) -> Self {
        Self::wrap(error)
    }
}
