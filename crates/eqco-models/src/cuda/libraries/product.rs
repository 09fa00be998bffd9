//! cuBLASLt's matrix products, for linear layers and for convolutions of pixels on their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr::from_ref;

use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::{DType, Error, Result, Tensor};
use eqco_core::cuda::{address, address_mut};

use super::owned::Owned;
use super::{Libraries, locked};
use crate::cuda::{CudaConfig, Matrix};

type Outcome<T> = std::result::Result<T, CublasError>;
type Layout = Owned<sys::cublasLtMatrixLayout_t>;

/// Bytes that a product may compute in: what NVIDIA advises for GPUs from Hopper on.
const WORKSPACE: usize = 32 << 20;
/// Alignment of addresses in bytes that more of makes no difference.
const WELL_ALIGNED: u64 = 256;

/// What a plan is made for: target `[rows, columns]`, and the factors as they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Problem {
    rows: usize,
    columns: usize,
    inner: usize,
    left_is_transposed: bool,
    right_is_transposed: bool,
    has_bias: bool,
    accumulates: bool,
    /// Types of both factors, and of the target.
    dtypes: [DType; 2],
    /// Of left, right and target.
    alignments: [u32; 3],
}

/// One product, ready to be launched.
struct Plan {
    product: Owned<sys::cublasLtMatmulDesc_t>,
    left: Layout,
    right: Layout,
    target: Layout,
    choice: sys::cublasLtMatmulHeuristicResult_t,
}

/// cuBLASLt with a plan for every product met so far.
pub(super) struct Products {
    plans: HashMap<Problem, Plan>,
    handle: Owned<sys::cublasLtHandle_t>,
    config: CudaConfig,
}

// SAFETY: cuBLASLt allows a handle to be used by any thread, and descriptors by one at a time; who has the value has them alone.
unsafe impl Send for Products {}

impl Products {
    pub(super) fn open(config: CudaConfig) -> Outcome<Self> {
        let handle = Owned::new(result::create_handle()?, |raw| {
            // SAFETY: given back once. There is nobody to tell of a failure.
            let _ = unsafe { result::destroy_handle(raw) };
        });
        Ok(Self {
            plans: HashMap::new(),
            handle,
            config,
        })
    }

    fn plan(&mut self, problem: Problem) -> Outcome<&Plan> {
        match self.plans.entry(problem) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                Ok(unknown.insert(Plan::new(self.handle.raw(), &problem, self.config)?))
            }
        }
    }
}

impl Plan {
    /// Column-major, the library's order, is the transpose of ours: targetᵀ = rightᵀ · leftᵀ, so that the right factor comes
    /// first there, and a matrix of ours `[r, c]` is one of theirs with c rows.
    fn new(handle: sys::cublasLtHandle_t, problem: &Problem, config: CudaConfig) -> Outcome<Self> {
        let Problem {
            rows,
            columns,
            inner,
            dtypes: [of_factors, of_target],
            ..
        } = *problem;
        let left = match problem.left_is_transposed {
            true => layout(of_factors, inner, rows)?,
            false => layout(of_factors, rows, inner)?,
        };
        let right = match problem.right_is_transposed {
            true => layout(of_factors, columns, inner)?,
            false => layout(of_factors, inner, columns)?,
        };
        let target = layout(of_target, rows, columns)?;
        let product = description(problem, config)?;
        let wishes = wishes(problem)?;
        // SAFETY: all are alive.
        let choice = unsafe {
            result::get_matmul_algo_heuristic(
                handle,
                product.raw(),
                right.raw(),
                left.raw(),
                target.raw(),
                target.raw(),
                wishes.raw(),
            )?
        };
        Ok(Self {
            product,
            left,
            right,
            target,
            choice,
        })
    }
}

/// A matrix of ours, `[rows, columns]`.
fn layout(dtype: DType, rows: usize, columns: usize) -> Outcome<Layout> {
    let raw = result::create_matrix_layout(
        match dtype {
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            _ => sys::cudaDataType_t::CUDA_R_32F,
        },
        columns as u64,
        rows as u64,
        columns as i64,
    )?;
    Ok(Owned::new(raw, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_matrix_layout(raw) };
    }))
}

