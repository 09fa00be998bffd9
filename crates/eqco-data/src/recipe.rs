//! Named chains of transforms: the views of the published methods.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::augment::{
    self, ColorJitter, GaussianBlur, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop,
    RandomSolarize, Region, Scratch, with_scratch,
};
use crate::{DataError, Image, ViewPlan};

/// The largest side of a view, in pixels.
pub const MAX_IMAGE_SIZE: usize = 4096;

/// A chain by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipeName {
    /// MoCo v2 and SiMo on ImageNet: crop 0.2–1, jitter 0.4 0.4 0.4 0.1, blur (Chen et al., 2020,
    /// "Improved baselines with momentum contrastive learning").
    MocoV2,
    /// SimCLR on ImageNet: crop 0.08–1, jitter 0.8 0.8 0.8 0.2, blur (Chen et al., 2020, "A simple
    /// framework for contrastive learning of visual representations", appendix A).
    Simclr,
    /// 32-pixel colour images: MoCo v2 without blur.
    Cifar,
    /// 28-pixel grey images: crop 0.4–1, strong brightness and contrast, nothing on colour.
    Fashion,
    /// Training with labels: crop 0.08–1 and flip, nothing on colour (torchvision's ImageNet reference; SimCLR's fine-tuning,
    /// appendix B.8).
    Supervised,
    /// No randomness: resize and centre crop; the identity if the image has the size already.
    Eval,
}

/// A recipe and whatever differs from its preset. Unknown keys are errors.
///
/// A value that is `None` is the preset's; [`RecipeConfig::resolved`] fills all of them in, which
/// is the form to store with a run. `eval` has no values but `image_size`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// The preset.
    pub name: RecipeName,
    /// Side of the square view in pixels, 1 to [`MAX_IMAGE_SIZE`].
    pub image_size: usize,
    /// Range of the crop's area as a share of the image's: 0 < low <= high <= 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_scale: Option<[f64; 2]>,
    /// Strength of the brightness jitter, 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brightness: Option<f64>,
    /// Strength of the contrast jitter, 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f64>,
    /// Strength of the saturation jitter, 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
    /// Largest turn of the hue, 0 to 0.5 of the colour circle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hue: Option<f64>,
    /// Probability of the four jitters together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_probability: Option<f64>,
    /// Probability of losing the colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grayscale_probability: Option<f64>,
    /// Probability of a Gaussian blur; the kernel is a tenth of the image wide, as in SimCLR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur_probability: Option<f64>,
    /// Range of the blur's standard deviation in pixels: 0 < low <= high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur_sigma: Option<[f64; 2]>,
    /// Probability of inverting the values from 128 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solarize_probability: Option<f64>,
    /// Probability of a horizontal flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip_probability: Option<f64>,
}

impl RecipeConfig {
    /// A preset as it is.
    pub fn new(name: RecipeName, image_size: usize) -> Self {
        Self {
            name,
            image_size,
            crop_scale: None,
            brightness: None,
            contrast: None,
            saturation: None,
            hue: None,
            jitter_probability: None,
            grayscale_probability: None,
            blur_probability: None,
            blur_sigma: None,
            solarize_probability: None,
            flip_probability: None,
        }
    }

    /// The same recipe with every value of the preset filled in. Resolving twice changes nothing.
    pub fn resolved(&self) -> Self {
        let mut config = self.clone();
        let (crop_scale, [brightness, contrast, saturation, hue], grayscale, blur) = match self.name
        {
            RecipeName::MocoV2 => ([0.2, 1.0], [0.4, 0.4, 0.4, 0.1], 0.2, 0.5),
            RecipeName::Simclr => ([0.08, 1.0], [0.8, 0.8, 0.8, 0.2], 0.2, 0.5),
            RecipeName::Cifar => ([0.2, 1.0], [0.4, 0.4, 0.4, 0.1], 0.2, 0.0),
            RecipeName::Fashion => ([0.4, 1.0], [0.6, 0.6, 0.0, 0.0], 0.0, 0.0),
            RecipeName::Supervised => ([0.08, 1.0], [0.0; 4], 0.0, 0.0),
            RecipeName::Eval => return config,
        };
        config.crop_scale.get_or_insert(crop_scale);
        config.brightness.get_or_insert(brightness);
        config.contrast.get_or_insert(contrast);
        config.saturation.get_or_insert(saturation);
        config.hue.get_or_insert(hue);
        config.jitter_probability.get_or_insert(0.8);
        config.grayscale_probability.get_or_insert(grayscale);
        config.blur_probability.get_or_insert(blur);
        config.blur_sigma.get_or_insert([0.1, 2.0]);
        config.solarize_probability.get_or_insert(0.0);
        config.flip_probability.get_or_insert(0.5);
        config
    }
}

