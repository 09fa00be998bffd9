//! What can be wrong with the input of the loss.

use candle_core::{DType, Device};

use crate::cuda::CudaError;

/// Every way in which the margin rule, a draw of negatives or the loss can refuse its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// The temperature is zero, negative, infinite or not a number.
    #[error("temperature must be a finite number above 0, got {got}")]
    Temperature {
        /// The refused value.
        got: f64,
    },
    /// `alpha` is zero, negative, infinite or not a number.
    #[error("alpha must be a finite number above 0, got {got}")]
    Alpha {
        /// The refused value.
        got: f64,
    },
    /// `alpha` is written in a way that we cannot read.
    #[error("alpha must be \"infonce\", \"decoupled\" or a number above 0, got {got:?}")]
    AlphaText {
        /// The text as it was given.
        got: String,
    },
    /// A loss without negatives was asked for.
    #[error("at least one negative per query is needed, got 0")]
    NoNegatives,
    /// More negatives per query were asked for than the batch has other images.
    #[error(
        "{requested} negatives per query cannot be drawn from a batch of {batch_size}: \
         the largest possible number is {largest} (every other image of the batch)"
    )]
    TooManyNegatives {
        /// Negatives per query that were asked for.
        requested: usize,
        /// Images in the batch.
        batch_size: usize,
        /// The most that this batch can give: `batch_size - 1`.
        largest: usize,
    },
    /// A list of negatives does not fit the batch that it is meant for.
    #[error("draw of negatives: {problem}")]
    Draw {
        /// What is wrong, with the place and the value.
        problem: String,
    },
    /// An input has another shape than the one it must have.
    #[error("{input}: expected shape {expected}, got {got:?}")]
    Shape {
        /// Which input, by its name in the API.
        input: &'static str,
        /// The shape that is needed, in words and numbers.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An input has an element type that the loss does not compute on.
    #[error("{input}: expected dtype f32 or bf16, got {}", .got.as_str())]
    Dtype {
        /// Which input, by its name in the API.
        input: &'static str,
        /// The element type that came.
        got: DType,
    },
    /// An input of what computes on the CPU lies on another device.
    #[error(
        "{input}: expected a tensor on the CPU, got one on {got:?}; evaluate_on and forward_on take those of a GPU, with a queue \
         of its device (feature `cuda`)"
    )]
    Device {
        /// Which input, by its name in the API.
        input: &'static str,
        /// The device that it lies on.
        got: Device,
    },
    /// An input lies on another device than the queue that is to compute with it.
    #[error("{input}: expected a tensor on the device of the queue, got one on {got:?}")]
    OtherDevice {
        /// Which input, by its name in the API.
        input: &'static str,
        /// The device that it lies on.
        got: Device,
    },
    /// candle failed to read an input or to build an output.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<CudaError> for LossError {
    fn from(error: CudaError) -> Self {
        Self::Candle(error.into())
    }
}

/// Lets `?` carry our errors out of functions that return candle's `Result`.
impl From<LossError> for candle_core::Error {
    fn from(error: LossError) -> Self {
        match error {
            LossError::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}
