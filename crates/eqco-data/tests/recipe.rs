//! What the recipes draw, and which configurations they accept.

use eqco_data::augment::{RandomResizedCrop, Region};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{DataError, Image};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const RANDOM: [RecipeName; 5] = [
    RecipeName::MocoV2,
    RecipeName::Simclr,
    RecipeName::Cifar,
    RecipeName::Fashion,
    RecipeName::Supervised,
];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

/// Colour from position, so that every change shows: red grows to the right, green downwards.
fn coloured(width: usize, height: usize) -> Image {
    let pixel = |at: usize| [at % width * 255 / width, at / width * 255 / height, 40];
    let pixels = (0..width * height)
        .flat_map(pixel)
        .map(|value| value as u8)
        .collect();
    Image::new(width, height, pixels).unwrap()
}

fn views(config: RecipeConfig, image: &Image, count: usize) -> Vec<Vec<u8>> {
    let recipe = Recipe::new(config).unwrap();
    let mut rng = rng();
    let view = |_| {
        let mut out = vec![0; recipe.image_size() * recipe.image_size() * 3];
        recipe.apply(image, &mut rng, &mut out);
        out
    };
    (0..count).map(view).collect()
}

#[test]
fn crops_have_the_drawn_area_and_ratio() {
    let crop = RandomResizedCrop {
        size: 1,
        scale: [0.2, 1.0],
        ratio: [0.75, 4.0 / 3.0],
    };
    let (mut rng, mut areas, mut ratios) = (rng(), Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let Region {
            left,
            top,
            width,
            height,
        } = crop.draw_region((400, 400), &mut rng);
        assert!(left + width <= 400 && top + height <= 400);
        areas.push((width * height) as f64 / 160_000.0);
        ratios.push((width as f64 / height as f64).ln());
    }
    // Rounding moves a side by half a pixel, of 155 at least.
    let log_limit = (4.0f64 / 3.0).ln();
    assert!(areas.iter().all(|area| (0.198..=1.0).contains(area)));
    assert!(ratios.iter().all(|ratio| ratio.abs() < log_limit + 0.007));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // Without rejection the mean area would be 0.6. A crop of area s and log ratio r fits into a
    // square image if s exp(|r|) <= 1; the mean of s over that set, with log_limit = L, is
    // ((1 - exp(-2L)) / 4 - 0.02 L) / (1 - exp(-L) - 0.2 L) = 0.5384.
    let expected = ((1.0 - 0.5625) / 4.0 - 0.02 * log_limit) / (1.0 - 0.75 - 0.2 * log_limit);
    assert!(
        (mean(&areas) - expected).abs() < 0.005,
        "{} {expected}",
        mean(&areas)
    );
    assert!(mean(&ratios).abs() < 0.005, "{}", mean(&ratios));
}

#[test]
fn images_too_narrow_for_the_ratio_are_cropped_in_the_middle() {
    let crop = RandomResizedCrop {
        size: 1,
        scale: [1.0, 1.0],
        ratio: [0.75, 4.0 / 3.0],
    };
    for (size, expected) in [
        (
            (30, 300),
            Region {
                left: 0,
                top: 130,
                width: 30,
                height: 40,
            },
        ),
        (
            (300, 31),
            Region {
                left: 129,
                top: 0,
                width: 41,
                height: 31,
            },
        ),
        (
            (1, 5000),
            Region {
                left: 0,
                top: 2499,
                width: 1,
                height: 1,
            },
        ),
        (
            (40, 40),
            Region {
                left: 0,
                top: 0,
                width: 40,
                height: 40,
            },
        ),
    ] {
        assert_eq!(crop.fallback_region(size), expected);
        let drawn = crop.draw_region(size, &mut rng());
        assert!(drawn.width >= 1 && drawn.left + drawn.width <= size.0);
        assert!(drawn.height >= 1 && drawn.top + drawn.height <= size.1);
    }
}

