//! What is refused, and closed forms of what is made. The transforms themselves are compared with those of the CPU where both
//! can be had: in the tests that cross crates.

use candle_core::{Device, Result};

use super::{Adjustment, MAX_IMAGE_SIZE, SourceImages, View, augment};
use crate::buffer::BufferPool;
use crate::cuda::Cuda;
use crate::normalization::Normalization;
use crate::precision::Precision;

/// Values come out as value / 255.
const PLAIN: Normalization = Normalization {
    mean: [0.0; 3],
    deviation: [1.0; 3],
};

/// CUDA's kernels in the emulator; `None`, and a line that says so, in a build without it.
fn emulated() -> Option<Cuda> {
    let cuda = Cuda::emulated();
    if let Err(error) = &cuda {
        eprintln!("NOT RUN: {error}");
    }
    cuda.ok()
}

/// Views of images of these sizes, whose bytes count up from 0.
fn made(
    cuda: &Cuda,
    sizes: &[(usize, usize)],
    views: &[View],
    image_size: usize,
) -> Result<Vec<u8>> {
    let bytes: usize = sizes.iter().map(|(width, height)| width * height * 3).sum();
    let pixels: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
    let images = SourceImages::upload(&pixels, sizes, &Device::Cpu)?;
    let pool = BufferPool::new(&Device::Cpu);
    let views = augment(
        cuda,
        &images,
        views,
        image_size,
        &PLAIN,
        Precision::F32,
        &pool,
    )?;
    let values = views.flatten_all()?.to_vec1::<f32>()?;
    Ok(values
        .into_iter()
        .map(|value| (value * 255.0).round() as u8)
        .collect())
}

#[test]
fn each_view_is_of_its_image_and_its_crop() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    // 12 bytes, then 18 bytes of which the lower right pixel is taken, enlarged.
    let mut corner = View::whole((3, 2));
    (corner.crop.left, corner.crop.top) = (2, 1);
    (corner.crop.width, corner.crop.height) = (1, 1);
    let views = [View::whole((2, 2)), corner];
    let bytes = made(&cuda, &[(2, 2), (3, 2)], &views, 2)?;
    let mut expected: Vec<u8> = (0..12).collect();
    expected.extend([27, 28, 29].repeat(4));
    assert_eq!(bytes, expected);
    Ok(())
}

#[test]
fn a_shrunk_image_is_its_mean_and_a_contrast_of_zero_the_luminance_of_that() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let mut grey = View::whole((2, 2));
    grey.adjustments = vec![Adjustment::Brightness(2.0), Adjustment::Contrast(0.0)];
    let bytes = made(&cuda, &[(2, 2), (2, 2)], &[View::whole((2, 2)), grey], 1)?;
    // Rows of (0, 3), (6, 9) and so on, and of 12 more. Two roundings upwards: 1.5 and 7.5 to 2 and 8, then to 5.
    assert_eq!(bytes[..3], [5, 6, 7]);
    // (17, 18, 19), doubled to (34, 36, 38), whose luminance is 35.6.
    assert_eq!(bytes[3..], [36; 3]);
    Ok(())
}

#[test]
fn what_cannot_be_made_is_an_error_that_names_the_view() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let whole = View::whole((5, 4));
    let refused = |view: View, image_size: usize| {
        let views = [whole.clone(), view];
        let made = made(&cuda, &[(5, 4), (5, 4)], &views, image_size);
        made.unwrap_err().to_string()
    };
    let crop = |left: usize, top: usize, height: usize| {
        let mut view = whole.clone();
        (view.crop.left, view.crop.top, view.crop.height) = (left, top, height);
        view
    };
    let adjusted = |adjustments: &[Adjustment]| View {
        adjustments: adjustments.to_vec(),
        ..whole.clone()
    };
    let blurred = View {
        half_kernel: vec![0.1; 8],
        ..whole.clone()
    };
    for (view, part) in [
        (crop(1, 0, 4), "5 x 4"),
        (crop(0, 0, 0), "5 x 4"),
        (crop(0, usize::MAX, 4), "5 x 4"),
        (adjusted(&[Adjustment::Contrast(1.0); 2]), "one contrast"),
        (adjusted(&[Adjustment::Hue(1); 5]), "at most 4"),
        (adjusted(&[Adjustment::Brightness(f32::NAN)]), "finite"),
        (blurred, "at most 6 pixels"),
    ] {
        let message = refused(view, 6);
        assert!(
            message.contains(part) && message.contains("view 1"),
            "{message}"
        );
    }
    for image_size in [0, MAX_IMAGE_SIZE + 1] {
        let message = refused(whole.clone(), image_size);
        assert!(message.contains("1 to 4096"), "{message}");
    }
    let message = made(&cuda, &[(5, 4)], &[], 6).unwrap_err().to_string();
    assert!(
        message.contains("1 images") && message.contains("0 views"),
        "{message}"
    );
    Ok(())
}

/// More views than one group holds: 1.2 MB of scratch memory each of 64 MiB.
#[test]
fn groups_of_views_do_not_disturb_each_other() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let size = (1, 1200);
    let views = vec![View::whole(size); 60];
    let bytes = made(&cuda, &vec![size; 60], &views, 320)?;
    let one = 320 * 320 * 3;
    let alone = made(&cuda, &[size], &views[..1], 320)?;
    assert_eq!(bytes[..one], alone);
    // 3600 bytes an image, counted modulo 256: every 16th image is the first one again.
    assert_eq!(bytes[16 * one..17 * one], alone);
    assert_eq!(bytes[48 * one..49 * one], alone);
    assert_ne!(bytes[one..2 * one], alone);
    Ok(())
}
