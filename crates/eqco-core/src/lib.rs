//! EqCo: contrastive loss whose strength does not depend on the number of negatives.
//!
//! Plain InfoNCE weakens when a query meets fewer negatives. EqCo (Zhu et al., *EqCo: Equivalent
//! Rules for Self-supervised Contrastive Learning*, arXiv 2010.01929) corrects it with a margin, so
//! that a batch of 256 with 16 negatives a query trains like one with 65,536. This crate holds the
//! margin rule, the loss with its gradients on candle tensors, the draw of in-batch negatives, and the
//! bound on mutual information; no encoder and no data.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use eqco_core::{Alpha, ContrastiveLoss, DrawKind, LossConfig, NegativeDraw, Negatives};
//!
//! # fn main() -> candle_core::Result<()> {
//! let normalised = |t: Tensor| t.broadcast_div(&t.sqr()?.sum_keepdim(1)?.sqrt()?);
//! let queries = Var::from_tensor(&normalised(Tensor::randn(0f32, 1.0, (32, 64), &Device::Cpu)?)?)?;
//! let keys = normalised(Tensor::randn(0f32, 1.0, (32, 64), &Device::Cpu)?)?;
//!
//! // 16 negatives a query that pull like 256
//! let loss = ContrastiveLoss::new(LossConfig { temperature: 0.2, alpha: Alpha::Equivalent(256.0) })?;
//! let draw = NegativeDraw::sample(DrawKind::PerQuery, 32, 16, /* seed */ 0, /* step */ 0)?;
//! let value = loss.forward(&queries, &keys, Negatives::InBatch(&draw))?;
//! let gradients = value.backward()?;
//! assert_eq!(gradients.get(&queries).unwrap().dims(), [32, 64]);
//! # Ok(())
//! # }
//! ```
//!
//! A training loop of its own calls [`ContrastiveLoss::evaluate`] instead, which returns the value,
//! the gradients and [`BatchStatistics`] without candle's graph.
//!
//! Tensors of a GPU go to [`ContrastiveLoss::evaluate_on`] and [`ContrastiveLoss::forward_on`] with a [`cuda::Queue`] of their
//! device, in a build with feature `cuda`; what computes on the CPU refuses them and says so.
//!
//! # Formulas
//! With query `q`, positive key `k_0`, negatives `k_1 .. k_K`, temperature `t`, `s_i = q.k_i / t` and
//! margin `m = t ln(alpha / K)` ([`margin()`]):
//!
//! ```text
//! d    = ln(sum_i exp(s_i)) + ln(alpha / K) - s_0
//! loss = softplus(d) = -ln( exp(s_0 - m/t) / (exp(s_0 - m/t) + sum_i exp(s_i)) )
//! g    = sigmoid(d)                      w = softmax(s_1 .. s_K)
//! dloss/dq = (g / t) (sum_i w_i k_i - k_0)
//! ```
//!
//! `alpha` and `K` enter through the scalar `g` alone; its mean and spread over a batch are reported.
//! All gradients are spelled out in [`reference`](mod@reference).
//!
//! | [`Alpha`] | loss | `g` | when all similarities are equal |
//! |---|---|---|---|
//! | `Infonce` | softplus(d) with alpha = K, no margin | 1 - p(positive), shrinks with K | ln(1 + K) |
//! | `Equivalent(alpha)` (EqCo) | softplus(d) | 1 - p(positive), level whatever K | ln(1 + alpha) for every K |
//! | `Decoupled` (DCL, arXiv 2110.06848) | d without ln(alpha / K) | 1 | ln(K) |
//!
//! # Deviations from the paper
//! - The loss is computed as `softplus(d)`, which is the same function; the paper's quotient rounds to
//!   0 in f32 on easy pairs.
//! - Besides the bound as the paper states it we report one that holds for every `alpha`: see
//!   [`guaranteed_bound`] and [`paper_bound`].
//! - Each query may draw its own negatives ([`DrawKind::PerQuery`]); the authors' code draws one set
//!   of columns for the whole batch ([`DrawKind::SharedColumns`]).
//! - EqCo keeps the scale of the gradient, not its noise: few negatives still give a noisier mean of
//!   `w_i k_i`.

mod bound;
pub mod cuda;
mod error;
mod loss;
mod margin;
mod negatives;
pub mod reference;

pub use bound::{BatchStatistics, chance_loss, guaranteed_bound, paper_bound};
pub use error::LossError;
pub use loss::{
    ContrastiveLoss, LossOutput, PendingFigures, PendingLoss, WantedGradients, enqueue_nt_xent,
    nt_xent, nt_xent_forward, nt_xent_forward_on, nt_xent_on,
};
pub use margin::{Alpha, LossConfig, margin};
pub use negatives::{DrawKind, NegativeDraw, Negatives};
