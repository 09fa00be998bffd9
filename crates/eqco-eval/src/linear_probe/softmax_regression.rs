//! Softmax regression by stochastic gradient descent, for several settings at the same time.
//!
//! All settings ("points" of the grid) see the same batches, so their weights lie side by side in
//! one matrix `[dim, points * classes]` and a step costs two matrix products for all of them.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::LinearProbeConfig;
use crate::Features;
use crate::accuracy::{first_largest, percent};
use crate::order;
use crate::product::{Matrix, multiply};

/// Batch rows and weight rows that one task works on; fixed, so that results do not depend on the
/// number of threads.
const ROW_BLOCK: usize = 64;

/// One setting of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridPoint {
    /// Learning rate at the start of the cosine schedule.
    pub learning_rate: f64,
    /// Weight decay on the weights, not on the bias.
    pub weight_decay: f64,
}

/// What one point of the grid predicts, and how well.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Predictions {
    /// The class with the largest logit, for every row.
    pub(super) classes: Vec<u32>,
    /// Share of right classes in percent.
    pub(super) top1: f64,
    /// Mean cross-entropy in nats.
    pub(super) loss: f64,
}

/// Weights of all points, and what is needed to train them.
#[derive(Clone, Debug)]
pub(super) struct SoftmaxRegression {
    points: Vec<GridPoint>,
    class_count: usize,
    dim: usize,
    /// `[dim, points * classes]`.
    weights: Vec<f32>,
    weight_velocity: Vec<f32>,
    /// `[points * classes]`.
    bias: Vec<f32>,
    bias_velocity: Vec<f32>,
}

impl SoftmaxRegression {
    /// All weights zero, which is as good as any start for a convex problem.
    pub(super) fn new(points: &[GridPoint], dim: usize, class_count: usize) -> Self {
        let columns = points.len() * class_count;
        Self {
            points: points.to_vec(),
            class_count,
            dim,
            weights: vec![0.0; dim * columns],
            weight_velocity: vec![0.0; dim * columns],
            bias: vec![0.0; columns],
            bias_velocity: vec![0.0; columns],
        }
    }

    /// Trains new weights for all `points` on the given rows, as the configuration says. Every epoch
    /// visits every row once in a new random order.
    pub(super) fn fit(
        features: &Features,
        rows: &[u32],
        points: &[GridPoint],
        config: &LinearProbeConfig,
    ) -> Self {
        let mut model = Self::new(points, features.dim(), features.class_count());
        let mut rows = rows.to_vec();
        let steps = config.epochs * rows.len().div_ceil(config.batch_size);
        let mut step = 0;
        for epoch in 0..config.epochs {
            let purpose = order::Purpose::Epoch;
            order::shuffle(
                &mut order::stream(config.seed, purpose, epoch as u64),
                &mut rows,
            );
            for batch in rows.chunks(config.batch_size) {
                let progress = step as f64 / steps as f64;
                let share = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                model.step(features, batch, share, config.sgd_momentum);
                step += 1;
            }
        }
        model
    }

    fn columns(&self) -> usize {
        self.bias.len()
    }

    /// One step of SGD with momentum on the given rows, at `rate_share` of every learning rate.
    fn step(&mut self, features: &Features, rows: &[u32], rate_share: f64, momentum: f64) {
        let columns = self.columns();
        let mut batch = vec![0.0; rows.len() * self.dim];
        let mut gradients = vec![0.0; rows.len() * columns];
        (batch.par_chunks_mut(ROW_BLOCK * self.dim))
            .zip(gradients.par_chunks_mut(ROW_BLOCK * columns))
            .zip(rows.par_chunks(ROW_BLOCK))
            .for_each(|((batch, gradients), block)| {
                self.logits(features, block, batch, gradients);
                for (row, logits) in block.iter().zip(gradients.chunks_exact_mut(columns)) {
                    let label = features.labels()[*row as usize] as usize;
                    for logits in logits.chunks_exact_mut(self.class_count) {
                        to_gradient(logits, label, 1.0 / rows.len() as f32);
                    }
                }
            });
        self.descend(&batch, &gradients, rate_share, momentum);
    }

