//! Named parameters and buffers of a model, in the order in which the model declares them.
//!
//! **Names and exchange shapes are torchvision's** (`layer1.0.conv1.weight`, OIHW). In memory a convolution weight is
//! kept as `[out, height, width, in]`, the layout that channels-last kernels read; [`ParameterSet::to_named`] and
//! [`ParameterSet::load_named`] convert. Trainable parameters and buffers (running statistics) are apart: an optimiser or
//! an exponential moving average cannot touch a buffer by accident.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::profile::bytes_of;

/// What a parameter is, which decides its layout and its place in weight decay and LARS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// Convolution weight; `[out, height, width, in]` in memory, `[out, in, height, width]` in exchange.
    ConvWeight,
    /// Linear weight `[out, in]`.
    LinearWeight,
    /// Additive bias `[out]`.
    Bias,
    /// Scale of a normalisation layer `[channels]`.
    NormScale,
    /// Shift of a normalisation layer `[channels]`.
    NormShift,
}

impl ParameterRole {
    /// Whether the usual exclusions (no weight decay, no LARS scaling) apply: biases and normalisation parameters.
    pub fn is_excluded_by_convention(self) -> bool {
        matches!(self, Self::Bias | Self::NormScale | Self::NormShift)
    }
}

/// A handle to one trainable parameter; clones share the value.
#[derive(Clone, Debug)]
pub struct Parameter {
    index: usize,
    name: Arc<str>,
    role: ParameterRole,
    value: Var,
}

impl Parameter {
    /// Position in its [`ParameterSet`].
    pub fn index(&self) -> usize {
        self.index
    }
    /// torchvision's name, prefixed by the part of the model.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What the parameter is.
    pub fn role(&self) -> ParameterRole {
        self.role
    }
    /// The value in its memory layout (see [`ParameterRole`]); f32, contiguous, updated in place.
    pub fn value(&self) -> &Tensor {
        self.value.as_tensor()
    }
    /// The value as candle's trainable variable.
    pub fn var(&self) -> &Var {
        &self.value
    }
}

/// A named tensor that training updates without a gradient, such as a running mean.
#[derive(Clone, Debug)]
pub struct NamedBuffer {
    name: Arc<str>,
    value: Tensor,
}

impl NamedBuffer {
    /// torchvision's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The value, updated in place.
    pub fn value(&self) -> &Tensor {
        &self.value
    }
}

/// All parameters and buffers of a model.
#[derive(Clone, Debug, Default)]
pub struct ParameterSet {
    parameters: Vec<Parameter>,
    buffers: Vec<NamedBuffer>,
}

impl ParameterSet {
    /// Trainable parameters, in declaration order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
    /// Buffers, in declaration order.
    pub fn buffers(&self) -> &[NamedBuffer] {
        &self.buffers
    }
    /// Number of trainable scalars.
    pub fn scalar_count(&self) -> usize {
        self.parameters.iter().map(|p| p.value().elem_count()).sum()
    }

    /// Bytes of all parameters and buffers.
    pub fn bytes(&self) -> usize {
        let parameters = self.parameters.iter().map(Parameter::value);
        bytes_of(parameters.chain(self.buffers.iter().map(NamedBuffer::value)))
    }

    /// Copies of all tensors by name, in exchange shapes (OIHW for convolutions), parameters before buffers.
    ///
    /// # Errors
    /// When a copy fails on the device.
    pub fn to_named(&self) -> Result<Vec<(String, Tensor)>> {
        let mut named = Vec::with_capacity(self.parameters.len() + self.buffers.len());
        for parameter in &self.parameters {
            named.push((
                parameter.name().to_string(),
                to_exchange(parameter.role, parameter.value())?,
            ));
        }
        for buffer in &self.buffers {
            let value = buffer.value.to_device(&Device::Cpu)?;
            named.push((buffer.name().to_string(), value.copy()?));
        }
        Ok(named)
    }

