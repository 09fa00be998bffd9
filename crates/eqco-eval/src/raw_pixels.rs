//! The baseline without any encoder: pixels as features.

use crate::{EvalError, EvalImages, FeaturePair, Features};

/// Pixel values divided by 255, row by row, `[count, S * S * 3]`; `[count, S * S]` if every image of
/// both parts is grey, because three equal channels only cost time: they change neither a cosine nor
/// a linear probe (whose inputs have mean squared length 1 either way).
///
/// # Errors
/// [`EvalError::Data`] if the images cannot be read.
pub fn raw_pixels(images: &EvalImages) -> Result<FeaturePair, EvalError> {
    let size = images.image_size();
    let name = format!("raw pixels, {size}x{size}");
    let pair = images.features(&name, size * size * 3, &mut |_| {}, &mut |pixels| {
        Ok(pixels
            .iter()
            .map(|&pixel| f32::from(pixel) / 255.0)
            .collect())
    })?;
    if is_grey(pair.train()) && is_grey(pair.test()) {
        FeaturePair::new(one_channel(pair.train())?, one_channel(pair.test())?)
    } else {
        Ok(pair)
    }
}

fn is_grey(rgb: &Features) -> bool {
    rgb.values()
        .chunks_exact(3)
        .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
}

fn one_channel(rgb: &Features) -> Result<Features, EvalError> {
    let values = rgb.values().iter().copied().step_by(3).collect();
    rgb.with_values(values, rgb.dim() / 3)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eqco_data::Image;

    use super::*;
    use crate::images::tests::{MemoryImages, gradients, images};

    #[test]
    fn colour_keeps_three_channels() {
        let pair = raw_pixels(&images(6, 3, 4)).unwrap();
        assert_eq!((pair.train().dim(), pair.train().count()), (48, 6));
        let wanted: Vec<f32> = gradients(6, 4)
            .pixels(2)
            .iter()
            .map(|&pixel| f32::from(pixel) / 255.0)
            .collect();
        assert_eq!(pair.train().row(2), wanted);
        assert_eq!(pair.train().origin().representation, "raw pixels, 4x4");
    }

    #[test]
    fn grey_keeps_one_only_if_both_parts_are_grey() {
        let grey = || {
            let image = Image::from_grey(2, 2, &[0, 51, 102, 255]).unwrap();
            Arc::new(MemoryImages::new(vec![image; 3], &["a", "b", "c"]))
        };
        let both = EvalImages::new(grey(), grey(), 2, 1).unwrap();
        let pair = raw_pixels(&both).unwrap();
        assert_eq!(pair.train().row(0), [0.0, 0.2, 0.4, 1.0]);
        assert_eq!(
            (pair.test().dim(), pair.test().labels()),
            (4, [0, 1, 2].as_slice())
        );
        let mixed = EvalImages::new(grey(), Arc::new(gradients(3, 2)), 2, 1).unwrap();
        assert_eq!(raw_pixels(&mixed).unwrap().train().dim(), 12);
    }

    #[test]
    fn larger_images_are_resized() {
        // A white square in a black frame, at half the size.
        let row = [0, 255, 255, 0];
        let grey: Vec<u8> = [[0; 4], row, row, [0; 4]].concat();
        let set = || {
            let image = Image::from_grey(4, 4, &grey).unwrap();
            Arc::new(MemoryImages::new(vec![image; 2], &["a", "b"]))
        };
        let pair = raw_pixels(&EvalImages::new(set(), set(), 2, 1).unwrap()).unwrap();
        assert_eq!(pair.train().dim(), 4);
        let first = pair.train().row(0)[0];
        assert!(
            first > 0.2 && first < 0.9,
            "a mean of black and white: {first}"
        );
        // By symmetry all four quarters are equal (to one grey level of rounding).
        assert!(
            pair.train()
                .row(0)
                .iter()
                .all(|value| (value - first).abs() < 0.005)
        );
    }
}
