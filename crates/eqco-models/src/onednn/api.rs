//! The functions of oneDNN's C interface that we call, looked up in a library that is opened at run time.
//!
//! Declarations follow oneDNN 3's documentation of its C API; version 2 has other types under the same names and is
//! refused by [`super::Onednn::open`].

use std::ffi::{c_int, c_void};

use libloading::Library;

/// Any of oneDNN's opaque pointers.
pub(super) type Handle = *mut c_void;
/// 0 on success.
pub(super) type Status = c_int;
/// Sizes, strides, paddings: `dnnl_dims_t`, of which we fill the front.
pub(super) type Dims = [i64; 12];

/// `dnnl_exec_arg_t`.
#[repr(C)]
pub(super) struct Argument {
    pub(super) index: c_int,
    pub(super) memory: Handle,
}

/// The beginning of `dnnl_version_t`.
#[repr(C)]
struct Version {
    major: c_int,
    minor: c_int,
    patch: c_int,
}

pub(super) const ENGINE_CPU: c_int = 1;
pub(super) const STREAM_IN_ORDER: u32 = 1;
pub(super) const BF16: c_int = 2;
pub(super) const F32: c_int = 3;
pub(super) const TAG_ANY: c_int = 1;
pub(super) const FORWARD_TRAINING: c_int = 64;
pub(super) const CONVOLUTION_DIRECT: c_int = 1;
pub(super) const SCRATCHPAD_USER: c_int = 1;
pub(super) const QUERY_WEIGHTS: c_int = 131;
pub(super) const QUERY_WEIGHT_GRADIENT: c_int = 132;
pub(super) const QUERY_SCRATCHPAD: c_int = 136;
pub(super) const SOURCE: c_int = 1;
pub(super) const DESTINATION: c_int = 17;
pub(super) const WEIGHTS: c_int = 33;
pub(super) const SCRATCHPAD: c_int = 80;
pub(super) const SOURCE_GRADIENT: c_int = 129;
pub(super) const DESTINATION_GRADIENT: c_int = 145;
pub(super) const WEIGHT_GRADIENT: c_int = 161;

/// Major, minor and patch number; the one function that is the same in all versions.
///
/// # Errors
/// When the library does not have it, so is not oneDNN.
pub(super) fn version(library: &Library) -> Result<(c_int, c_int, c_int), String> {
    // SAFETY: in every version of oneDNN the function has this type and returns a pointer to a constant.
    unsafe {
        let version = library
            .get::<unsafe extern "C" fn() -> *const Version>(b"dnnl_version")
            .map_err(|_| "no function dnnl_version, so it is not oneDNN".to_owned())?;
        let found = &*version();
        Ok((found.major, found.minor, found.patch))
    }
}

macro_rules! functions {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Function pointers into an open library, which lives as long as they do.
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Api {
            /// # Errors
            /// The name of a function that is missing.
            pub(super) fn load(library: Library) -> Result<Self, String> {
                // SAFETY: the names stand for functions of these types in oneDNN 3's headers, which the caller has
                // checked that the library is, and in OpenMP's.
                unsafe {
                    Ok(Self {
                        $($field: *library
                            .get($symbol)
                            .map_err(|_| format!("no function {}", $symbol.escape_ascii()))?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

functions! {
    effective_cpu_isa = b"dnnl_get_effective_cpu_isa": fn() -> c_int;
    engine_create = b"dnnl_engine_create": fn(*mut Handle, c_int, usize) -> Status;
    engine_destroy = b"dnnl_engine_destroy": fn(Handle) -> Status;
    stream_create = b"dnnl_stream_create": fn(*mut Handle, Handle, u32) -> Status;
    stream_destroy = b"dnnl_stream_destroy": fn(Handle) -> Status;
    memory_desc_create_with_strides = b"dnnl_memory_desc_create_with_strides":
        fn(*mut Handle, c_int, *const i64, c_int, *const i64) -> Status;
    memory_desc_create_with_tag = b"dnnl_memory_desc_create_with_tag":
        fn(*mut Handle, c_int, *const i64, c_int, c_int) -> Status;
    memory_desc_clone = b"dnnl_memory_desc_clone": fn(*mut Handle, Handle) -> Status;
    memory_desc_destroy = b"dnnl_memory_desc_destroy": fn(Handle) -> Status;
    memory_desc_get_size = b"dnnl_memory_desc_get_size": fn(Handle) -> usize;
    memory_create = b"dnnl_memory_create": fn(*mut Handle, Handle, Handle, *mut c_void) -> Status;
    memory_destroy = b"dnnl_memory_destroy": fn(Handle) -> Status;
    attributes_create = b"dnnl_primitive_attr_create": fn(*mut Handle) -> Status;
    attributes_destroy = b"dnnl_primitive_attr_destroy": fn(Handle) -> Status;
    set_scratchpad_mode = b"dnnl_primitive_attr_set_scratchpad_mode": fn(Handle, c_int) -> Status;
    reorder_create = b"dnnl_reorder_primitive_desc_create":
        fn(*mut Handle, Handle, Handle, Handle, Handle, Handle) -> Status;
    forward_create = b"dnnl_convolution_forward_primitive_desc_create":
        fn(*mut Handle, Handle, c_int, c_int, Handle, Handle, Handle, Handle,
           *const i64, *const i64, *const i64, *const i64, Handle) -> Status;
    backward_data_create = b"dnnl_convolution_backward_data_primitive_desc_create":
        fn(*mut Handle, Handle, c_int, Handle, Handle, Handle,
           *const i64, *const i64, *const i64, *const i64, Handle, Handle) -> Status;
    backward_weights_create = b"dnnl_convolution_backward_weights_primitive_desc_create":
        fn(*mut Handle, Handle, c_int, Handle, Handle, Handle, Handle,
           *const i64, *const i64, *const i64, *const i64, Handle, Handle) -> Status;
    query_descriptor = b"dnnl_primitive_desc_query_md": fn(Handle, c_int, c_int) -> Handle;
    primitive_desc_destroy = b"dnnl_primitive_desc_destroy": fn(Handle) -> Status;
    primitive_create = b"dnnl_primitive_create": fn(*mut Handle, Handle) -> Status;
    primitive_destroy = b"dnnl_primitive_destroy": fn(Handle) -> Status;
    execute = b"dnnl_primitive_execute": fn(Handle, Handle, c_int, *const Argument) -> Status;
    set_threads = b"omp_set_num_threads": fn(c_int);
}