    /// Overwrites every parameter and buffer with the tensor of the same name behind `prefix`, given in exchange shapes.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; nothing is overwritten then. Tensors that the model does not know
    /// are ignored, so that a classifier's `fc` may be present.
    pub fn load_named(&self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut planned = Vec::new();
        let targets = self
            .parameters
            .iter()
            .map(|p| (p.name(), p.value(), Some(p.role)))
            .chain(self.buffers.iter().map(|b| (b.name(), b.value(), None)));
        for (name, target, role) in targets {
            let full_name = format!("{prefix}{name}");
            let Some(source) = tensors.get(&full_name) else {
                bail!("tensor {full_name} is missing")
            };
            let expected = exchange_dims(role, target.dims());
            if source.dims() != expected {
                bail!(
                    "tensor {full_name}: expected shape {expected:?}, found {:?}",
                    source.dims()
                );
            }
            let source = match role {
                Some(ParameterRole::ConvWeight) => source.permute((0, 2, 3, 1))?,
                _ => source.clone(),
            };
            // A copy always: a source that shares the target's memory would wait for its own lock for ever.
            let source = source
                .to_dtype(target.dtype())?
                .to_device(target.device())?
                .force_contiguous()?;
            planned.push((target, source));
        }
        planned
            .into_iter()
            .try_for_each(|(target, source)| crate::ops::access::copy_into(target, &source))
    }

    /// Overwrites parameters and buffers with those of a set of the same architecture.
    ///
    /// # Errors
    /// When names or shapes differ.
    pub fn copy_from(&self, source: &ParameterSet) -> Result<()> {
        let named: HashMap<String, Tensor> = source.to_named()?.into_iter().collect();
        self.load_named("", &named)
    }
}

/// A copy in exchange shape, in host memory: a view of the copied memory, for whoever needs it contiguous may take the time for
/// that elsewhere than between two training steps.
fn to_exchange(role: ParameterRole, value: &Tensor) -> Result<Tensor> {
    let copy = match value.device() {
        Device::Cpu => value.copy()?,
        _ => value.to_device(&Device::Cpu)?,
    };
    match role {
        ParameterRole::ConvWeight => copy.permute((0, 3, 1, 2)),
        _ => Ok(copy),
    }
}

fn exchange_dims(role: Option<ParameterRole>, dims: &[usize]) -> Vec<usize> {
    match (role, dims) {
        (Some(ParameterRole::ConvWeight), &[out, height, width, input]) => {
            vec![out, input, height, width]
        }
        _ => dims.to_vec(),
    }
}

/// Declares the parameters of a model and gives them their initial values.
///
/// Values depend on the seed and on the parameter's full name alone, so that adding a layer changes no other layer.
#[derive(Debug)]
pub struct ParameterBuilder {
    seed: u64,
    device: Device,
    prefix: String,
    set: ParameterSet,
}

