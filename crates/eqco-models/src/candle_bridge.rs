//! The backbone as a candle module, differentiable inside candle's graph.
//!
//! [`CandleResNet`] is a `ModuleT`: evaluation infers with running statistics, training uses batch statistics and hands gradients to the
//! parameters' `Var`s, so that any candle optimiser can train the backbone inside a larger candle model. Inputs follow
//! candle's convention `[N,3,H,W]`. The whole backbone is one operation of candle's graph: forward and backward run on the
//! explicit tape, and candle sees the images and one flat tensor of all parameters.

use std::sync::{Arc, Mutex};

use candle_core::{
    CpuStorage, CustomOp2, DType, Layout, Module, ModuleT, Result, Shape, Tensor, bail,
};

use crate::buffer::BufferPool;
use crate::params::ParameterSet;
use crate::resnet::ResNet;
use crate::tape::{Activation, Gradients, Mode, Tape};

/// A ResNet backbone for use inside candle models: `[N,3,H,W]` f32 to representations `[N,C]`.
///
/// ```
/// use candle_core::{Device, DType, Module, ModuleT, Tensor};
/// use eqco_models::candle_bridge::CandleResNet;
/// use eqco_models::{Architecture, EncoderConfig, Stem};
///
/// # fn main() -> candle_core::Result<()> {
/// let config = EncoderConfig { architecture: Architecture::Resnet18, width: 8, stem: Stem::Cifar, zero_init_residual: false };
/// let backbone = CandleResNet::new(&config, 0, &Device::Cpu)?;
/// let images = Tensor::zeros((2, 3, 16, 16), DType::F32, &Device::Cpu)?;
/// assert_eq!(backbone.frozen().forward(&images)?.dims(), &[2, 64]);
/// let loss = backbone.forward_t(&images, true)?.sqr()?.sum_all()?;
/// let gradients = loss.backward()?;
/// assert!(backbone.parameters().parameters().iter().all(|p| gradients.get(p.var()).is_some()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CandleResNet {
    backbone: ResNet,
    parameters: ParameterSet,
    pool: Arc<BufferPool>,
}

impl CandleResNet {
    /// A backbone at initialisation.
    ///
    /// # Errors
    /// When the configuration is out of range or the device cannot allocate.
    pub fn new(
        config: &crate::EncoderConfig,
        seed: u64,
        device: &candle_core::Device,
    ) -> Result<Self> {
        let mut builder = crate::params::ParameterBuilder::new(seed, device);
        let backbone = ResNet::new(config, &mut builder)?;
        Ok(Self {
            backbone,
            parameters: builder.finish(),
            pool: BufferPool::new(device),
        })
    }

    /// The same backbone as a `Module` that infers.
    pub fn frozen(&self) -> FrozenResNet {
        FrozenResNet(self.clone())
    }

    /// Parameters and running statistics, under torchvision's names.
    pub fn parameters(&self) -> &ParameterSet {
        &self.parameters
    }
}

/// A [`CandleResNet`] that always infers, for places that want a plain `Module`. Shares the parameters.
#[derive(Clone, Debug)]
pub struct FrozenResNet(CandleResNet);

impl Module for FrozenResNet {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.0.forward_t(images, false)
    }
}

impl ModuleT for CandleResNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let images = channels_last(images)?;
        if !train {
            let mut tape = Tape::new(Mode::Evaluation, &self.pool);
            return self
                .backbone
                .forward(&mut tape, &Activation::constant(&images)?)?
                .to_tensor();
        }
        let flat: Vec<Tensor> = self
            .parameters
            .parameters()
            .iter()
            .map(|p| p.value().flatten_all())
            .collect::<Result<_>>()?;
        let op = BackboneOp {
            module: self.clone(),
            pass: Mutex::new(None),
        };
        images.apply_op2(&Tensor::cat(&flat, 0)?, op)
    }
}

fn channels_last(images: &Tensor) -> Result<Tensor> {
    if images.rank() != 4 || images.dtype() != DType::F32 {
        bail!(
            "images: expected f32 [N,3,H,W], found {:?} {:?}",
            images.dtype(),
            images.dims()
        );
    }
    images.permute((0, 2, 3, 1))?.contiguous()
}

/// One recorded pass between candle's forward and backward.
struct Pass {
    tape: Tape,
    images: Activation,
    output: Activation,
}

/// The backbone as an operation on (images, flat parameters). The values of the flat parameters are not read: they are
/// the parameters' own values, and stand there for candle to route their gradient.
struct BackboneOp {
    module: CandleResNet,
    pass: Mutex<Option<Pass>>,
}

impl CustomOp2 for BackboneOp {
    fn name(&self) -> &'static str {
        "eqco-resnet"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        _s2: &CpuStorage,
        _l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (s1, l1.contiguous_offsets()) else {
            bail!("images: expected contiguous f32 storage")
        };
        let images =
            Tensor::from_slice(&values[start..end], l1.shape(), &candle_core::Device::Cpu)?;
        let mut tape = Tape::new(Mode::Training, &self.module.pool);
        let images = tape.input(&images)?;
        let output = self.module.backbone.forward(&mut tape, &images)?;
        let representation = output.to_tensor()?;
        let result = (
            CpuStorage::F32(representation.flatten_all()?.to_vec1()?),
            representation.shape().clone(),
        );
        *self.lock() = Some(Pass {
            tape,
            images,
            output,
        });
        Ok(result)
    }

    fn bwd(
        &self,
        _images: &Tensor,
        _flat: &Tensor,
        _representation: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(mut pass) = self.lock().take() else {
            bail!("a recorded pass can be differentiated once; run forward_t again")
        };
        let mut gradients = Gradients::new(&self.module.parameters)?;
        let mut images =
            pass.tape
                .backward(&pass.output, gradient, &mut gradients, &[&pass.images])?;
        let mut flat = Vec::new();
        for parameter in self.module.parameters.parameters() {
            match gradients.get(parameter) {
                Some(gradient) => flat.push(gradient.flatten_all()?),
                None => bail!("{} received no gradient", parameter.name()),
            }
        }
        Ok((images.remove(0), Some(Tensor::cat(&flat, 0)?)))
    }
}

impl BackboneOp {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pass>> {
        self.pass
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
