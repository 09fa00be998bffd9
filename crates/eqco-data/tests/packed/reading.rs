//! Packed files in a loader.

use std::fs;
use std::sync::Arc;

use eqco_data::dataset::packed::PackWriter;
use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Split, encode};
use tempfile::tempdir;

use super::{opened, picture};

#[test]
fn an_image_that_was_damaged_is_counted_and_never_seen() {
    let root = tempdir().unwrap();
    let path = root.path().join("a.eqco");
    let mut writer = PackWriter::create(&path, "set", &[]).unwrap();
    let mut last = 0;
    for number in 0..12 {
        let bytes = encode::png(&picture(number, 6, 6)).unwrap();
        last = bytes.len();
        writer.add(Split::Train, None, &bytes).unwrap();
    }
    writer.finish().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // A byte of the last image's pixels; its PNG has a checksum of its own, which need not be asked.
    let names = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
    bytes[names - last / 2] ^= 1;
    fs::write(&path, bytes).unwrap();

    let dataset = opened(&path, Split::Train);
    let seen = |max_bad_share| {
        let recipe = Recipe::new(RecipeConfig::new(RecipeName::Eval, 6)).unwrap();
        let config = LoaderConfig {
            batch_size: 4,
            workers: 2,
            max_bad_share,
            ..Default::default()
        };
        let loader = Loader::new(Arc::clone(&dataset), vec![recipe], config).unwrap();
        let batches: Result<Vec<_>, _> = loader.epoch(0, 0).collect();
        let indices = |batches: Vec<eqco_data::loader::Batch>| -> Vec<u32> {
            batches
                .iter()
                .flat_map(|batch| batch.indices.clone())
                .collect()
        };
        batches.map(|batches| (indices(batches), loader.skipped()))
    };
    let (indices, skipped) = seen(0.1).unwrap();
    assert_eq!((indices.len(), skipped), (12, 1));
    assert!(!indices.contains(&11), "{indices:?}");
    let error = seen(0.05).unwrap_err().to_string();
    assert!(error.contains("1 of 12 images are unreadable"), "{error}");
    assert!(
        error.contains("training image 11: its checksum differs"),
        "{error}"
    );
}
