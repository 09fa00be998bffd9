//! Owners of oneDNN's objects: what is created is destroyed, and what is borrowed outlives its use.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use super::OnednnError;
use super::api::{self, Api, Argument, Dims, Handle, Status};

/// An error that names the call, unless it succeeded.
pub(super) fn check(call: &'static str, status: Status) -> Result<(), OnednnError> {
    match status {
        0 => Ok(()),
        status => Err(OnednnError::Call { call, status }),
    }
}

/// The CPU as oneDNN sees it.
#[derive(Clone)]
pub(super) struct Engine(Arc<OwnedEngine>);

struct OwnedEngine {
    api: Api,
    handle: Handle,
}

// SAFETY: oneDNN's engines and functions may be used by any thread, also at the same time.
unsafe impl Send for OwnedEngine {}
// SAFETY: as above.
unsafe impl Sync for OwnedEngine {}

impl Drop for OwnedEngine {
    fn drop(&mut self) {
        // SAFETY: created by `Engine::new`, destroyed once.
        unsafe { (self.api.engine_destroy)(self.handle) };
    }
}

impl Engine {
    pub(super) fn new(api: Api) -> Result<Self, OnednnError> {
        let mut handle = null_mut();
        // SAFETY: `handle` is a place for the result.
        let status = unsafe { (api.engine_create)(&mut handle, api::ENGINE_CPU, 0) };
        check("dnnl_engine_create", status)?;
        Ok(Self(Arc::new(OwnedEngine { api, handle })))
    }

    pub(super) fn api(&self) -> &Api {
        &self.0.api
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.handle
    }

    /// Makes oneDNN's work on this thread single-threaded, for primitives made or executed from now on.
    pub(super) fn use_one_thread(&self) {
        thread_local! {
            static DONE: Cell<bool> = const { Cell::new(false) };
        }
        if !DONE.replace(true) {
            // SAFETY: OpenMP's setting of the calling thread alone.
            unsafe { (self.api().set_threads)(1) };
        }
    }
}

/// Shape, element type and layout of an array.
pub(super) struct Descriptor {
    engine: Engine,
    handle: Handle,
}

// SAFETY: descriptors are immutable once made.
unsafe impl Send for Descriptor {}
// SAFETY: as above.
unsafe impl Sync for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { (self.engine.api().memory_desc_destroy)(self.handle) };
    }
}

