//! The families of kernels that a test is run with: the portable one, and CUDA's kernels in the emulator.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Result;
use eqco_models::backend::Backend;
use eqco_models::buffer::BufferPool;
use eqco_models::cuda::Cuda;
use eqco_models::tape::{Mode, Tape};

thread_local! {
    static FAMILY: RefCell<Backend> = const { RefCell::new(Backend::Portable) };
}

/// Calls `run` for every family that this build has; passes made with [`tape`] on this thread compute with it then.
pub fn on_every_family(run: impl Fn() -> Result<()>) -> Result<()> {
    run()?;
    match Cuda::emulated() {
        Ok(cuda) => {
            FAMILY.set(Backend::Cuda(Arc::new(cuda)));
            let result = run();
            FAMILY.set(Backend::Portable);
            result.map_err(|error| error.context("with emulated CUDA kernels"))
        }
        Err(error) => {
            eprintln!("NOT RUN with CUDA kernels: {error}");
            Ok(())
        }
    }
}

/// The family of this thread.
pub fn family() -> Backend {
    FAMILY.with_borrow(Backend::clone)
}

/// A pass with the family of this thread.
pub fn tape(mode: Mode, pool: &Arc<BufferPool>) -> Tape {
    FAMILY.with_borrow(|family| Tape::new(mode, pool).with_backend(family))
}
