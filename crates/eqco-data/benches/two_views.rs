//! How many views a second one core makes from decoded images.
//!
//! `cargo bench -p eqco-data --bench two_views` prints one line per recipe; decoding is left out
//! (`cargo xtask bench loader` measures the whole path, from encoded photographs).

use std::time::{Duration, Instant};

use eqco_data::dataset::Synthetic;
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Dataset, Image, Split};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;

fn main() {
    for (name, view, source) in [
        (RecipeName::Fashion, 28, 28),
        (RecipeName::Cifar, 32, 32),
        (RecipeName::MocoV2, 224, 448),
        (RecipeName::Simclr, 224, 448),
        (RecipeName::Eval, 224, 448),
    ] {
        let dataset = Synthetic::new(Split::Train, source, 10).expect("a valid size");
        let images: Vec<Image> = (0..10)
            .map(|index| dataset.image(index).expect("a computed image"))
            .collect();
        let recipe = Recipe::new(RecipeConfig::new(name, view)).expect("a preset is valid");
        let mut rates: Vec<f64> = (0..ROUNDS)
            .map(|_| views_per_second(&recipe, &images))
            .collect();
        rates.sort_by(f64::total_cmp);
        let median = rates[ROUNDS / 2];
        println!(
            "{name:?} {source} -> {view}: {median:.0} views/s a core ({:.1} us a view)",
            1e6 / median
        );
    }
}

fn views_per_second(recipe: &Recipe, images: &[Image]) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut out = vec![0; recipe.image_size() * recipe.image_size() * 3];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < ROUND {
        for image in images {
            recipe.apply(image, &mut rng, &mut out);
            count += 1;
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
