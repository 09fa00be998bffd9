//! Kernels on the CPU, for tests.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::{Argument, Launch};

#[cfg(emulator)]
unsafe extern "C" {
    fn eqco_emulated_launch(
        name: *const c_char,
        grid: *const u32,
        block: *const u32,
        shared_bytes: usize,
        arguments: *mut *mut c_void,
    ) -> c_int;
}

/// The place of [`eqco_emulated_launch`] in a build that had no C++ compiler. Nobody gets that far.
#[cfg(not(emulator))]
unsafe fn eqco_emulated_launch(
    _: *const c_char,
    _: *const u32,
    _: *const u32,
    _: usize,
    _: *mut *mut c_void,
) -> c_int {
    1
}

pub(super) fn is_built() -> bool {
    cfg!(emulator)
}

/// Runs a kernel to its end.
///
/// # Safety
/// That of [`super::Queue::launch`].
pub(super) unsafe fn launch(launch: &Launch) -> Result<(), String> {
    // The emulator is one thread with global state.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let name = CString::new(launch.kernel).map_err(|error| error.to_string())?;
    let mut values: Vec<u64> = launch
        .arguments
        .iter()
        .map(|&Argument(value)| value)
        .collect();
    let mut arguments: Vec<*mut c_void> = values
        .iter_mut()
        .map(|value| std::ptr::from_mut(value).cast())
        .collect();
    // SAFETY: names and sizes live to the end of the call; the rest is the caller's promise.
    let status = unsafe {
        eqco_emulated_launch(
            name.as_ptr(),
            launch.grid.as_ptr(),
            launch.block.as_ptr(),
            launch.shared_bytes,
            arguments.as_mut_ptr(),
        )
    };
    match status {
        0 => Ok(()),
        1 => Err("there is no kernel of this name".to_owned()),
        2 => Err(format!(
            "more than a device runs, with {} bytes of shared memory",
            launch.shared_bytes
        )),
        _ => Err("some threads wait at a barrier that others never reach".to_owned()),
    }
}
