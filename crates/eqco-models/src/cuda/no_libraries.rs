//! NVIDIA's libraries in a build without feature `cuda`: there are none.

use candle_core::{Device, Result, Tensor};
use eqco_core::cuda::CudaError;

use crate::cuda::{CudaConfig, Matrix};
use crate::ops::conv2d::Geometry;

/// Nobody has one.
#[derive(Debug)]
pub(crate) enum Libraries {}

impl std::fmt::Display for Libraries {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl Libraries {
    pub(crate) fn open(_: &Device, _: CudaConfig) -> std::result::Result<Self, CudaError> {
        Err(CudaError::NotBuilt)
    }

    pub(crate) fn convolve(&self, _: &Geometry, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<()> {
        match *self {}
    }

    pub(crate) fn weight_gradient(
        &self,
        _: &Geometry,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: bool,
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn input_gradient(
        &self,
        _: &Geometry,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: bool,
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn multiply(
        &self,
        _: Matrix<'_>,
        _: Matrix<'_>,
        _: Option<&Tensor>,
        _: &Tensor,
        _: bool,
    ) -> Result<()> {
        match *self {}
    }
}
