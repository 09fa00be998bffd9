//! Views made by CUDA's kernels, emulated, against those of the CPU's transforms. The bound is 0 everywhere: the same bytes, and
//! so the same bits after normalisation, in f32 and in bf16. The portable upload of the CPU's bytes stands on the other side.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use eqco_data::Image;
use eqco_data::augment::{
    Blur, Region, Scratch, adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation,
    gaussian_blur, horizontal_flip, hue_steps, resized_crop, solarize, to_grayscale,
};
use eqco_data::recipe::{RecipeConfig, RecipeName};
use eqco_models::augment::{Adjustment, Crop, SourceImages, View};
use eqco_models::backend::Backend;
use eqco_models::cuda::Cuda;
use eqco_models::profile::Profiler;
use eqco_models::{
    Architecture, Encoder, EncoderConfig, HeadKind, Normalization, Precision, ProjectionHeadConfig,
};
use eqco_train::config::{Resolved, TrainConfig, read_assignment};
use eqco_train::gpu_check::{Pictures, loaders, picture};
use eqco_train::step::Trainer;
use eqco_train::views::both_views;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const IMAGE_SIZES: [usize; 4] = [1, 7, 32, 65];
/// Of source images, (width, height).
const SIZES: [(usize, usize); 6] = [(1, 1), (500, 9), (33, 47), (65, 65), (2, 130), (90, 64)];

/// CUDA's kernels in the emulator; `None`, and a line that says so, in a build without it.
fn emulated() -> Option<Backend> {
    let cuda = Cuda::emulated();
    if let Err(error) = &cuda {
        eprintln!("NOT RUN: {error}");
    }
    Some(Backend::Cuda(Arc::new(cuda.ok()?)))
}

fn encoder(backend: Backend, precision: Precision) -> Result<Encoder> {
    let config = EncoderConfig::cifar(Architecture::Resnet18, 4);
    let head = ProjectionHeadConfig {
        kind: HeadKind::Mlp,
        hidden_dim: 0,
        embedding_dim: 8,
    };
    let encoder = Encoder::new(&config, &head, Normalization::IMAGENET, 1, &Device::Cpu)?;
    Ok(encoder.with_backend(backend).with_precision(precision))
}

/// Every bit of a tensor; bf16 is widened exactly.
fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?;
    Ok(values
        .to_vec1::<f32>()?
        .into_iter()
        .map(f32::to_bits)
        .collect())
}

fn pictures(count: usize) -> Pictures {
    Pictures {
        sizes: SIZES.to_vec(),
        count,
    }
}

/// Both sides of a comparison, in one precision.
struct Pair {
    cpu: Encoder,
    device: Encoder,
}

impl Pair {
    fn new(cuda: &Backend, precision: Precision) -> Result<Self> {
        Ok(Self {
            cpu: encoder(Backend::Portable, precision)?,
            device: encoder(cuda.clone(), precision)?,
        })
    }

    /// The bits of views made on the device, and of `bytes` uploaded.
    fn compare(
        &self,
        images: &[Image],
        views: &[View],
        bytes: &[u8],
        image_size: usize,
    ) -> Result<[Vec<u32>; 2]> {
        let pixels: Vec<u8> = images.iter().flat_map(Image::pixels).copied().collect();
        let sizes: Vec<_> = images
            .iter()
            .map(|image| (image.width(), image.height()))
            .collect();
        let source = SourceImages::new(&pixels, &sizes)?;
        let made = self
            .device
            .augment(&source, &[views], image_size)?
            .remove(0);
        let expected = self.cpu.upload(bytes, image_size)?;
        assert_eq!(made.dims(), expected.dims());
        assert_eq!(made.dtype(), expected.dtype());
        Ok([bits(&made)?, bits(&expected)?])
    }
}

