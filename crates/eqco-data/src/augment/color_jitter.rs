//! Brightness, contrast, saturation and hue, in random order.

use rand_chacha::ChaCha8Rng;

use super::luminance;
use super::planes::{COUNT, change_planes, sum_over_planes};
use crate::lanes::{saturated, vectorized};
use crate::random::{chance, shuffle, uniform};

/// Pillow's blend of a byte with its "degenerate" value: the image at 1, the degenerate at 0,
/// extrapolated beyond. Fractions are cut off, not rounded, and the arithmetic is single
/// precision, as in Pillow.
#[inline(always)]
fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (degenerate, value) = (f32::from(degenerate), f32::from(value));
    saturated(degenerate + factor * (value - degenerate))
}

/// Blends every byte with one value.
fn blend_all(rgb: &mut [u8], degenerate: u8, factor: f64) {
    let factor = factor as f32;
    vectorized(
        #[inline(always)]
        || {
            for value in rgb {
                *value = blend(degenerate, *value, factor);
            }
        },
    );
}

/// Multiplies by `factor` (0: black, 1: unchanged).
pub fn adjust_brightness(rgb: &mut [u8], factor: f64) {
    blend_all(rgb, 0, factor);
}

/// Scales the distance from the image's mean luminance by `factor` (0: a grey plane, 1: unchanged).
pub fn adjust_contrast(rgb: &mut [u8], factor: f64) {
    let total = sum_over_planes(
        rgb,
        #[inline(always)]
        |[red, green, blue]| {
            let values = (0..COUNT).map(|index| luminance([red[index], green[index], blue[index]]));
            u64::from(values.map(u32::from).sum::<u32>())
        },
    );
    let mean = (total as f64 / (rgb.len() / 3) as f64 + 0.5) as u8;
    blend_all(rgb, mean, factor);
}

/// Scales the distance of each pixel from its own luminance by `factor` (0: grey, 1: unchanged).
pub fn adjust_saturation(rgb: &mut [u8], factor: f64) {
    let factor = factor as f32;
    change_planes(
        rgb,
        #[inline(always)]
        |[red, green, blue]| {
            for index in 0..COUNT {
                let grey = luminance([red[index], green[index], blue[index]]);
                red[index] = blend(grey, red[index], factor);
                green[index] = blend(grey, green[index], factor);
                blue[index] = blend(grey, blue[index], factor);
            }
        },
    );
}

/// Turns the hue by `factor` of the colour circle, -0.5 to 0.5 (0: unchanged but for rounding).
///
/// Goes through Pillow's 8-bit HSV, in which the hue has 255 steps.
pub fn adjust_hue(rgb: &mut [u8], factor: f64) {
    let shift = hue_steps(factor);
    change_planes(
        rgb,
        #[inline(always)]
        |[red, green, blue]| {
            for index in 0..COUNT {
                let [hue, saturation, value] = to_hsv([red[index], green[index], blue[index]]);
                let rgb = from_hsv([hue.wrapping_add(shift), saturation, value]);
                [red[index], green[index], blue[index]] = rgb;
            }
        },
    );
}

/// What is added to an 8-bit hue, which wraps around, to turn it by `factor` of the colour circle, -0.5 to 0.5.
pub fn hue_steps(factor: f64) -> u8 {
    (factor * 255.0) as i32 as u8
}

/// RGB to 8-bit hue, saturation and value: the bytes of Pillow's `rgb2hsv`, which computes in double precision in part.
///
/// Without branches and in single precision, for vector units. Of the three distances from the largest value, divided by the
/// spread, one is 0 and one is 1 in the pixels that matter, so that a sector is one sum, rounded once.
#[inline(always)]
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let largest = red.max(green).max(blue);
    let smallest = red.min(green).min(blue);
    let is_grey = largest == smallest;
    // A spread of 1 instead of 0 keeps infinities out.
    let spread = f32::from((largest - smallest).max(1));
    let to = |value: u8| f32::from(largest - value) / spread;
    let (to_red, to_green, to_blue) = (to(red), to(green), to(blue));
    let (base, plus, minus) = if red == largest {
        (0.0, to_blue, to_green)
    } else if green == largest {
        (2.0, to_red, to_blue)
    } else {
        (4.0, to_green, to_red)
    };
    let sector: f32 = if plus == 1.0 {
        base + 1.0 - minus
    } else {
        base - 1.0 + plus
    };
    let turns = sector / 6.0;
    let hue = if turns < 0.0 { turns + 1.0 } else { turns };
    let saturation = spread / f32::from(largest.max(1));
    let byte = |share: f32| if is_grey { 0 } else { saturated(share * 255.0) };
    [byte(hue), byte(saturation), largest]
}

