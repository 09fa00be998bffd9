//! What a view is made of, and how.

use candle_core::{Result, bail};

use super::source::Place;

/// Adjustments of one view.
pub(super) const MOST_ADJUSTMENTS: usize = 4;
/// No value is that large.
const NO_SOLARIZATION: u32 = 256;

/// One square view of an image: fields stand in the order in which they are applied.
///
/// Each step is the transform of its name in Pillow and torchvision, to the byte.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The part of the image that is resized to the view, by antialiased bilinear interpolation.
    pub crop: Crop,
    /// Whether it is mirrored left to right.
    pub flip: bool,
    /// In the order in which they are applied: at most four, and one contrast among them.
    pub adjustments: Vec<Adjustment>,
    /// Whether the three channels become their luminance.
    pub grayscale: bool,
    /// Weights of a blur along either axis: the centre's, then one half's, outwards. With one weight or none nothing is
    /// blurred.
    pub half_kernel: Vec<f32>,
    /// Values from here on are inverted.
    pub solarize: Option<u8>,
}

/// A rectangle inside an image, in pixels; neither side is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A change of all colours of a view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Adjustment {
    /// Multiplies all values.
    Brightness(f32),
    /// Multiplies the distance from the view's mean luminance.
    Contrast(f32),
    /// Multiplies the distance of each pixel from its own luminance.
    Saturation(f32),
    /// Added to the hue, of which a circle has 256.
    Hue(u8),
}

impl Adjustment {
    /// Its `AdjustmentKind` and factor in `view.cuh`.
    pub(super) fn words(self) -> [u32; 2] {
        match self {
            Self::Brightness(factor) => [1, factor.to_bits()],
            Self::Contrast(factor) => [2, factor.to_bits()],
            Self::Saturation(factor) => [3, factor.to_bits()],
            Self::Hue(steps) => [4, u32::from(steps)],
        }
    }

    fn is_finite(self) -> bool {
        match self {
            Self::Brightness(factor) | Self::Contrast(factor) | Self::Saturation(factor) => {
                factor.is_finite()
            }
            Self::Hue(_) => true,
        }
    }
}

impl View {
    /// The whole of an image of `(width, height)` pixels, resized and nothing else.
    pub fn whole((width, height): (usize, usize)) -> Self {
        Self {
            crop: Crop {
                left: 0,
                top: 0,
                width,
                height,
            },
            flip: false,
            adjustments: Vec::new(),
            grayscale: false,
            half_kernel: Vec::new(),
            solarize: None,
        }
    }

    /// The blur's weights beside the centre; 0 where nothing is blurred.
    pub(super) fn half(&self) -> usize {
        self.half_kernel.len().saturating_sub(1)
    }

    pub(super) fn solarize_word(&self) -> u32 {
        self.solarize.map_or(NO_SOLARIZATION, u32::from)
    }

    /// Whether it can be made of the image at `place`, the one with this number, at this size.
    pub(super) fn check(&self, number: usize, place: &Place, image_size: usize) -> Result<()> {
        let Crop {
            left,
            top,
            width,
            height,
        } = self.crop;
        let fits = |start: usize, length: usize, whole: u32| {
            let end = start.checked_add(length);
            length > 0 && end.is_some_and(|end| end <= whole as usize)
        };
        if !fits(left, width, place.width) || !fits(top, height, place.height) {
            bail!(
                "view {number}: expected a crop inside an image of {} x {} pixels, found {:?}",
                place.width,
                place.height,
                self.crop
            );
        }
        let is_contrast = |adjustment: &&Adjustment| matches!(adjustment, Adjustment::Contrast(_));
        if self.adjustments.len() > MOST_ADJUSTMENTS
            || self.adjustments.iter().filter(is_contrast).count() > 1
        {
            bail!(
                "view {number}: expected at most {MOST_ADJUSTMENTS} adjustments with one contrast among them, found {:?}",
                self.adjustments
            );
        }
        let is_finite = self.adjustments.iter().all(|factor| factor.is_finite())
            && self.half_kernel.iter().all(|weight| weight.is_finite());
        if !is_finite {
            bail!("view {number}: expected finite factors and weights, found {self:?}");
        }
        if self.half() > image_size {
            bail!(
                "view {number}: expected a blur of at most {image_size} pixels to either side, found {}",
                self.half()
            );
        }
        Ok(())
    }
}
