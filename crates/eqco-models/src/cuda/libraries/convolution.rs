//! cuDNN's convolutions, channels-last.

use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
    CudnnError, FilterDescriptor, TensorDescriptor, sys,
};
use candle_core::{DType, Error, Result, Tensor};
use half::bf16;
use std::sync::Arc;

use super::at::At;
use super::{Libraries, locked};
use crate::ops::conv2d::Geometry;

/// What an algorithm is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    geometry: Geometry,
    dtype: DType,
    product: Product,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Product {
    Forward,
    WeightGradient,
    InputGradient,
}

/// cuDNN's choice, and the bytes that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Algorithm {
    kind: Kind,
    workspace: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    WeightGradient(sys::cudnnConvolutionBwdFilterAlgo_t),
    InputGradient(sys::cudnnConvolutionBwdDataAlgo_t),
}

/// Number formats that convolutions come in.
trait Format: CudnnDataType {
    const ZERO: Self;
    const ONE: Self;
}

impl Format for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Format for bf16 {
    const ZERO: Self = bf16::ZERO;
    const ONE: Self = bf16::ONE;
}

/// Factors of the product and of what the target holds.
fn factors<T: Format>(accumulate: bool) -> (T, T) {
    (T::ONE, if accumulate { T::ONE } else { T::ZERO })
}

struct Descriptors<T> {
    convolution: ConvDescriptor<f32>,
    input: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    output: TensorDescriptor<T>,
}

impl<T: Format> Descriptors<T> {
    fn new(cudnn: &Arc<Cudnn>, geometry: &Geometry) -> std::result::Result<Self, CudnnError> {
        let layout = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // cuDNN names dimensions in the order N, C, H, W whatever their layout.
        let [batch, inputs, outputs, kernel] = [
            geometry.batch,
            geometry.in_channels,
            geometry.out_channels,
            geometry.kernel,
        ]
        .map(|size| size as i32);
        let both = |size: usize| [size as i32; 2];
        let mut convolution = cudnn.create_conv2d::<f32>(
            both(geometry.padding),
            both(geometry.stride),
            both(1),
            sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
        )?;
        // Tensor cores for bf16; f32 stays f32.
        convolution.set_math_type(if T::DATA_TYPE == <f32 as CudnnDataType>::DATA_TYPE {
            sys::cudnnMathType_t::CUDNN_FMA_MATH
        } else {
            sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH
        })?;
        let map = |channels: i32, height: usize, width: usize| {
            cudnn.create_4d_tensor(layout, [batch, channels, height as i32, width as i32])
        };
        Ok(Self {
            convolution,
            input: map(inputs, geometry.height, geometry.width)?,
            weight: cudnn.create_4d_filter(layout, [outputs, inputs, kernel, kernel])?,
            output: map(outputs, geometry.out_height(), geometry.out_width())?,
        })
    }

    fn forward(&self) -> ConvForward<'_, T, f32, T> {
        ConvForward {
            conv: &self.convolution,
            x: &self.input,
            w: &self.weight,
            y: &self.output,
        }
    }

    fn weight_gradient(&self) -> ConvBackwardFilter<'_, T, f32, T> {
        ConvBackwardFilter {
            conv: &self.convolution,
            x: &self.input,
            dw: &self.weight,
            dy: &self.output,
        }
    }

    fn input_gradient(&self) -> ConvBackwardData<'_, T, f32, T> {
        ConvBackwardData {
            conv: &self.convolution,
            dx: &self.input,
            w: &self.weight,
            dy: &self.output,
        }
    }

    fn choose(&self, product: Product) -> std::result::Result<Algorithm, CudnnError> {
        let (kind, workspace) = match product {
            Product::Forward => {
                let algorithm = self.forward().pick_algorithm()?;
                let workspace = self.forward().get_workspace_size(algorithm)?;
                (Kind::Forward(algorithm), workspace)
            }
            Product::WeightGradient => {
                let algorithm = self.weight_gradient().pick_algorithm()?;
                let workspace = self.weight_gradient().get_workspace_size(algorithm)?;
                (Kind::WeightGradient(algorithm), workspace)
            }
            Product::InputGradient => {
                let algorithm = self.input_gradient().pick_algorithm()?;
                let workspace = self.input_gradient().get_workspace_size(algorithm)?;
                (Kind::InputGradient(algorithm), workspace)
            }
        };
        Ok(Algorithm { kind, workspace })
    }
}