/// Resizes images to 65 pixels and applies one transform to them, on both sides.
fn transform_agrees(change: impl Fn(&mut View), transform: impl Fn(&mut [u8])) -> Result<()> {
    const SIZE: usize = 65;
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    // The second one keeps its size, so that every colour arrives as it is.
    let images = [picture((90, 64), 1)?, picture((SIZE, SIZE), 2)?];
    let mut views = Vec::new();
    let mut bytes = Vec::new();
    for image in &images {
        let mut view = View::whole((image.width(), image.height()));
        change(&mut view);
        views.push(view);
        let mut rgb = vec![0; SIZE * SIZE * 3];
        let region = Region::whole(image);
        resized_crop(
            image,
            region,
            (SIZE, SIZE),
            &mut Scratch::default(),
            &mut rgb,
        );
        transform(&mut rgb);
        bytes.extend(rgb);
    }
    for precision in PRECISIONS {
        let [made, expected] =
            Pair::new(&cuda, precision)?.compare(&images, &views, &bytes, SIZE)?;
        let differing = made.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(
            differing,
            0,
            "of {} in {precision:?}: {:?}",
            made.len(),
            views[0]
        );
    }
    Ok(())
}

#[test]
fn crops_are_resized_up_and_down_to_the_same_bytes() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let images: Vec<Image> = (0..)
        .zip(SIZES)
        .map(|(seed, size)| picture(size, seed))
        .collect::<Result<_, _>>()?;
    for image_size in IMAGE_SIZES {
        // The whole, and from the middle to the lower right corner.
        for share in [1, 2] {
            let regions: Vec<Region> = SIZES
                .map(|(width, height)| Region {
                    left: width - width.div_ceil(share),
                    top: height - height.div_ceil(share),
                    width: width.div_ceil(share),
                    height: height.div_ceil(share),
                })
                .to_vec();
            let mut bytes = vec![0; SIZES.len() * image_size * image_size * 3];
            let outs = bytes.chunks_exact_mut(image_size * image_size * 3);
            let rows = images.iter().zip(&regions).zip(outs);
            let views: Vec<View> = rows
                .map(|((image, &region), out)| {
                    let size = (image_size, image_size);
                    resized_crop(image, region, size, &mut Scratch::default(), out);
                    let Region {
                        left,
                        top,
                        width,
                        height,
                    } = region;
                    let mut view = View::whole((width, height));
                    view.crop = Crop {
                        left,
                        top,
                        width,
                        height,
                    };
                    view
                })
                .collect();
            for precision in PRECISIONS {
                let [made, expected] =
                    Pair::new(&cuda, precision)?.compare(&images, &views, &bytes, image_size)?;
                assert!(made == expected, "{image_size} {share} {precision:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn flips_greys_and_solarised_views_are_the_same() -> Result<()> {
    transform_agrees(|view| view.flip = true, |rgb| horizontal_flip(rgb, 65))?;
    transform_agrees(|view| view.grayscale = true, to_grayscale)?;
    for threshold in [0, 1, 128, 255] {
        transform_agrees(
            |view| view.solarize = Some(threshold),
            |rgb| solarize(rgb, threshold),
        )?;
    }
    Ok(())
}

#[test]
fn brightness_contrast_and_saturation_are_the_same() -> Result<()> {
    for factor in [0.0, 0.2, 0.731_492_8, 1.0, 1.4, 1.799_999, 7.3] {
        let set = |adjustment| move |view: &mut View| view.adjustments = vec![adjustment];
        let narrow = factor as f32;
        transform_agrees(set(Adjustment::Brightness(narrow)), |rgb| {
            adjust_brightness(rgb, factor)
        })?;
        transform_agrees(set(Adjustment::Contrast(narrow)), |rgb| {
            adjust_contrast(rgb, factor)
        })?;
        transform_agrees(set(Adjustment::Saturation(narrow)), |rgb| {
            adjust_saturation(rgb, factor)
        })?;
    }
    Ok(())
}

#[test]
fn hues_are_the_same() -> Result<()> {
    for factor in [-0.5, -0.21, -0.1, -0.003, 0.0, 0.05, 0.1, 0.333, 0.5] {
        let adjustment = Adjustment::Hue(hue_steps(factor));
        transform_agrees(
            |view| view.adjustments = vec![adjustment],
            |rgb| adjust_hue(rgb, factor),
        )?;
    }
    Ok(())
}

#[test]
fn blurs_are_the_same() -> Result<()> {
    for (kernel_size, sigma) in [
        (1, 1.0),
        (7, 0.1),
        (7, 0.77),
        (7, 2.0),
        (23, 1.3),
        (65, 40.0),
    ] {
        let blur = Blur { kernel_size, sigma };
        transform_agrees(
            |view| view.half_kernel = blur.half_kernel(),
            |rgb| gaussian_blur(rgb, 65, kernel_size, sigma, &mut Scratch::default()),
        )?;
    }
    Ok(())
}

/// 300 pixels: more than a thread each for the blocks that share a view.
#[test]
fn large_views_are_the_same_throughout() -> Result<()> {
    const SIZE: usize = 300;
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    let images = [picture((90, 64), 5)?, picture((2, 410), 6)?];
    let blur = Blur {
        kernel_size: 31,
        sigma: 1.9,
    };
    let mut bytes = Vec::new();
    let mut views = Vec::new();
    for image in &images {
        let mut rgb = vec![0; SIZE * SIZE * 3];
        let scratch = &mut Scratch::default();
        resized_crop(image, Region::whole(image), (SIZE, SIZE), scratch, &mut rgb);
        horizontal_flip(&mut rgb, SIZE);
        adjust_hue(&mut rgb, 0.3);
        adjust_contrast(&mut rgb, 1.3);
        adjust_saturation(&mut rgb, 0.6);
        gaussian_blur(&mut rgb, SIZE, blur.kernel_size, blur.sigma, scratch);
        solarize(&mut rgb, 128);
        bytes.extend(rgb);
        views.push(View {
            flip: true,
            adjustments: vec![
                Adjustment::Hue(hue_steps(0.3)),
                Adjustment::Contrast(1.3),
                Adjustment::Saturation(0.6),
            ],
            half_kernel: blur.half_kernel(),
            solarize: Some(128),
            ..View::whole((image.width(), image.height()))
        });
    }
    let pair = Pair::new(&cuda, Precision::Bf16)?;
    let [made, expected] = pair.compare(&images, &views, &bytes, SIZE)?;
    assert!(made == expected);
    Ok(())
}

#[test]
fn decoded_images_on_a_cpu_are_an_error() -> Result<()> {
    let [_, decoded] = loaders(RecipeConfig::new(RecipeName::Cifar, 8), pictures(4), 4)?;
    let batch = decoded.epoch(0, 0).next().context("one batch")??;
    let cpu = encoder(Backend::Portable, Precision::F32)?;
    let message = both_views(&cpu, &batch, 8).unwrap_err().to_string();
    assert!(
        message.contains("CUDA") && message.contains("loader"),
        "{message}"
    );
    Ok(())
}

fn training(precision: &str) -> Result<TrainConfig> {
    let precision = format!("precision={precision}");
    let settings = [
        "encoder.width=4",
        "data.loader.batch_size=12",
        "data.recipe.image_size=32",
        "method.negative_count=5",
        &precision,
    ];
    let settings = settings
        .into_iter()
        .map(read_assignment)
        .collect::<Result<_, _>>()?;
    Ok(Resolved::new("simo-cifar-r18", None, settings)?.config)
}

#[test]
fn steps_on_views_of_the_device_are_those_on_views_of_the_loader() -> Result<()> {
    let Some(cuda) = emulated() else {
        return Ok(());
    };
    for precision in ["f32", "bf16"] {
        let config = training(precision)?;
        let recipe = RecipeConfig::new(RecipeName::MocoV2, 32);
        let runs = loaders(recipe, pictures(24), 12)?.map(|loader| -> Result<_> {
            let (device, profiler) = (Device::Cpu, Profiler::off());
            let steps = loader.batches_per_epoch();
            let mut trainer = Trainer::on(&device, cuda.clone(), &config, steps, &profiler)?;
            let mut losses = Vec::new();
            for batch in loader.epoch(0, 0) {
                let statistics = trainer.step(&batch?)?.statistics.wait()?;
                losses.push(statistics.loss.to_bits());
            }
            let mut tensors = Vec::new();
            for (name, tensor) in trainer.to_checkpoint(0, "")?.tensors {
                if tensor.dtype() == DType::F32 {
                    tensors.push((name, bits(&tensor)?));
                }
            }
            Ok((losses, tensors))
        });
        let [finished, decoded] = runs;
        let (finished, decoded) = (finished?, decoded?);
        assert_eq!(finished.0.len(), 2);
        assert_eq!(finished.0, decoded.0, "losses in {precision}");
        assert!(finished.1.len() > 100);
        assert!(finished.1 == decoded.1, "state in {precision}");
    }
    Ok(())
}