/// 8-bit hue, saturation and value to RGB: the bytes of Pillow's `hsv2rgb`, without branches and in single precision.
#[inline(always)]
fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let position = i32::from(hue) * 6;
    // At most 6.
    let sector = (position * 257 + 257) >> 16;
    let fraction = (position - sector * 255) as f32 / 255.0;
    let strength = f32::from(saturation) / 255.0;
    // Adding a half would round in single precision.
    let scaled = |share: f32| {
        let product = f32::from(value) * share;
        let whole = saturated(product);
        whole + u8::from(product - f32::from(whole) >= 0.5)
    };
    let low = scaled(1.0 - strength);
    let falling = scaled(1.0 - strength * fraction);
    let rising = scaled(1.0 - strength * (1.0 - fraction));
    let pick = |first, second, third, fourth, fifth, last| match sector {
        _ if saturation == 0 => value,
        1 => second,
        2 => third,
        3 => fourth,
        4 => fifth,
        5 => last,
        _ => first,
    };
    [
        pick(value, falling, low, low, rising, value),
        pick(rising, value, value, falling, low, low),
        pick(low, low, rising, value, value, falling),
    ]
}

/// Random brightness, contrast, saturation and hue in random order, as a whole with a probability;
/// torchvision's `RandomApply([ColorJitter(brightness, contrast, saturation, hue)], p)`.
///
/// The first three factors are drawn from [max(0, 1 - strength), 1 + strength], the hue from
/// [-hue, hue]. A strength of zero leaves its adjustment out.
#[derive(Clone, Copy, Debug)]
pub struct ColorJitter {
    /// Strength, 0 or more.
    pub brightness: f64,
    /// Strength, 0 or more.
    pub contrast: f64,
    /// Strength, 0 or more.
    pub saturation: f64,
    /// Largest turn, 0 to 0.5 of the colour circle.
    pub hue: f64,
    /// Probability of jittering at all, 0 to 1.
    pub probability: f64,
}

impl ColorJitter {
    /// The adjustments, in the order in which they are applied; none at all where chance or strengths leave them out.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Adjustments {
        if !chance(rng, self.probability) {
            return Adjustments::default();
        }
        let mut order = [0, 1, 2, 3];
        shuffle(rng, &mut order);
        let mut factor = |strength: f64| uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength);
        let brightness = factor(self.brightness);
        let contrast = factor(self.contrast);
        let saturation = factor(self.saturation);
        let hue = uniform(rng, -self.hue, self.hue);
        Adjustments(order.map(|adjustment| match adjustment {
            0 if self.brightness > 0.0 => Some(Adjustment::Brightness(brightness)),
            1 if self.contrast > 0.0 => Some(Adjustment::Contrast(contrast)),
            2 if self.saturation > 0.0 => Some(Adjustment::Saturation(saturation)),
            3 if self.hue > 0.0 => Some(Adjustment::Hue(hue)),
            _ => None,
        }))
    }
}

/// One of the four adjustments with its factor: the argument of the function of its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Adjustment {
    /// See [`adjust_brightness`].
    Brightness(f64),
    /// See [`adjust_contrast`].
    Contrast(f64),
    /// See [`adjust_saturation`].
    Saturation(f64),
    /// See [`adjust_hue`].
    Hue(f64),
}

impl Adjustment {
    fn apply(self, rgb: &mut [u8]) {
        match self {
            Self::Brightness(factor) => adjust_brightness(rgb, factor),
            Self::Contrast(factor) => adjust_contrast(rgb, factor),
            Self::Saturation(factor) => adjust_saturation(rgb, factor),
            Self::Hue(factor) => adjust_hue(rgb, factor),
        }
    }
}