impl Libraries {
    /// output `[N,H,W,O]` = input `[N,H,W,C]` * weight `[O,k,k,C]`, all of the input's type.
    pub(crate) fn convolve(
        &self,
        geometry: &Geometry,
        input: &Tensor,
        weight: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        let product = Product::Forward;
        self.run(geometry, product, [input, weight, output], false)
    }

    /// target `[O,k,k,C]` (+)= gradient of the weight, of the images' type.
    pub(crate) fn weight_gradient(
        &self,
        geometry: &Geometry,
        input: &Tensor,
        gradient: &Tensor,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let product = Product::WeightGradient;
        self.run(geometry, product, [input, target, gradient], accumulate)
    }

    /// target `[N,H,W,C]` (+)= gradient of the input.
    pub(crate) fn input_gradient(
        &self,
        geometry: &Geometry,
        gradient: &Tensor,
        weight: &Tensor,
        target: &Tensor,
        accumulate: bool,
    ) -> Result<()> {
        let product = Product::InputGradient;
        self.run(geometry, product, [target, weight, gradient], accumulate)
    }

    /// `tensors` are those of input, weight and output or of their gradients.
    fn run(
        &self,
        geometry: &Geometry,
        product: Product,
        tensors: [&Tensor; 3],
        accumulate: bool,
    ) -> Result<()> {
        match tensors[0].dtype() {
            DType::BF16 => self.run_as::<bf16>(geometry, product, tensors, accumulate),
            _ => self.run_as::<f32>(geometry, product, tensors, accumulate),
        }
    }

    fn run_as<T: Format>(
        &self,
        geometry: &Geometry,
        product: Product,
        [input, weight, output]: [&Tensor; 3],
        accumulate: bool,
    ) -> Result<()> {
        let cudnn = locked(&self.cudnn);
        let descriptors = Descriptors::<T>::new(&cudnn.0, geometry).map_err(Error::wrap)?;
        let problem = Problem {
            geometry: *geometry,
            dtype: input.dtype(),
            product,
        };
        let known = locked(&self.algorithms).get(&problem).copied();
        let algorithm = match known {
            Some(algorithm) => algorithm,
            None => {
                let chosen = descriptors.choose(product).map_err(Error::wrap)?;
                locked(&self.algorithms).insert(problem, chosen);
                chosen
            }
        };
        let (read, written) = (
            |tensor| At::read(tensor, &self.stream),
            |tensor| At::written(tensor, &self.stream),
        );
        let factors = factors::<T>(accumulate);
        self.with_workspace(algorithm.workspace, |workspace| {
            // SAFETY: the tensors have the shapes and the type of the descriptors, which are made from the same geometry.
            let launched = unsafe {
                match algorithm.kind {
                    Kind::Forward(kind) => {
                        let (x, w, mut y) = (read(input)?, read(weight)?, written(output)?);
                        descriptors
                            .forward()
                            .launch(kind, workspace, factors, &x, &w, &mut y)
                    }
                    Kind::WeightGradient(kind) => {
                        let (x, mut dw, dy) = (read(input)?, written(weight)?, read(output)?);
                        descriptors
                            .weight_gradient()
                            .launch(kind, workspace, factors, &x, &mut dw, &dy)
                    }
                    Kind::InputGradient(kind) => {
                        let (mut dx, w, dy) = (written(input)?, read(weight)?, read(output)?);
                        descriptors
                            .input_gradient()
                            .launch(kind, workspace, factors, &mut dx, &w, &dy)
                    }
                }
            };
            launched.map_err(Error::wrap)
        })?
    }
}
