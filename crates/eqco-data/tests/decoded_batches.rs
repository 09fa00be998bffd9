//! Batches of decoded images with plans: rendered, they are the finished views of the same loader, to the byte.

use std::fs;
use std::sync::Arc;

use eqco_data::loader::{Batch, Content, DecodedImages, Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{DataError, Dataset, Image, Split, open};
use tempfile::tempdir;

/// Images of many sizes, each of its own colours.
struct Sized;

impl Dataset for Sized {
    fn name(&self) -> &str {
        "sized"
    }
    fn len(&self) -> usize {
        50
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn label(&self, index: usize) -> Option<u32> {
        Some(index as u32 % 3)
    }
    fn image(&self, index: usize) -> Result<Image, DataError> {
        let (width, height) = [(1, 1), (50, 9), (33, 47), (64, 64)][index % 4];
        let pixels = (0..width * height * 3).map(|byte| (byte * (index + 7) % 251) as u8);
        Image::new(width, height, pixels.collect())
    }
    fn describe(&self, index: usize) -> String {
        index.to_string()
    }
}

fn recipes(name: RecipeName, image_size: usize) -> Vec<Recipe> {
    let mut config = RecipeConfig::new(name, image_size);
    config.solarize_probability = Some(0.3);
    vec![Recipe::new(config).unwrap(); 2]
}

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size: 8,
        workers,
        seed: 9,
        max_bad_share: 0.1,
        ..Default::default()
    }
}

/// Indices, labels and the bytes of each view.
type Made = (Vec<u32>, Vec<u32>, Vec<Vec<u8>>);

fn finished(batch: &Batch) -> Made {
    let views = batch.views().unwrap().to_vec();
    (batch.indices.clone(), batch.labels.clone(), views)
}

/// The same of a batch of decoded images.
fn rendered(batch: &Batch, image_size: usize) -> Made {
    let Content::Decoded(images) = &batch.content else {
        panic!("expected decoded images, found {batch:?}");
    };
    let views = (0..images.plans.len()).map(|view| rendered_view(images, view, image_size));
    (batch.indices.clone(), batch.labels.clone(), views.collect())
}

fn rendered_view(images: &DecodedImages, view: usize, image_size: usize) -> Vec<u8> {
    let bytes = image_size * image_size * 3;
    let mut out = vec![0; images.sizes.len() * bytes];
    let mut left = &images.pixels[..];
    let rows = images.sizes.iter().zip(&images.plans[view]);
    for ((&(width, height), plan), out) in rows.zip(out.chunks_exact_mut(bytes)) {
        let (pixels, rest) = left.split_at(width * height * 3);
        left = rest;
        let image = Image::new(width, height, pixels.to_vec()).unwrap();
        plan.render(&image, image_size, out);
    }
    assert!(left.is_empty());
    out
}

fn all(loader: &Loader, first_batch: u64, made: impl Fn(&Batch) -> Made) -> Vec<Made> {
    let batches = loader.epoch(2, first_batch);
    batches.map(|batch| made(&batch.unwrap())).collect()
}

#[test]
fn rendered_plans_are_the_finished_views_with_any_recipe_and_any_number_of_workers() {
    for name in [
        RecipeName::MocoV2,
        RecipeName::Simclr,
        RecipeName::Cifar,
        RecipeName::Fashion,
        RecipeName::Supervised,
    ] {
        for image_size in [1, 7, 32] {
            let recipes = recipes(name, image_size);
            let views = Loader::new(Arc::new(Sized), recipes.clone(), config(1)).unwrap();
            let expected = all(&views, 0, finished);
            assert_eq!(expected.len(), 6);
            for workers in [1, 3] {
                let plans = Loader::of_decoded(Arc::new(Sized), &recipes, config(workers)).unwrap();
                let found = all(&plans, 0, |batch| rendered(batch, image_size));
                assert!(found == expected, "{name:?} {image_size} {workers}");
            }
        }
    }
}

#[test]
fn an_epoch_of_plans_can_be_entered_at_any_batch() {
    let loader =
        Loader::of_decoded(Arc::new(Sized), &recipes(RecipeName::Simclr, 24), config(2)).unwrap();
    let whole = all(&loader, 0, |batch| rendered(batch, 24));
    for first in [1, 4] {
        let entered = all(&loader, first, |batch| rendered(batch, 24));
        assert!(entered == whole[first as usize..]);
    }
}

#[test]
fn bad_files_have_the_same_substitutes() {
    let root = tempdir().unwrap();
    let good = fs::read("tests/golden/files/420.jpg").unwrap();
    for number in 0..40 {
        let content: &[u8] = if number % 19 == 3 { b"text" } else { &good };
        fs::write(root.path().join(format!("{number:02}.jpg")), content).unwrap();
    }
    let dataset = open(root.path().to_str().unwrap(), Split::Train).unwrap();
    let recipes = recipes(RecipeName::Cifar, 16);
    let views = Loader::new(Arc::clone(&dataset), recipes.clone(), config(2)).unwrap();
    let plans = Loader::of_decoded(dataset, &recipes, config(2)).unwrap();
    let expected = all(&views, 0, finished);
    assert!(all(&plans, 0, |batch| rendered(batch, 16)) == expected);
    assert_eq!((views.skipped(), plans.skipped()), (2, 2));
}

#[test]
fn what_draws_nothing_has_no_plans_and_plans_are_no_views() {
    let eval = Recipe::new(RecipeConfig::new(RecipeName::Eval, 8)).unwrap();
    let refused = Loader::of_decoded(Arc::new(Sized), &[eval], config(1)).err();
    let message = refused.unwrap().to_string();
    assert!(
        message.contains("recipe") && message.contains("eval"),
        "{message}"
    );
    let recipes = recipes(RecipeName::Cifar, 8);
    assert!(Loader::of_decoded(Arc::new(Sized), &recipes[..0], config(1)).is_err());
    let loader = Loader::of_decoded(Arc::new(Sized), &recipes, config(1)).unwrap();
    let batch = loader.epoch(0, 0).next().unwrap().unwrap();
    let message = batch.views().unwrap_err().to_string();
    assert!(message.contains("decoded images"), "{message}");
}
