//! Computed pictures, for trying things out without any file.

use std::f64::consts::{PI, TAU};

use super::{Dataset, Split};
use crate::random::{Purpose, stream, uniform};
use crate::{DataError, Image};

const CLASS_COUNT: usize = 10;

/// The largest picture, in pixels a side.
const MAX_SIZE: usize = 4096;

/// Striped pictures in ten classes, computed when they are asked for.
///
/// The class sets the direction of the stripes and the colour; wave length, phase, brightness and
/// noise are random, but the same for the same split and index. Image `i` is of class `i % 10`.
#[derive(Debug)]
pub struct Synthetic {
    class_names: Vec<String>,
    split: Split,
    image_size: usize,
    len: usize,
}

impl Synthetic {
    /// `len` pictures of `image_size` x `image_size` pixels.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] if there is no picture or its side is not 1 to 4,096.
    pub fn new(split: Split, image_size: usize, len: usize) -> Result<Self, DataError> {
        if !(1..=MAX_SIZE).contains(&image_size) {
            return Err(DataError::setting(
                "image_size",
                format!("1 to {MAX_SIZE}"),
                image_size,
            ));
        }
        if len == 0 {
            return Err(DataError::setting("len", "at least 1", len));
        }
        let degrees = |class: usize| format!("stripes at {} degrees", class * 180 / CLASS_COUNT);
        let class_names = (0..CLASS_COUNT).map(degrees).collect();
        Ok(Self {
            class_names,
            split,
            image_size,
            len,
        })
    }
}

impl Dataset for Synthetic {
    fn name(&self) -> &str {
        "synthetic stripes"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some((index % CLASS_COUNT) as u32)
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let mut rng = stream(0, Purpose::Synthetic, self.split as u64, index as u32, 0);
        let class = (index % CLASS_COUNT) as f64 / CLASS_COUNT as f64;
        let (sine, cosine) = (class * PI + uniform(&mut rng, -0.1, 0.1)).sin_cos();
        let waves = uniform(&mut rng, 3.0, 5.0) / self.image_size as f64;
        let phase = uniform(&mut rng, 0.0, TAU);
        let brightness = uniform(&mut rng, 0.5, 1.0);
        let hue = class * TAU + uniform(&mut rng, -0.2, 0.2);
        let mut pixels = Vec::with_capacity(self.image_size * self.image_size * 3);
        for y in 0..self.image_size {
            for x in 0..self.image_size {
                let along = x as f64 * cosine + y as f64 * sine;
                let stripe = 0.5 + 0.5 * (TAU * waves * along + phase).sin();
                let noise = uniform(&mut rng, -0.1, 0.1);
                for channel in 0..3 {
                    let colour = 0.5 + 0.5 * (hue + channel as f64 * TAU / 3.0).cos();
                    let value = brightness * (stripe * colour + (1.0 - stripe) * 0.3) + noise;
                    // The cast clips to 0 and 255.
                    pixels.push((value * 255.0) as u8);
                }
            }
        }
        Image::new(self.image_size, self.image_size, pixels)
    }

    fn describe(&self, index: usize) -> String {
        format!("synthetic image {index}")
    }
}
