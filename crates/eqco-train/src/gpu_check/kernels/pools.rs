//! Max pooling, with ties too, and global average pooling.

use candle_core::{DType, Result, Tensor};
use eqco_models::ops::average_pool::global_average_pool;
use eqco_models::ops::batch_norm::{Activate, BatchNorm};
use eqco_models::ops::max_pool::max_pool;
use eqco_models::tape::{Activation, Tape};

use super::pass::Operation;
use super::{KernelCheck, ONE_ROUNDING_OF_BF16, SUMS_IN_F32, formats};
use crate::gpu_check::random::Draw;

type Pool = fn(&mut Tape, &Activation) -> Result<Activation>;

/// Maps of one shape and number format.
#[derive(Clone, Copy)]
struct Maps {
    seed: u64,
    shape: [usize; 4],
    /// Values are rounded down to so many levels a unit, if that is given: nearly every window holds its maximum more than once.
    levels: Option<f64>,
    format: (DType, f64),
}

pub(super) fn checks(seed: u64, most: usize) -> Vec<KernelCheck> {
    let mut checks = Vec::new();
    let mut draw = Draw::new(seed, "pools");
    for channels in [draw.odd(3, 21), 8 * draw.between(1, 8)] {
        let mut maps = |levels| {
            let [batch, height, width] = draw.maps(channels, most);
            let shape = [batch, height, width, channels];
            move |format| Maps {
                seed,
                shape,
                levels,
                format,
            }
        };
        for (name, levels) in [("max", None), ("max with ties", Some(2.0))] {
            // Nothing is computed but sums of at most four gradients, in one order.
            let all = formats(0.0, 0.0).map(maps(levels));
            checks.extend(all.map(|maps| maps.once(name, max_pool)));
        }
        let maps = maps(None);
        let all = formats(SUMS_IN_F32, ONE_ROUNDING_OF_BF16).map(&maps);
        checks.extend(all.map(|maps| maps.once("average", global_average_pool)));
        let all = formats(SUMS_IN_F32, 2.0 * ONE_ROUNDING_OF_BF16).map(&maps);
        checks.extend(all.map(Maps::twice));
    }
    checks
}

impl Maps {
    fn name(&self, what: &str) -> String {
        let [batch, height, width, channels] = self.shape;
        let dtype = self.format.0;
        format!("{what}, {batch}x{height}x{width}x{channels}, {dtype:?}")
    }

    fn images(&self) -> anyhow::Result<Tensor> {
        let images = Draw::new(self.seed, "images").tensor(&self.shape, -1.0, 1.0)?;
        match self.levels {
            None => Ok(images),
            Some(levels) => Ok((images * levels)?.floor()?),
        }
    }

    fn once(self, what: &str, pool: Pool) -> KernelCheck {
        KernelCheck::new(self.name(what), move |place| {
            Operation::new(
                self.seed,
                vec![self.images()?],
                |_| Ok(()),
                |tape, (), x| pool(tape, &x[0]),
            )
            .with_format(self.format)
            .differentiate(place)
        })
    }

    /// Two poolings of one input, whose gradients add up.
    fn twice(self) -> KernelCheck {
        let channels = self.shape[3];
        KernelCheck::new(self.name("max twice"), move |place| {
            Operation::new(
                self.seed,
                vec![self.images()?],
                |builder| BatchNorm::new(builder, "norm", channels, 1.0),
                |tape, norm, x| {
                    let (first, second) = (max_pool(tape, &x[0])?, max_pool(tape, &x[0])?);
                    norm.forward(tape, &first, Some(&second), Activate::Linear)
                },
            )
            .with_format(self.format)
            .differentiate(place)
        })
    }
}