fn description(problem: &Problem, config: CudaConfig) -> Outcome<Owned<sys::cublasLtMatmulDesc_t>> {
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    let arithmetic = if config.tf32 && problem.dtypes[0] == DType::F32 {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
    };
    let raw = result::create_matmul_desc(arithmetic, sys::cudaDataType_t::CUDA_R_32F)?;
    let product = Owned::new(raw, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_matmul_desc(raw) };
    });
    let transposed = |yes: bool| i32::from(yes);
    set(
        &product,
        Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
        transposed(problem.right_is_transposed),
    )?;
    set(
        &product,
        Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
        transposed(problem.left_is_transposed),
    )?;
    if problem.has_bias {
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        set(&product, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
    }
    Ok(product)
}

fn set<T>(
    product: &Owned<sys::cublasLtMatmulDesc_t>,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: T,
) -> Outcome<()> {
    // SAFETY: the descriptor is alive; the library copies the value, whose size it checks.
    unsafe {
        result::set_matmul_desc_attribute(
            product.raw(),
            attribute,
            from_ref(&value).cast(),
            size_of::<T>(),
        )
    }
}

/// Limits of the choice.
fn wishes(problem: &Problem) -> Outcome<Owned<sys::cublasLtMatmulPreference_t>> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let wishes = Owned::new(result::create_matmul_pref()?, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_matmul_pref(raw) };
    });
    let [left, right, target] = problem.alignments;
    let of_alignments = [
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            target,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            target,
        ),
    ];
    // SAFETY: the preferences are alive; the library copies values, whose sizes it checks.
    unsafe {
        result::set_matmul_pref_attribute(
            wishes.raw(),
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            from_ref(&WORKSPACE).cast(),
            size_of::<usize>(),
        )?;
        for (attribute, bytes) in of_alignments {
            result::set_matmul_pref_attribute(
                wishes.raw(),
                attribute,
                from_ref(&bytes).cast(),
                size_of::<u32>(),
            )?;
        }
    }
    Ok(wishes)
}

fn alignment(address: u64) -> u32 {
    1 << (address | WELL_ALIGNED).trailing_zeros()
}

impl Libraries {
    /// target `[rows, columns]` (+)= left `[rows, inner]` · right `[inner, columns]` (+ bias `[columns]`), added up in f32. Factors are both
    /// of f32 or both of bf16, the target is of either.
    pub(crate) fn multiply(
        &self,
        left: Matrix<'_>,
        right: Matrix<'_>,
        bias: Option<&Tensor>,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        self.bind()?;
        let (rows, columns) = target.dims2()?;
        let (first, second) = left.tensor.dims2()?;
        let dtypes = [left.tensor.dtype(), target.dtype()];
        let (of_left, of_right) = (address(left.tensor)?, address(right.tensor)?);
        let of_target = address_mut(target)?;
        let of_bias = bias.map(address).transpose()?;
        let mut products = locked(&self.products);
        let handle = products.handle.raw();
        let plan = products
            .plan(Problem {
                rows,
                columns,
                inner: if left.transposed { first } else { second },
                left_is_transposed: left.transposed,
                right_is_transposed: right.transposed,
                has_bias: bias.is_some(),
                accumulates: accumulate,
                dtypes,
                alignments: [of_left, of_right, of_target].map(alignment),
            })
            .map_err(Error::wrap)?;
        if let Some(address) = of_bias {
            let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set(&plan.product, attribute, address).map_err(Error::wrap)?;
        }
        let (one, held) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let target = of_target as *mut c_void;
        self.with_workspace(plan.choice.workspaceSize, |room| {
            // SAFETY: the plan is made for the sizes of these tensors, and none of it is freed before the end of the call;
            // the library keeps no address beyond it.
            let launched = unsafe {
                result::matmul(
                    handle,
                    plan.product.raw(),
                    from_ref(&one).cast(),
                    from_ref(&held).cast(),
                    of_right as *const c_void,
                    plan.right.raw(),
                    of_left as *const c_void,
                    plan.left.raw(),
                    target,
                    plan.target.raw(),
                    target,
                    plan.target.raw(),
                    from_ref(&plan.choice.algo),
                    room.start,
                    room.bytes,
                    self.stream.cu_stream().cast(),
                )
            };
            launched.map_err(Error::wrap)
        })?
    }
}