#[test]
fn probabilities_are_those_of_the_configuration() {
    let mut config = RecipeConfig::new(RecipeName::Cifar, 16);
    config.jitter_probability = Some(0.0);
    config.grayscale_probability = Some(0.3);
    config.flip_probability = Some(0.2);
    let views = views(config, &coloured(32, 32), 4_000);
    let share =
        |holds: fn(&[u8]) -> bool| views.iter().filter(|view| holds(view)).count() as f64 / 4_000.0;
    let grey = share(|view| {
        view.chunks(3)
            .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
    });
    // Red falls to the right in a flipped view, and so does the luminance.
    let flipped = share(|view| view[0] > view[15 * 3]);
    // Standard errors: 0.007 and 0.006.
    assert!((grey - 0.3).abs() < 0.03, "{grey}");
    assert!((flipped - 0.2).abs() < 0.03, "{flipped}");
}

#[test]
fn geometry_and_blur_leave_a_plane_as_it_is() {
    let plane = Image::new(50, 41, [90, 150, 33].repeat(50 * 41)).unwrap();
    for name in RANDOM {
        let mut config = RecipeConfig::new(name, 24);
        config.jitter_probability = Some(0.0);
        config.grayscale_probability = Some(0.0);
        config.blur_probability = Some(1.0);
        for view in views(config, &plane, 50) {
            assert_eq!(view, [90, 150, 33].repeat(24 * 24));
        }
    }
}

#[test]
fn strengths_bound_the_change() {
    let plane = Image::new(8, 8, [100; 8 * 8 * 3].to_vec()).unwrap();
    let mut config = RecipeConfig::new(RecipeName::Fashion, 8);
    config.jitter_probability = Some(1.0);
    let values: Vec<u8> = views(config, &plane, 2_000)
        .iter()
        .map(|view| view[0])
        .collect();
    // Brightness 0.6 takes 100 to 40..160; contrast does nothing to a plane.
    assert_eq!(
        (values.iter().min(), values.iter().max()),
        (Some(&40), Some(&159))
    );
}

#[test]
fn fashion_views_of_grey_images_are_grey() {
    let grey = Image::from_grey(28, 28, &std::array::from_fn::<u8, 784, _>(|at| at as u8)).unwrap();
    for view in views(RecipeConfig::new(RecipeName::Fashion, 28), &grey, 200) {
        assert!(
            view.chunks(3)
                .all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
        );
    }
}

#[test]
fn solarizing_twice_is_the_identity_on_bright_planes() {
    let bright = Image::new(4, 4, vec![200; 48]).unwrap();
    let mut config = RecipeConfig::new(RecipeName::Cifar, 4);
    config.jitter_probability = Some(0.0);
    config.solarize_probability = Some(1.0);
    assert_eq!(views(config, &bright, 1)[0], [55; 48]);
}

#[test]
fn eval_works_on_any_shape_without_memory_for_the_whole() {
    for (width, height) in [(1, 16_384), (16_384, 1), (1, 1), (225, 224), (223, 1000)] {
        let image = Image::new(width, height, vec![77; width * height * 3]).unwrap();
        let view = &views(RecipeConfig::new(RecipeName::Eval, 224), &image, 1)[0];
        assert_eq!(view, &[77; 224 * 224 * 3]);
    }
}

#[test]
fn presets_have_the_values_of_their_papers() {
    let resolved = |name| RecipeConfig::new(name, 224).resolved();
    let moco = resolved(RecipeName::MocoV2);
    assert_eq!(moco.crop_scale, Some([0.2, 1.0]));
    let jitter = [moco.brightness, moco.contrast, moco.saturation, moco.hue];
    assert_eq!(jitter, [0.4, 0.4, 0.4, 0.1].map(Some));
    assert_eq!(
        (moco.jitter_probability, moco.grayscale_probability),
        (Some(0.8), Some(0.2))
    );
    assert_eq!(
        (moco.blur_probability, moco.blur_sigma),
        (Some(0.5), Some([0.1, 2.0]))
    );
    assert_eq!(
        (moco.flip_probability, moco.solarize_probability),
        (Some(0.5), Some(0.0))
    );
    let simclr = resolved(RecipeName::Simclr);
    assert_eq!(simclr.crop_scale, Some([0.08, 1.0]));
    let jitter = [
        simclr.brightness,
        simclr.contrast,
        simclr.saturation,
        simclr.hue,
    ];
    assert_eq!(jitter, [0.8, 0.8, 0.8, 0.2].map(Some));
    assert_eq!(resolved(RecipeName::Cifar).blur_probability, Some(0.0));
}

