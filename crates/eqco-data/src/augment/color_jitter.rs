//! Brightness, contrast, saturation and hue, in random order.

use rand_chacha::ChaCha8Rng;

use super::{luminance, pixels_mut};
use crate::random::{chance, shuffle, uniform};

/// Pillow's blend of a byte with its "degenerate" value: the image at 1, the degenerate at 0,
/// extrapolated beyond. Fractions are cut off, not rounded, and the arithmetic is single
/// precision, as in Pillow.
#[inline]
fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (degenerate, value) = (f32::from(degenerate), f32::from(value));
    // A float-to-integer cast saturates, which is the clipping to 0 and 255.
    (degenerate + factor * (value - degenerate)) as u8
}

/// Blends every byte with one value; a table of 256 entries does it.
fn blend_all(rgb: &mut [u8], degenerate: u8, factor: f64) {
    let table: [u8; 256] =
        std::array::from_fn(|value| blend(degenerate, value as u8, factor as f32));
    for value in rgb {
        *value = table[usize::from(*value)];
    }
}

/// Multiplies by `factor` (0: black, 1: unchanged).
pub fn adjust_brightness(rgb: &mut [u8], factor: f64) {
    blend_all(rgb, 0, factor);
}

/// Scales the distance from the image's mean luminance by `factor` (0: a grey plane, 1: unchanged).
pub fn adjust_contrast(rgb: &mut [u8], factor: f64) {
    let pixels = pixels_mut(rgb);
    let total: u64 = pixels
        .iter()
        .map(|&pixel| u64::from(luminance(pixel)))
        .sum();
    let mean = (total as f64 / pixels.len() as f64 + 0.5) as u8;
    blend_all(rgb, mean, factor);
}

/// Scales the distance of each pixel from its own luminance by `factor` (0: grey, 1: unchanged).
pub fn adjust_saturation(rgb: &mut [u8], factor: f64) {
    let factor = factor as f32;
    for pixel in pixels_mut(rgb) {
        let grey = luminance(*pixel);
        *pixel = pixel.map(|value| blend(grey, value, factor));
    }
}

/// Turns the hue by `factor` of the colour circle, -0.5 to 0.5 (0: unchanged but for rounding).
///
/// Goes through Pillow's 8-bit HSV, in which the hue has 255 steps.
pub fn adjust_hue(rgb: &mut [u8], factor: f64) {
    let shift = hue_steps(factor);
    for pixel in pixels_mut(rgb) {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = from_hsv([hue.wrapping_add(shift), saturation, value]);
    }
}

/// What is added to an 8-bit hue, which wraps around, to turn it by `factor` of the colour circle, -0.5 to 0.5.
pub fn hue_steps(factor: f64) -> u8 {
    (factor * 255.0) as i32 as u8
}

/// RGB to 8-bit hue, saturation and value, as Pillow's `rgb2hsv`: single-precision variables and
/// double-precision constants, which decides where a value is cut off.
#[inline]
fn to_hsv(rgb: [u8; 3]) -> [u8; 3] {
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
    // Pillow: fmod(sector / 6 + 1, 1). The argument is below 2, so one subtraction does, exactly.
    let turns = f64::from(sector as f32) / 6.0 + 1.0;
    let hue = if turns >= 1.0 { turns - 1.0 } else { turns } as f32;
    let saturation = spread / f32::from(largest);
    [
        (f64::from(hue) * 255.0) as u8,
        (f64::from(saturation) * 255.0) as u8,
        largest,
    ]
}

/// 8-bit hue, saturation and value to RGB, as Pillow's `hsv2rgb`.
#[inline]
fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
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