    /// Fills `batch` with the inputs of `rows`, `[rows, dim]`, and `logits` with
    /// `[rows, points * classes]`.
    fn logits(&self, features: &Features, rows: &[u32], batch: &mut [f32], logits: &mut [f32]) {
        let (dim, columns) = (self.dim, self.columns());
        let scale = input_scale(dim);
        for (input, &row) in batch.chunks_exact_mut(dim).zip(rows) {
            for (input, value) in input.iter_mut().zip(features.row(row as usize)) {
                *input = value * scale;
            }
        }
        let inputs = Matrix::new(batch, rows.len(), dim, dim);
        multiply(
            logits,
            inputs,
            Matrix::new(&self.weights, dim, columns, columns),
        );
        for logits in logits.chunks_exact_mut(columns) {
            logits
                .iter_mut()
                .zip(&self.bias)
                .for_each(|(logit, bias)| *logit += bias);
        }
    }

    /// velocity = momentum * velocity + gradient + decay * weight; weight -= rate * velocity.
    /// `gradients` are those of the logits, `[rows, points * classes]`.
    fn descend(&mut self, batch: &[f32], gradients: &[f32], rate_share: f64, momentum: f64) {
        let (dim, columns, rows) = (self.dim, self.columns(), batch.len() / self.dim);
        let per_column = |value: fn(&GridPoint) -> f64, factor: f64| -> Vec<f32> {
            let columns = self.points.iter().flat_map(|point| {
                std::iter::repeat_n((value(point) * factor) as f32, self.class_count)
            });
            columns.collect()
        };
        let rates = per_column(|point| point.learning_rate, rate_share);
        let decays = per_column(|point| point.weight_decay, 1.0);
        let momentum = momentum as f32;
        (self.weights.par_chunks_mut(ROW_BLOCK * columns))
            .zip(self.weight_velocity.par_chunks_mut(ROW_BLOCK * columns))
            .enumerate()
            .for_each_init(Vec::new, |gradient, (block, (weights, velocity))| {
                gradient.resize(weights.len(), 0.0);
                let inputs = &batch[block * ROW_BLOCK..];
                let inputs = Matrix::new(inputs, rows, weights.len() / columns, dim).transposed();
                multiply(
                    gradient,
                    inputs,
                    Matrix::new(gradients, rows, columns, columns),
                );
                for ((weights, velocity), gradient) in (weights.chunks_exact_mut(columns))
                    .zip(velocity.chunks_exact_mut(columns))
                    .zip(gradient.chunks_exact(columns))
                {
                    for column in 0..columns {
                        let pull = gradient[column] + decays[column] * weights[column];
                        velocity[column] = momentum * velocity[column] + pull;
                        weights[column] -= rates[column] * velocity[column];
                    }
                }
            });
        for column in 0..columns {
            let gradient: f32 = gradients[column..].iter().step_by(columns).sum();
            self.bias_velocity[column] = momentum * self.bias_velocity[column] + gradient;
            self.bias[column] -= rates[column] * self.bias_velocity[column];
        }
    }

