//! Max-pooling 3x3, stride 2, padding 1: the pool of the ImageNet stem.

use std::ops::Range;

use candle_core::{Result, bail};
use rayon::prelude::*;

use super::access::{read, write};
use crate::tape::{Activation, Tape};

const SIDE: usize = 3;
const STRIDE: usize = 2;
const PADDING: usize = 1;

/// Pools `input` `[N,H,W,C]` to `[N,⌈H/2⌉,⌈W/2⌉,C]`. Of equal values the first in reading order gets the gradient.
///
/// # Errors
/// When the input is not four-dimensional or empty.
pub fn max_pool(tape: &mut Tape, input: &Activation) -> Result<Activation> {
    let &[batch, height, width, channels] = input.dims() else {
        bail!("max_pool: expected [N,H,W,C], found {:?}", input.dims())
    };
    if height == 0 || width == 0 {
        bail!("max_pool: empty input {:?}", input.dims());
    }
    let map = Map {
        height,
        width,
        channels,
    };
    let mut output = tape.allocate((
        batch,
        height.div_ceil(STRIDE),
        width.div_ceil(STRIDE),
        channels,
    ))?;
    read(input.tensor(), |x| {
        write(output.tensor(), |y| map.forward(x, y))
    })??;
    let (input, pooled) = (input.clone(), output.clone());
    tape.record(&mut output, move |gradient, pass| {
        let Some(slot) = input.slot() else {
            return Ok(());
        };
        let (target, accumulate) = pass.target(&slot)?;
        read(input.tensor(), |x| {
            read(pooled.tensor(), |y| {
                read(gradient.tensor(), |dy| {
                    write(&target, |dx| map.backward(x, y, dy, dx, accumulate))
                })
            })
        })???
    });
    Ok(output)
}

#[derive(Clone, Copy)]
struct Map {
    height: usize,
    width: usize,
    channels: usize,
}

impl Map {
    fn out_width(&self) -> usize {
        self.width.div_ceil(STRIDE)
    }

    fn out_image(&self) -> usize {
        self.height.div_ceil(STRIDE) * self.out_width() * self.channels
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) {
        let image = self.height * self.width * self.channels;
        y.par_chunks_mut(self.out_image())
            .zip(x.par_chunks(image))
            .for_each(|(y, x)| {
                for (index, pixel) in y.chunks_exact_mut(self.channels).enumerate() {
                    pixel.fill(f32::NEG_INFINITY);
                    self.window(index, |source| {
                        for (target, value) in pixel.iter_mut().zip(&x[source..]) {
                            // A NaN wins, as in PyTorch, so that a diverged run shows.
                            *target = if *value > *target || value.is_nan() {
                                *value
                            } else {
                                *target
                            };
                        }
                    });
                }
            });
    }

    fn backward(&self, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
        let image = self.height * self.width * self.channels;
        let outputs = y
            .par_chunks(self.out_image())
            .zip(dy.par_chunks(self.out_image()));
        dx.par_chunks_mut(image)
            .zip(x.par_chunks(image))
            .zip(outputs)
            .for_each(|((dx, x), (y, dy))| {
                if !accumulate {
                    dx.fill(0.0);
                }
                let mut pending = vec![0.0; self.channels];
                for (index, (y, dy)) in y
                    .chunks_exact(self.channels)
                    .zip(dy.chunks_exact(self.channels))
                    .enumerate()
                {
                    pending.copy_from_slice(dy);
                    self.window(index, |source| {
                        let window = dx[source..]
                            .iter_mut()
                            .zip(&x[source..])
                            .zip(y.iter().zip(&mut pending));
                        for ((dx, x), (y, pending)) in window {
                            if x == y {
                                *dx += std::mem::take(pending);
                            }
                        }
                    });
                }
            });
    }

    /// Calls `visit` with the offset of every input pixel under output pixel `index`, in reading order.
    fn window(&self, index: usize, mut visit: impl FnMut(usize)) {
        let (row, column) = (index / self.out_width(), index % self.out_width());
        for y in covered(row, self.height) {
            for x in covered(column, self.width) {
                visit((y * self.width + x) * self.channels);
            }
        }
    }
}

fn covered(out: usize, len: usize) -> Range<usize> {
    let origin = out * STRIDE;
    origin.saturating_sub(PADDING)..(origin + SIDE - PADDING).min(len)
}