/// What a jitter does to one view: each of the four adjustments at most once, which only [`ColorJitter::draw`] can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Adjustments([Option<Adjustment>; 4]);

impl Adjustments {
    /// In the order in which they are applied.
    pub fn iter(&self) -> impl Iterator<Item = Adjustment> {
        self.0.into_iter().flatten()
    }

    /// Applies them.
    pub fn apply(&self, rgb: &mut [u8]) {
        self.iter().for_each(|adjustment| adjustment.apply(rgb));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::on_every_unit;

    /// Pillow's `rgb2hsv` operation by operation: single-precision variables and double-precision constants.
    fn pillow_to_hsv(rgb: [u8; 3]) -> [u8; 3] {
        let [red, green, blue] = rgb;
        let largest = red.max(green).max(blue);
        let smallest = red.min(green).min(blue);
        if largest == smallest {
            return [0, 0, largest];
        }
        let spread = f32::from(largest - smallest);
        let [to_red, to_green, to_blue] =
            rgb.map(|value| f64::from(f32::from(largest - value) / spread));
        let sector = if red == largest {
            to_blue - to_green
        } else if green == largest {
            2.0 + to_red - to_blue
        } else {
            4.0 + to_green - to_red
        };
        // Pillow: fmod(sector / 6 + 1, 1).
        let hue = ((f64::from(sector as f32) / 6.0 + 1.0) % 1.0) as f32;
        let saturation = spread / f32::from(largest);
        let bytes = [hue, saturation].map(|share| (f64::from(share) * 255.0) as u8);
        [bytes[0], bytes[1], largest]
    }

    /// Pillow's `hsv2rgb` likewise.
    fn pillow_from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
        if saturation == 0 {
            return [value; 3];
        }
        let position = f64::from(hue) * 6.0 / 255.0;
        let sector = position as u8;
        let fraction = (position - f64::from(sector)) as f32;
        let strength = f32::from(saturation) / 255.0;
        let scaled = |share: f32| (f64::from(f32::from(value) * share) + 0.5) as u8;
        let low = scaled(1.0 - strength);
        let falling = scaled(1.0 - strength * fraction);
        let rising = scaled(1.0 - strength * (1.0 - fraction));
        match sector % 6 {
            0 => [value, rising, low],
            1 => [falling, value, low],
            2 => [low, value, rising],
            3 => [low, falling, value],
            4 => [rising, low, value],
            _ => [value, low, falling],
        }
    }

    /// All colours, red by red: `of` each of them.
    fn every_color(of: impl Fn([u8; 3])) {
        for red in 0..=255 {
            for green in 0..=255 {
                (0..=255).for_each(|blue| of([red, green, blue]));
            }
        }
    }

    #[test]
    fn hue_saturation_and_value_of_every_color_are_pillows() {
        every_color(|rgb| assert!(to_hsv(rgb) == pillow_to_hsv(rgb), "{rgb:?}"));
    }

    #[test]
    fn the_color_of_every_hue_saturation_and_value_is_pillows() {
        every_color(|hsv| assert!(from_hsv(hsv) == pillow_from_hsv(hsv), "{hsv:?}"));
    }

    #[test]
    fn adjustments_give_the_same_bytes_on_every_vector_unit() {
        // Neither a multiple of the planes' length nor less than that.
        let image: Vec<u8> = (0..3 * 1_009u32)
            .map(|at| (at.wrapping_mul(2_654_435_769) >> 11) as u8)
            .collect();
        let all: [fn(&mut [u8], f64); 4] = [
            adjust_brightness,
            adjust_contrast,
            adjust_saturation,
            adjust_hue,
        ];
        for adjust in all {
            for factor in [-0.37, 0.08, 0.5, 1.31] {
                let made = on_every_unit(|| {
                    let mut rgb = image.clone();
                    adjust(&mut rgb, factor);
                    rgb
                });
                assert!(made.iter().all(|rgb| *rgb == made[0]));
                assert_ne!(made[0], image);
            }
        }
    }
}