    /// Predictions of every point for the given rows, at least one. A point whose weights have left
    /// the range of f32 has a loss that is not finite.
    pub(super) fn predict(&self, features: &Features, rows: &[u32]) -> Vec<Predictions> {
        let buffers = || {
            (
                vec![0.0; ROW_BLOCK * self.dim],
                vec![0.0; ROW_BLOCK * self.columns()],
            )
        };
        let of_block = |(batch, logits): &mut (Vec<f32>, Vec<f32>), rows: &[u32]| {
            let logits = &mut logits[..rows.len() * self.columns()];
            self.logits(features, rows, &mut batch[..rows.len() * self.dim], logits);
            let of_row = |(logits, &row): (&[f32], &u32)| {
                let label = features.labels()[row as usize] as usize;
                let of_point = |logits: &[f32]| {
                    let loss = log_sum_exp(logits) - f64::from(logits[label]);
                    (first_largest(logits), label as u32, loss)
                };
                logits
                    .chunks_exact(self.class_count)
                    .map(of_point)
                    .collect::<Vec<_>>()
            };
            logits
                .chunks_exact(self.columns())
                .zip(rows)
                .flat_map(of_row)
                .collect::<Vec<_>>()
        };
        let blocks: Vec<_> = rows
            .par_chunks(ROW_BLOCK)
            .map_init(buffers, of_block)
            .collect();
        let answers = blocks.concat(); // [rows, points] of (class, label, loss)
        let of_point = |point: usize| {
            let answers = answers.iter().skip(point).step_by(self.points.len());
            let right = answers
                .clone()
                .filter(|(class, label, _)| class == label)
                .count();
            Predictions {
                classes: answers.clone().map(|(class, ..)| *class).collect(),
                top1: percent(right, rows.len()),
                loss: answers.map(|(.., loss)| loss).sum::<f64>() / rows.len() as f64,
            }
        };
        (0..self.points.len()).map(of_point).collect()
    }
}

/// Standardised features have mean squared length `dim`; divided by √dim they have 1, and the same
/// learning rates suit any number of dimensions.
fn input_scale(dim: usize) -> f32 {
    (1.0 / (dim as f64).sqrt()) as f32
}