impl ParameterBuilder {
    /// An empty set on `device`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            seed,
            device: device.clone(),
            prefix: String::new(),
            set: ParameterSet::default(),
        }
    }

    /// Runs `declare` with `name.` put before every name.
    ///
    /// # Errors
    /// Those of `declare`.
    pub fn scope<T>(
        &mut self,
        name: &str,
        declare: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let declared = declare(self);
        self.prefix.truncate(outer);
        declared
    }

    /// A convolution weight, He-normal with fan-out as torchvision's ResNet: standard deviation √(2 / (out·k²)).
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn conv_weight(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        kernel: usize,
    ) -> Result<Parameter> {
        let deviation = (2.0 / (out * kernel * kernel) as f64).sqrt();
        let mut stream = self.stream(name);
        let values = (0..out * kernel * kernel * input)
            .map(|_| (normal(&mut stream) * deviation) as f32)
            .collect();
        self.declare(
            name,
            ParameterRole::ConvWeight,
            values,
            &[out, kernel, kernel, input],
        )
    }

    /// A linear weight, uniform in ±1/√in as PyTorch's `Linear`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn linear_weight(&mut self, name: &str, out: usize, input: usize) -> Result<Parameter> {
        let values = self.uniform(name, out * input, input);
        self.declare(name, ParameterRole::LinearWeight, values, &[out, input])
    }

    /// A bias, uniform in ±1/√in as PyTorch's `Linear`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn bias(&mut self, name: &str, out: usize, input: usize) -> Result<Parameter> {
        let values = self.uniform(name, out, input);
        self.declare(name, ParameterRole::Bias, values, &[out])
    }

    /// Weight `[out, in]` and bias `[out]` of a linear layer, named `weight` and `bias`, all zero: a classifier without an
    /// opinion.
    ///
    /// # Errors
    /// When a size is 0 or the device cannot allocate.
    pub fn zero_linear(&mut self, out: usize, input: usize) -> Result<(Parameter, Parameter)> {
        let (role, zeros) = (ParameterRole::LinearWeight, vec![0.0; out * input]);
        let weight = self.declare("weight", role, zeros, &[out, input])?;
        let bias = self.declare("bias", ParameterRole::Bias, vec![0.0; out], &[out])?;
        Ok((weight, bias))
    }

    /// Scale (every entry `scale`) and shift (zeros) of a normalisation layer, named `weight` and `bias`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn norm(&mut self, channels: usize, scale: f32) -> Result<(Parameter, Parameter)> {
        let weight = self.declare(
            "weight",
            ParameterRole::NormScale,
            vec![scale; channels],
            &[channels],
        )?;
        let bias = self.declare(
            "bias",
            ParameterRole::NormShift,
            vec![0.0; channels],
            &[channels],
        )?;
        Ok((weight, bias))
    }

    /// A buffer of `len` entries, all `value`.
    ///
    /// # Errors
    /// When the device cannot allocate.
    pub fn buffer(&mut self, name: &str, len: usize, value: f32) -> Result<NamedBuffer> {
        let value = Tensor::from_vec(vec![value; len], len, &self.device)?;
        let buffer = NamedBuffer {
            name: self.full_name(name).into(),
            value,
        };
        self.set.buffers.push(buffer.clone());
        Ok(buffer)
    }

    /// The declared set.
    pub fn finish(self) -> ParameterSet {
        self.set
    }

    fn declare(
        &mut self,
        name: &str,
        role: ParameterRole,
        values: Vec<f32>,
        shape: &[usize],
    ) -> Result<Parameter> {
        if shape.contains(&0) {
            bail!(
                "{}: expected dimensions of at least 1, found {shape:?}",
                self.full_name(name)
            );
        }
        let value = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let parameter = Parameter {
            index: self.set.parameters.len(),
            name: self.full_name(name).into(),
            role,
            value,
        };
        self.set.parameters.push(parameter.clone());
        Ok(parameter)
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn uniform(&self, name: &str, len: usize, fan_in: usize) -> Vec<f32> {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let mut stream = self.stream(name);
        (0..len)
            .map(|_| ((unit(&mut stream) * 2.0 - 1.0) * bound) as f32)
            .collect()
    }

    fn stream(&self, name: &str) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(b"init    ");
        key[16..24].copy_from_slice(&fnv1a(&self.full_name(name)).to_le_bytes());
        ChaCha8Rng::from_seed(key)
    }
}

