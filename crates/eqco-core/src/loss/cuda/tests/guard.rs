//! Memory that shows what kernels do beyond their duty.

use std::cell::RefCell;

use candle_core::{DType, Device, Result, Shape, Tensor};

/// Values behind each tensor that nobody may write: more than one thread's widest store.
const CANARIES: usize = 64;
/// What they hold; exact in every type.
const CANARY: f64 = 12352.0;

/// Hands out memory that is NaN and ends in canaries.
#[derive(Debug, Default)]
pub(in super::super) struct Guard {
    canaries: RefCell<Vec<Tensor>>,
}

impl Guard {
    pub(in super::super) fn unwritten(
        &self,
        shape: &Shape,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let count = shape.elem_count();
        let poison = Tensor::full(f64::NAN, count, device)?;
        let canaries = Tensor::full(CANARY, CANARIES, device)?;
        let whole = Tensor::cat(&[poison, canaries], 0)?.to_dtype(dtype)?;
        let canaries = whole.narrow(0, count, CANARIES)?;
        self.canaries.borrow_mut().push(canaries);
        whole.narrow(0, 0, count)?.reshape(shape)
    }

    /// How many tensors were handed out; all canaries must be as they were.
    pub(super) fn check(&self) -> Result<usize> {
        for canaries in self.canaries.borrow().iter() {
            let values: Vec<f64> = canaries.to_dtype(DType::F64)?.to_vec1()?;
            assert!(
                values.iter().all(|&value| value == CANARY),
                "a kernel wrote behind the end of its memory"
            );
        }
        Ok(self.canaries.borrow().len())
    }
}