impl Descriptor {
    /// Four dimensions with the given steps between elements; without steps, the layout that a primitive likes best.
    pub(super) fn new(
        engine: &Engine,
        dims: [usize; 4],
        strides: Option<[usize; 4]>,
        element: c_int,
    ) -> Result<Self, OnednnError> {
        let mut handle = null_mut();
        let dims = padded(dims);
        let api = engine.api();
        // SAFETY: both arrays have the length that oneDNN reads, at least 4.
        let status = unsafe {
            match strides.map(padded) {
                Some(strides) => (api.memory_desc_create_with_strides)(
                    &mut handle,
                    4,
                    dims.as_ptr(),
                    element,
                    strides.as_ptr(),
                ),
                None => (api.memory_desc_create_with_tag)(
                    &mut handle,
                    4,
                    dims.as_ptr(),
                    element,
                    api::TAG_ANY,
                ),
            }
        };
        check("dnnl_memory_desc_create", status)?;
        Ok(Self {
            engine: engine.clone(),
            handle,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// Length of the array in bytes.
    pub(super) fn bytes(&self) -> usize {
        // SAFETY: a live descriptor.
        unsafe { (self.engine.api().memory_desc_get_size)(self.handle) }
    }
}

fn padded(values: [usize; 4]) -> Dims {
    let mut dims = Dims::default();
    for (dim, value) in dims.iter_mut().zip(values) {
        *dim = value as i64;
    }
    dims
}

/// What oneDNN decided for an operation, before code is made for it.
pub(super) struct Decision {
    engine: Engine,
    handle: Handle,
}

impl Drop for Decision {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { (self.engine.api().primitive_desc_destroy)(self.handle) };
    }
}

impl Decision {
    /// `create` gets the place for the result and attributes that leave scratch memory to the caller.
    pub(super) fn new(
        engine: &Engine,
        call: &'static str,
        create: impl FnOnce(*mut Handle, Handle) -> Status,
    ) -> Result<Self, OnednnError> {
        engine.use_one_thread();
        let api = engine.api();
        let (mut handle, mut attributes) = (null_mut(), null_mut());
        // SAFETY: `attributes` is made, used and destroyed here; the decision copies it.
        unsafe {
            let status = (api.attributes_create)(&mut attributes);
            check("dnnl_primitive_attr_create", status)?;
            (api.set_scratchpad_mode)(attributes, api::SCRATCHPAD_USER);
            let status = create(&mut handle, attributes);
            (api.attributes_destroy)(attributes);
            check(call, status)?;
        }
        Ok(Self {
            engine: engine.clone(),
            handle,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// The layout of one of its arrays.
    pub(super) fn descriptor(&self, query: c_int) -> Result<Descriptor, OnednnError> {
        let mut handle = null_mut();
        let api = self.engine.api();
        // SAFETY: the queried descriptor belongs to the decision, so it is copied.
        let status = unsafe {
            (api.memory_desc_clone)(&mut handle, (api.query_descriptor)(self.handle, query, 0))
        };
        check("dnnl_memory_desc_clone", status)?;
        Ok(Descriptor {
            engine: self.engine.clone(),
            handle,
        })
    }

    /// Code for it.
    pub(super) fn primitive(&self) -> Result<Primitive, OnednnError> {
        let mut handle = null_mut();
        // SAFETY: the decision is live.
        let status = unsafe { (self.engine.api().primitive_create)(&mut handle, self.handle) };
        check("dnnl_primitive_create", status)?;
        Ok(Primitive {
            scratchpad: self.descriptor(api::QUERY_SCRATCHPAD)?,
            engine: self.engine.clone(),
            handle,
        })
    }
}

/// Code for one operation on one shape. Any number of threads may execute it at the same time.
pub(super) struct Primitive {
    engine: Engine,
    handle: Handle,
    scratchpad: Descriptor,
}

// SAFETY: execution does not change a primitive whose scratch memory the caller brings.
unsafe impl Send for Primitive {}
// SAFETY: as above.
unsafe impl Sync for Primitive {}

impl Drop for Primitive {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { (self.engine.api().primitive_destroy)(self.handle) };
    }
}

/// An array for one execution.
pub(super) struct Operand<'a> {
    pub(super) index: c_int,
    pub(super) descriptor: &'a Descriptor,
    pub(super) data: *mut c_void,
}

impl Primitive {
    /// Elements of f32 that [`Primitive::execute`] needs as scratch memory.
    pub(super) fn scratch_len(&self) -> usize {
        self.scratchpad.bytes().div_ceil(size_of::<f32>())
    }

    /// Runs on the calling thread.
    ///
    /// # Safety
    /// Every operand's data must be valid for as many bytes as its descriptor says, for reading or, where the primitive
    /// writes to it, for writing; `scratch` must have `scratch_len` elements.
    pub(super) unsafe fn execute(
        &self,
        operands: &[Operand<'_>],
        scratch: &mut [f32],
    ) -> Result<(), OnednnError> {
        assert!(
            scratch.len() >= self.scratch_len(),
            "scratch memory is too short"
        );
        self.engine.use_one_thread();
        let scratch = Operand {
            index: api::SCRATCHPAD,
            descriptor: &self.scratchpad,
            data: scratch.as_mut_ptr().cast(),
        };
        let memories: Vec<Memory<'_>> = operands
            .iter()
            .chain([&scratch])
            .map(|operand| Memory::new(&self.engine, operand))
            .collect::<Result<_, _>>()?;
        let arguments: Vec<Argument> = memories
            .iter()
            .map(|memory| Argument {
                index: memory.index,
                memory: memory.handle,
            })
            .collect();
        let stream = Stream::new(&self.engine)?;
        // SAFETY: the caller's promise; a CPU stream has finished when the call returns.
        let status = unsafe {
            (self.engine.api().execute)(
                self.handle,
                stream.handle,
                arguments.len() as c_int,
                arguments.as_ptr(),
            )
        };
        check("dnnl_primitive_execute", status)
    }
}

struct Memory<'a> {
    engine: &'a Engine,
    index: c_int,
    handle: Handle,
}

impl<'a> Memory<'a> {
    fn new(engine: &'a Engine, operand: &Operand<'_>) -> Result<Self, OnednnError> {
        let mut handle = null_mut();
        // SAFETY: oneDNN only notes the address.
        let status = unsafe {
            (engine.api().memory_create)(
                &mut handle,
                operand.descriptor.handle(),
                engine.handle(),
                operand.data,
            )
        };
        check("dnnl_memory_create", status)?;
        Ok(Self {
            engine,
            index: operand.index,
            handle,
        })
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { (self.engine.api().memory_destroy)(self.handle) };
    }
}

struct Stream<'a> {
    engine: &'a Engine,
    handle: Handle,
}

impl<'a> Stream<'a> {
    fn new(engine: &'a Engine) -> Result<Self, OnednnError> {
        let mut handle = null_mut();
        // SAFETY: a live engine.
        let status = unsafe {
            (engine.api().stream_create)(&mut handle, engine.handle(), api::STREAM_IN_ORDER)
        };
        check("dnnl_stream_create", status)?;
        Ok(Self { engine, handle })
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { (self.engine.api().stream_destroy)(self.handle) };
    }
}
