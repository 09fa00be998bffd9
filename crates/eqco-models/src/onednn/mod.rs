//! Convolutions of the oneDNN library, which is opened at run time: nothing of it is needed to build.
//!
//! oneDNN brings a thread team of its own. Two teams that wait for each other cost more than the faster kernels gain, so
//! ours alone works: every task of rayon's pool runs single-threaded primitives on its share of the images.

mod api;
mod convolution;
mod library_file;
mod primitive;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use libloading::Library;

use self::api::Api;
use self::convolution::{Key, Plan};
use self::primitive::Engine;
use crate::precision::Precision;

/// Names a library file, before all other places.
pub const PATH_VARIABLE: &str = "EQCO_ONEDNN";
/// Where `cargo xtask fetch onednn` puts it, below the working directory, the program's folder or a folder above them.
pub const FETCHED: &str = "data/fetched/onednn/libdnnl.so.3";
/// What the system's loader is asked for last.
const SYSTEM: &str = "libdnnl.so.3";

// Sets of bits of `dnnl_cpu_isa_t`. Those of AVX-512 contain each other and AVX2, but not `AVX2_BF16`.
const AMX: i32 = 0xfef;
const AVX512_FP16: i32 = 0x1ef;
const AVX512_BF16: i32 = 0xe7;
const AVX512: i32 = 0x27;
const AVX2_BF16: i32 = 0x1f;
const AVX2: i32 = 0x7;

/// Why oneDNN cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnednnError {
    /// No library was found, or one that cannot be opened.
    #[error(
        "oneDNN cannot be opened: {reason}; install it with `cargo xtask fetch onednn`, or name the file in {PATH_VARIABLE}"
    )]
    Open {
        /// The file, and what the loader answered.
        reason: String,
    },
    /// The library is of another major version.
    #[error(
        "{path}: expected oneDNN 3, found {major}.{minor}; install one with `cargo xtask fetch onednn`"
    )]
    Version {
        /// The library.
        path: PathBuf,
        /// Its major version.
        major: i32,
        /// Its minor version.
        minor: i32,
    },
    /// The library has no bf16 convolutions for this CPU.
    #[error(
        "oneDNN computes in bf16 on CPUs with AVX-512 or AVX-NE-CONVERT, found {instruction_set}; use `--backend portable`, \
         or `--precision f32`"
    )]
    NoBf16 {
        /// What this CPU has.
        instruction_set: &'static str,
    },
    /// A call failed.
    #[error("oneDNN: {call} failed with status {status}")]
    Call {
        /// What was called.
        call: &'static str,
        /// oneDNN's `dnnl_status_t`.
        status: i32,
    },
}

/// An open library with the primitives made so far.
pub struct Onednn {
    engine: Engine,
    version: (i32, i32, i32),
    path: PathBuf,
    plans: Mutex<HashMap<Key, Arc<Plan>>>,
}

impl std::fmt::Debug for Onednn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onednn")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Onednn {
    /// The library of this process, opened by the first call: `$EQCO_ONEDNN`, a fetched one, or the system's.
    ///
    /// # Errors
    /// When there is none, it is not of version 3, or it does not run on this CPU.
    pub fn open() -> Result<Arc<Self>, OnednnError> {
        static OPENED: OnceLock<Result<Arc<Onednn>, OnednnError>> = OnceLock::new();
        OPENED.get_or_init(|| Self::open_file(&place())).clone()
    }

    fn open_file(path: &Path) -> Result<Arc<Self>, OnednnError> {
        let refused = |problem: String| OnednnError::Open {
            reason: format!("{}: {problem}", path.display()),
        };
        library_file::check_length(path).map_err(refused)?;
        // SAFETY: initialising oneDNN and OpenMP has no preconditions; whoever names the file vouches for it.
        let library = unsafe { Library::new(path) }.map_err(|error| OnednnError::Open {
            // The loader's own words name the file, or the one that it needs.
            reason: error
                .source()
                .map_or(error.to_string(), ToString::to_string),
        })?;
        let version = api::version(&library).map_err(refused)?;
        if version.0 != 3 {
            return Err(OnednnError::Version {
                path: path.to_owned(),
                major: version.0,
                minor: version.1,
            });
        }
        Ok(Arc::new(Self {
            engine: Engine::new(Api::load(library).map_err(refused)?)?,
            version,
            path: path.to_owned(),
            plans: Mutex::default(),
        }))
    }

    /// Version and instruction set, for people: `oneDNN 3.2.0, AVX-512 with bf16`.
    pub fn describe(&self) -> String {
        let (major, minor, patch) = self.version;
        format!("oneDNN {major}.{minor}.{patch}, {}", self.instruction_set())
    }

    /// Where the library lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that there are convolutions for activations of this precision.
    ///
    /// # Errors
    /// When there are none for this CPU.
    pub fn check(&self, precision: Precision) -> Result<(), OnednnError> {
        let isa = self.isa();
        let is_there = [AVX512, AVX2_BF16].iter().any(|set| isa & set == *set);
        if precision == Precision::Bf16 && !is_there {
            return Err(OnednnError::NoBf16 {
                instruction_set: self.instruction_set(),
            });
        }
        Ok(())
    }

    /// Whether oneDNN's bf16 is quicker than its f32 on this CPU: with AMX. On a Xeon without AMX, AVX-512's bf16 instructions
    /// gave 88 GFLOP/s a core in 3x3 convolutions, less than f32's; on plain AVX-512 bf16 is emulated.
    pub fn has_fast_bf16(&self) -> bool {
        self.isa() & AMX == AMX
    }

    fn isa(&self) -> i32 {
        // SAFETY: no preconditions.
        unsafe { (self.engine.api().effective_cpu_isa)() }
    }

    fn instruction_set(&self) -> &'static str {
        let isa = self.isa();
        let known = [
            (AMX, "AMX"),
            (AVX512_FP16, "AVX-512 with fp16"),
            (AVX512_BF16, "AVX-512 with bf16"),
            (AVX512, "AVX-512"),
            (AVX2, "AVX2"),
        ];
        known
            .iter()
            .find(|(bits, _)| isa & bits == *bits)
            .map_or("SSE4.1", |(_, name)| name)
    }
}

/// The library to open. One that was named or fetched is not passed over for the system's when it does not open.
fn place() -> PathBuf {
    if let Some(path) = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    [std::env::current_dir(), std::env::current_exe()]
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(FETCHED))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(SYSTEM))
}