/// Turns the logits of one row into the gradient of `weight` * cross-entropy with respect to them:
/// weight * (softmax - one-hot).
fn to_gradient(logits: &mut [f32], label: usize, weight: f32) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits
        .iter_mut()
        .for_each(|logit| *logit = (*logit - largest).exp());
    let scale = weight / logits.iter().sum::<f32>();
    logits
        .iter_mut()
        .for_each(|probability| *probability *= scale);
    logits[label] -= weight;
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(logit - largest).exp())
        .sum();
    f64::from(largest) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear_probe::tests::random_features;

    const CLASSES: usize = 3;
    const DIM: usize = 5;

    fn point(learning_rate: f64, weight_decay: f64) -> GridPoint {
        GridPoint {
            learning_rate,
            weight_decay,
        }
    }

    fn all_rows(features: &Features) -> Vec<u32> {
        (0..features.count() as u32).collect()
    }

    /// Mean cross-entropy in f64 of the given weights `[dim, classes]` and bias.
    fn loss(features: &Features, rows: &[u32], weights: &[f64], bias: &[f64]) -> f64 {
        let of_row = |&row: &u32| -> f64 {
            let input = features.row(row as usize).iter().map(|&v| f64::from(v));
            let mut logits = bias.to_vec();
            for (dimension, value) in input.enumerate() {
                for class in 0..CLASSES {
                    let value = value / (DIM as f64).sqrt();
                    logits[class] += value * weights[dimension * CLASSES + class];
                }
            }
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            sum.ln() - logits[features.labels()[row as usize] as usize]
        };
        rows.iter().map(of_row).sum::<f64>() / rows.len() as f64
    }

    #[test]
    fn a_step_follows_the_gradient_by_finite_differences() {
        let features = random_features("train", 90, DIM, CLASSES as u32, 1);
        let rows: Vec<u32> = (5..85).collect(); // more than a block
        let mut model = SoftmaxRegression::new(&[point(1.0, 0.0)], DIM, CLASSES);
        for (index, weight) in model.weights.iter_mut().enumerate() {
            *weight = (index as f32 * 0.7).sin();
        }
        model.bias = vec![0.3, -0.2, 0.1];
        let weights: Vec<f64> = model.weights.iter().map(|&w| f64::from(w)).collect();
        let bias: Vec<f64> = model.bias.iter().map(|&b| f64::from(b)).collect();
        let before = model.clone();
        model.step(&features, &rows, 1.0, 0.0); // the new weight is the old one minus the gradient
        let slope = |change: &dyn Fn(f64) -> (Vec<f64>, Vec<f64>)| {
            let at = |change: (Vec<f64>, Vec<f64>)| loss(&features, &rows, &change.0, &change.1);
            (at(change(1e-5)) - at(change(-1e-5))) / 2e-5
        };
        for index in 0..DIM * CLASSES {
            let wanted = slope(&|step| {
                let mut weights = weights.clone();
                weights[index] += step;
                (weights, bias.clone())
            });
            let found = f64::from(before.weights[index]) - f64::from(model.weights[index]);
            assert!(
                (found - wanted).abs() < 3e-7,
                "weight {index}: {found} {wanted}"
            );
        }
        for class in 0..CLASSES {
            let wanted = slope(&|step| {
                let mut bias = bias.clone();
                bias[class] += step;
                (weights.clone(), bias)
            });
            let found = f64::from(before.bias[class]) - f64::from(model.bias[class]);
            assert!(
                (found - wanted).abs() < 3e-7,
                "bias {class}: {found} {wanted}"
            );
        }
        let wanted = loss(&features, &all_rows(&features), &weights, &bias);
        let found = before.predict(&features, &all_rows(&features))[0].loss;
        assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
    }

    #[test]
    fn momentum_and_weight_decay_are_sgds() {
        // One row of zeros: the weights' gradient is 0 and the decay is alone.
        let features = random_features("train", 1, DIM, CLASSES as u32, 2);
        let features = Features::new(
            features.origin().clone(),
            vec![0.0; DIM],
            DIM,
            features.labels().to_vec(),
            CLASSES,
        )
        .unwrap();
        let mut model = SoftmaxRegression::new(&[point(0.5, 0.2)], DIM, CLASSES);
        model.weights.fill(1.0);
        model.step(&features, &[0], 1.0, 0.9); // velocity 0.2, weight 1 - 0.5 * 0.2
        model.step(&features, &[0], 0.5, 0.9); // velocity 0.9 * 0.2 + 0.2 * 0.9, rate 0.25
        let wanted = 0.9 - 0.25 * 0.36;
        assert!(
            model
                .weights
                .iter()
                .all(|weight| (weight - wanted).abs() < 1e-6)
        );
    }

    #[test]
    fn the_grid_trains_every_point_as_if_alone() {
        let features = random_features("train", 150, 12, CLASSES as u32, 3);
        let config = LinearProbeConfig {
            epochs: 5,
            batch_size: 64,
            ..Default::default()
        };
        let points = [point(0.1, 0.0), point(1.0, 0.01), point(3.0, 0.0)];
        let rows = all_rows(&features);
        let together = SoftmaxRegression::fit(&features, &rows, &points, &config);
        for (index, point) in points.iter().enumerate() {
            let alone = SoftmaxRegression::fit(&features, &rows, &[*point], &config);
            assert!(
                alone.weights.iter().any(|weight| weight.abs() > 0.01),
                "it learnt something"
            );
            for (dimension, weights) in alone.weights.chunks_exact(CLASSES).enumerate() {
                let from = dimension * together.columns() + index * CLASSES;
                for (a, b) in weights.iter().zip(&together.weights[from..]) {
                    assert!(
                        (a - b).abs() < 2e-5,
                        "point {index}, dimension {dimension}: {a} {b}"
                    );
                }
            }
            for (a, b) in alone.bias.iter().zip(&together.bias[index * CLASSES..]) {
                assert!((a - b).abs() < 2e-5, "bias of point {index}: {a} {b}");
            }
        }
    }

    #[test]
    fn logits_out_of_range_give_no_loss() {
        let features = random_features("train", 8, DIM, CLASSES as u32, 4);
        let mut model = SoftmaxRegression::new(&[point(1.0, 0.0); 2], DIM, CLASSES);
        model.weights[0] = f32::NAN;
        let predictions = model.predict(&features, &all_rows(&features));
        assert!(predictions[0].loss.is_nan());
        assert!(
            (predictions[1].loss - (CLASSES as f64).ln()).abs() < 1e-6,
            "zero weights: ln 3"
        );
    }
}
