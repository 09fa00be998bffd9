//! A convolution in cuDNN's words.

use candle_core::DType;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, result, sys};

use super::owned::Owned;
use crate::ops::conv2d::Geometry;

pub(super) type Outcome<T> = Result<T, CudnnError>;

/// Shapes, number formats and strides.
pub(super) struct Descriptors {
    pub(super) convolution: Owned<sys::cudnnConvolutionDescriptor_t>,
    pub(super) input: Owned<sys::cudnnTensorDescriptor_t>,
    pub(super) weight: Owned<sys::cudnnFilterDescriptor_t>,
    pub(super) output: Owned<sys::cudnnTensorDescriptor_t>,
}

const CHANNELS_LAST: sys::cudnnTensorFormat_t = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;

impl Descriptors {
    /// Of a convolution whose tensors are all of `dtype`, f32 or bf16; sums are in f32.
    pub(super) fn new(geometry: &Geometry, dtype: DType, tf32: bool) -> Outcome<Self> {
        let format = match dtype {
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            _ => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        // Without a word cuDNN takes TF32 for f32.
        let math = match dtype {
            DType::BF16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            _ if tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        // cuDNN names dimensions in the order N, C, H, W whatever their layout.
        let int = |size: usize| size as i32;
        let [batch, inputs, outputs, kernel] = [
            geometry.batch,
            geometry.in_channels,
            geometry.out_channels,
            geometry.kernel,
        ]
        .map(int);
        let (height, width) = (int(geometry.height), int(geometry.width));
        let (out_height, out_width) = (int(geometry.out_height()), int(geometry.out_width()));
        Ok(Self {
            convolution: convolution(geometry, math)?,
            input: map(format, [batch, inputs, height, width])?,
            weight: filter(format, [outputs, inputs, kernel, kernel])?,
            output: map(format, [batch, outputs, out_height, out_width])?,
        })
    }
}

fn map(
    format: sys::cudnnDataType_t,
    sizes: [i32; 4],
) -> Outcome<Owned<sys::cudnnTensorDescriptor_t>> {
    let descriptor = Owned::new(result::create_tensor_descriptor()?, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_tensor_descriptor(raw) };
    });
    // SAFETY: made above.
    unsafe { result::set_tensor4d_descriptor(descriptor.raw(), CHANNELS_LAST, format, sizes)? };
    Ok(descriptor)
}

fn filter(
    format: sys::cudnnDataType_t,
    sizes: [i32; 4],
) -> Outcome<Owned<sys::cudnnFilterDescriptor_t>> {
    let descriptor = Owned::new(result::create_filter_descriptor()?, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_filter_descriptor(raw) };
    });
    // SAFETY: made above.
    unsafe { result::set_filter4d_descriptor(descriptor.raw(), format, CHANNELS_LAST, sizes)? };
    Ok(descriptor)
}

fn convolution(
    geometry: &Geometry,
    math: sys::cudnnMathType_t,
) -> Outcome<Owned<sys::cudnnConvolutionDescriptor_t>> {
    let descriptor = Owned::new(result::create_convolution_descriptor()?, |raw| {
        // SAFETY: given back once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_convolution_descriptor(raw) };
    });
    let (padding, stride) = (geometry.padding as i32, geometry.stride as i32);
    // SAFETY: made above.
    unsafe {
        result::set_convolution2d_descriptor(
            descriptor.raw(),
            padding,
            padding,
            stride,
            stride,
            1,
            1,
            sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        )?;
        result::set_convolution_math_type(descriptor.raw(), math)?;
    }
    Ok(descriptor)
}