#[test]
fn supervised_views_keep_their_colours() {
    // Four planes of one colour each: a crop mixes neighbours, and no view has a value that none of them has.
    let quarter = |x: usize, y: usize| [40 + 100 * (x / 16) as u8, 60 + 90 * (y / 16) as u8, 200];
    let pixels = (0..32).flat_map(|y| (0..32).flat_map(move |x| quarter(x, y)));
    let image = Image::new(32, 32, pixels.collect()).unwrap();
    let config = RecipeConfig::new(RecipeName::Supervised, 16);
    assert_eq!(config.resolved().crop_scale, Some([0.08, 1.0]));
    let views = views(config, &image, 500);
    assert!(views.iter().all(|view| view.chunks(3).all(|pixel| {
        (40..=140).contains(&pixel[0]) && (60..=150).contains(&pixel[1]) && pixel[2] == 200
    })));
    // Red falls to the right in a flipped view, half of those that show both.
    let [rising, falling] =
        [|a, b| a < b, |a: u8, b: u8| a > b].map(|order: fn(u8, u8) -> bool| {
            views
                .iter()
                .filter(|view| order(view[0], view[15 * 3]))
                .count()
        });
    assert!(rising > 80 && falling > 80, "{rising} {falling}");
}

#[test]
fn configurations_survive_a_round_trip_and_refuse_unknown_keys() {
    let json = r#"{"name": "moco_v2", "image_size": 96, "crop_scale": [0.3, 0.9]}"#;
    let config: RecipeConfig = serde_json::from_str(json).unwrap();
    let recipe = Recipe::new(config).unwrap();
    assert_eq!(recipe.config().crop_scale, Some([0.3, 0.9]));
    assert_eq!(recipe.config().hue, Some(0.1));
    let stored = serde_json::to_string(recipe.config()).unwrap();
    assert!(!stored.contains("null"), "{stored}");
    let again: RecipeConfig = serde_json::from_str(&stored).unwrap();
    assert_eq!(&again, recipe.config());
    assert_eq!(again.resolved(), again);
    let unknown = r#"{"name": "cifar", "image_size": 32, "crop_sale": [0.3, 0.9]}"#;
    let error = serde_json::from_str::<RecipeConfig>(unknown)
        .unwrap_err()
        .to_string();
    assert!(error.contains("crop_sale"), "{error}");
}

#[test]
fn values_out_of_range_are_named() {
    let refused = |change: fn(&mut RecipeConfig)| {
        let mut config = RecipeConfig::new(RecipeName::Cifar, 32);
        change(&mut config);
        match Recipe::new(config) {
            Err(DataError::InvalidSetting { setting, .. }) => setting,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|config| config.image_size = 0), "image_size");
    assert_eq!(refused(|config| config.image_size = 1 << 20), "image_size");
    assert_eq!(
        refused(|config| config.crop_scale = Some([0.0, 1.0])),
        "crop_scale"
    );
    assert_eq!(
        refused(|config| config.crop_scale = Some([0.5, 0.4])),
        "crop_scale"
    );
    assert_eq!(
        refused(|config| config.crop_scale = Some([0.5, 1.1])),
        "crop_scale"
    );
    assert_eq!(
        refused(|config| config.brightness = Some(f64::NAN)),
        "brightness"
    );
    assert_eq!(refused(|config| config.contrast = Some(-0.1)), "contrast");
    assert_eq!(
        refused(|config| config.saturation = Some(f64::INFINITY)),
        "saturation"
    );
    assert_eq!(refused(|config| config.hue = Some(0.6)), "hue");
    assert_eq!(
        refused(|config| config.flip_probability = Some(1.5)),
        "flip_probability"
    );
    assert_eq!(
        refused(|config| config.blur_sigma = Some([0.0, 1.0])),
        "blur_sigma"
    );
    let eval = |config: &mut RecipeConfig| {
        config.name = RecipeName::Eval;
        config.hue = Some(0.1);
    };
    assert_eq!(refused(eval), "eval");
}