/// A checked recipe, ready to make views. Cheap to clone and safe to share between threads.
#[derive(Clone, Debug)]
pub struct Recipe {
    config: RecipeConfig,
    /// `None` for `eval`.
    chain: Option<Chain>,
}

/// The random transforms of a recipe, in the order in which they are drawn and applied.
///
/// The order is SimCLR's. MoCo v2 flips last, which gives the same distribution of views: a flip
/// commutes with every other transform here.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    crop: RandomResizedCrop,
    flip: RandomHorizontalFlip,
    jitter: ColorJitter,
    grayscale: RandomGrayscale,
    blur: GaussianBlur,
    solarize: RandomSolarize,
}

impl Recipe {
    /// Fills in the preset and checks every value.
    ///
    /// # Errors
    /// [`DataError::InvalidSetting`] naming the value and its range.
    pub fn new(config: RecipeConfig) -> Result<Self, DataError> {
        let size = config.image_size;
        if !(1..=MAX_IMAGE_SIZE).contains(&size) {
            return Err(DataError::setting(
                "image_size",
                format!("1 to {MAX_IMAGE_SIZE}"),
                size,
            ));
        }
        if config.name == RecipeName::Eval && config != RecipeConfig::new(config.name, size) {
            return Err(DataError::setting(
                "eval",
                "image_size and nothing else: nothing in this recipe is random",
                format!("{config:?}"),
            ));
        }
        let config = config.resolved();
        let chain = match config.name {
            RecipeName::Eval => None,
            _ => Some(Chain::new(&config)?),
        };
        Ok(Self { config, chain })
    }

    /// The configuration with every value filled in.
    pub fn config(&self) -> &RecipeConfig {
        &self.config
    }

    /// Side of the square view in pixels.
    pub fn image_size(&self) -> usize {
        self.config.image_size
    }

    /// What is random about the views: draws without applying. `None` for `eval`, where nothing is.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// Makes one view of `image` in `out` (RGB, `[image_size, image_size, 3]`).
    ///
    /// The view depends on the image and the state of `rng` alone. Working memory is kept per
    /// thread, so that nothing is allocated from the second call on.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn apply(&self, image: &Image, rng: &mut ChaCha8Rng, out: &mut [u8]) {
        let size = (image.width(), image.height());
        let plan = self.draw(size, rng);
        plan.render_part(image, Region::of(size), self.config.image_size, out);
    }

    /// Decides on one view of an image of `(width, height)` pixels.
    pub(crate) fn draw(&self, size: (usize, usize), rng: &mut ChaCha8Rng) -> Plan {
        match &self.chain {
            Some(chain) => Plan::Drawn(chain.draw(size, rng)),
            None => Plan::Evaluation,
        }
    }
}

/// What is to be made of an image.
pub(crate) enum Plan {
    /// A random view.
    Drawn(ViewPlan),
    /// The view of `eval`.
    Evaluation,
}

impl Plan {
    /// The part of an image of `(width, height)` pixels that is read for it.
    pub(crate) fn needed(&self, size: (usize, usize)) -> Region {
        match self {
            Self::Drawn(plan) => plan.region,
            Self::Evaluation => Region::of(size),
        }
    }

    /// Makes the view of an image in `out`, where `image` is the part of it at `part`.
    pub(crate) fn render_part(
        &self,
        image: &Image,
        part: Region,
        image_size: usize,
        out: &mut [u8],
    ) {
        match self {
            Self::Drawn(plan) => {
                let region = plan.region.within(part);
                ViewPlan { region, ..*plan }.render(image, image_size, out);
            }
            Self::Evaluation => with_scratch(|scratch| {
                resize_and_crop(image, image_size, scratch, out);
            }),
        }
    }
}