/// Uniform in (0, 1], with 53 random bits; never 0, so that its logarithm is finite.
fn unit(stream: &mut ChaCha8Rng) -> f64 {
    ((stream.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Standard normal by Box and Muller's transform.
pub(crate) fn normal(stream: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * unit(stream).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(stream)).cos()
}

/// The FNV-1a hash: stable across platforms and versions, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_set(seed: u64) -> Result<ParameterSet> {
        let mut builder = ParameterBuilder::new(seed, &Device::Cpu);
        builder.scope("conv", |b| b.conv_weight("weight", 32, 16, 3))?;
        builder.scope("bn", |b| {
            b.norm(32, 1.0)?;
            b.buffer("running_mean", 32, 0.0)
        })?;
        Ok(builder.finish())
    }

    #[test]
    fn convolution_weights_have_the_he_deviation() -> Result<()> {
        let set = small_set(3)?;
        let values = set.parameters()[0]
            .value()
            .flatten_all()?
            .to_vec1::<f32>()?;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        // 4,608 draws: the deviation's own standard error is 1 %; 4 of them are allowed.
        assert!(
            (variance.sqrt() / (2.0f32 / 288.0).sqrt() - 1.0).abs() < 0.04,
            "{}",
            variance.sqrt()
        );
        assert!(mean.abs() < 4.0 * (2.0f32 / 288.0).sqrt() / (4608f32).sqrt());
        Ok(())
    }

    #[test]
    fn exchange_is_oihw_and_round_trips() -> Result<()> {
        let (source, target) = (small_set(1)?, small_set(2)?);
        let named: HashMap<_, _> = source.to_named()?.into_iter().collect();
        assert_eq!(named["conv.weight"].dims(), &[32, 16, 3, 3]);
        let inner = source.parameters()[0].value().to_vec3_of(5)?;
        let outer = named["conv.weight"].get(5)?.to_vec3::<f32>()?;
        assert_eq!(outer[7][1][2], inner[1][2][7]);
        target.load_named("", &named)?;
        assert_eq!(
            target.parameters()[0]
                .value()
                .flatten_all()?
                .to_vec1::<f32>()?,
            source.parameters()[0]
                .value()
                .flatten_all()?
                .to_vec1::<f32>()?
        );
        Ok(())
    }

    #[test]
    fn named_tensors_are_copies_also_where_both_layouts_agree() -> Result<()> {
        let mut builder = ParameterBuilder::new(1, &Device::Cpu);
        let weight = builder.conv_weight("pointwise", 4, 3, 1)?;
        let set = builder.finish();
        let read = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let before = read(weight.value())?;
        let named: HashMap<_, _> = set.to_named()?.into_iter().collect();
        weight.var().set(&weight.value().zeros_like()?)?;
        assert_eq!(read(&named["pointwise"])?, before);
        set.load_named("", &named)?;
        assert_eq!(read(weight.value())?, before);
        // A set's own memory as the source: nothing changes and nothing hangs.
        let own = weight.value().permute((0, 3, 1, 2))?;
        set.load_named("", &HashMap::from([("pointwise".to_string(), own)]))?;
        assert_eq!(read(weight.value())?, before);
        Ok(())
    }

    trait Slice3 {
        fn to_vec3_of(&self, first: usize) -> Result<Vec<Vec<Vec<f32>>>>;
    }
    impl Slice3 for Tensor {
        fn to_vec3_of(&self, first: usize) -> Result<Vec<Vec<Vec<f32>>>> {
            self.get(first)?.to_vec3::<f32>()
        }
    }

    #[test]
    fn a_missing_or_misshapen_tensor_is_named_and_changes_nothing() -> Result<()> {
        let set = small_set(1)?;
        let before = set.parameters()[0]
            .value()
            .flatten_all()?
            .to_vec1::<f32>()?;
        let mut named: HashMap<_, _> = small_set(2)?.to_named()?.into_iter().collect();
        named.insert(
            "bn.bias".into(),
            Tensor::zeros(31, candle_core::DType::F32, &Device::Cpu)?,
        );
        let message = set.load_named("", &named).unwrap_err().to_string();
        assert!(
            message.contains("bn.bias") && message.contains("[32]") && message.contains("[31]"),
            "{message}"
        );
        named.remove("bn.bias");
        assert!(
            set.load_named("", &named)
                .unwrap_err()
                .to_string()
                .contains("bn.bias is missing")
        );
        assert_eq!(
            before,
            set.parameters()[0]
                .value()
                .flatten_all()?
                .to_vec1::<f32>()?
        );
        Ok(())
    }
}