impl Chain {
    /// The chain of a resolved configuration, whose values are all present.
    fn new(config: &RecipeConfig) -> Result<Self, DataError> {
        let probability = |setting, value: Option<f64>| {
            checked(setting, value, "a probability, 0 to 1", |p| {
                (0.0..=1.0).contains(&p)
            })
        };
        let strength =
            |setting, value| checked(setting, value, "0 or more", |s| (0.0..1e6).contains(&s));
        let size = config.image_size;
        Ok(Self {
            crop: RandomResizedCrop {
                size,
                scale: checked(
                    "crop_scale",
                    config.crop_scale,
                    "0 < low <= high <= 1",
                    |[l, h]| 0.0 < l && l <= h && h <= 1.0,
                )?,
                ratio: [3.0 / 4.0, 4.0 / 3.0],
            },
            flip: RandomHorizontalFlip {
                probability: probability("flip_probability", config.flip_probability)?,
            },
            jitter: ColorJitter {
                brightness: strength("brightness", config.brightness)?,
                contrast: strength("contrast", config.contrast)?,
                saturation: strength("saturation", config.saturation)?,
                hue: checked("hue", config.hue, "0 to 0.5", |h| (0.0..=0.5).contains(&h))?,
                probability: probability("jitter_probability", config.jitter_probability)?,
            },
            grayscale: RandomGrayscale {
                probability: probability("grayscale_probability", config.grayscale_probability)?,
            },
            blur: GaussianBlur {
                kernel_size: size / 20 * 2 + 1,
                sigma: checked(
                    "blur_sigma",
                    config.blur_sigma,
                    "0 < low <= high",
                    |[l, h]| 0.0 < l && l <= h && h < 1e6,
                )?,
                probability: probability("blur_probability", config.blur_probability)?,
            },
            solarize: RandomSolarize {
                threshold: 128,
                probability: probability("solarize_probability", config.solarize_probability)?,
            },
        })
    }

    /// Draws one view of an image of `(width, height)` pixels, neither of them zero.
    pub fn draw(&self, size: (usize, usize), rng: &mut ChaCha8Rng) -> ViewPlan {
        // The order of the fields is the order of the random numbers.
        ViewPlan {
            region: self.crop.draw_region(size, rng),
            flip: self.flip.draw(rng),
            jitter: self.jitter.draw(rng),
            grayscale: self.grayscale.draw(rng),
            blur: self.blur.draw(rng),
            solarize: self.solarize.draw(rng),
        }
    }

    /// Side of the square views in pixels.
    pub fn image_size(&self) -> usize {
        self.crop.size
    }
}

/// A value of a resolved configuration if it is within its range; "unset" is out of range too.
fn checked<T: Copy + std::fmt::Debug>(
    setting: &'static str,
    value: Option<T>,
    expected: &str,
    valid: impl Fn(T) -> bool,
) -> Result<T, DataError> {
    match value {
        Some(value) if valid(value) => Ok(value),
        _ => Err(DataError::setting(setting, expected, format!("{value:?}"))),
    }
}

/// The view of `eval`.
///
/// An image of the right size is copied. A larger one is resized so that its shorter side has
/// 256/224 of the size and cut in the middle (the usual ImageNet protocol); one whose shorter side
/// is no larger than the view is resized to it directly, for enlarging it further only to cut the
/// border off would lose content.
fn resize_and_crop(image: &Image, size: usize, scratch: &mut Scratch, out: &mut [u8]) {
    let (width, height) = (image.width(), image.height());
    if (width, height) == (size, size) {
        out.copy_from_slice(image.pixels());
        return;
    }
    let side = if width.min(height) <= size {
        size
    } else {
        size * 256 / 224
    };
    let resized = augment::shorter_side_to(side, (width, height));
    let middle = augment::center_crop(size, resized);
    augment::resized_window(image, Region::whole(image), resized, middle, scratch, out);
}
