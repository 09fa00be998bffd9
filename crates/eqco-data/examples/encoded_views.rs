//! What one core makes of encoded photographs in a second, as one JSON line; `cargo xtask bench loader` runs it.
//!
//! `encoded_views FOLDER two-views|one-view PASSES`: MoCo v2's two views at 224, or a random resized crop with a flip, in batches
//! of 64 out of the whole loader with one worker. Processor time counts, so that other programs on the machine do not.

use std::error::Error;

use eqco_data::loader::{Loader, LoaderConfig};
use eqco_data::recipe::{Recipe, RecipeConfig, RecipeName};
use eqco_data::{Split, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, work, passes] = &arguments[..] else {
        return Err("expected FOLDER two-views|one-view PASSES".into());
    };
    let (name, views) = match work.as_str() {
        "two-views" => (RecipeName::MocoV2, 2),
        "one-view" => (RecipeName::Supervised, 1),
        other => return Err(format!("expected two-views or one-view, found {other}").into()),
    };
    let recipe = Recipe::new(RecipeConfig::new(name, 224))?;
    let config = LoaderConfig {
        batch_size: 64,
        workers: 1,
        drop_last: false,
        ..Default::default()
    };
    let loader = Loader::new(open(folder, Split::Train)?, vec![recipe; views], config)?;
    // Once before the clock starts: the files are in the page cache then, and memory has been handed out.
    made(&loader, 0)?;
    let start = cpu_seconds();
    let mut images = 0;
    for pass in 1..=passes.parse()? {
        images += made(&loader, pass)?;
    }
    let seconds = cpu_seconds() - start;
    println!("{{\"images\": {images}, \"cpu_seconds\": {seconds}}}");
    Ok(())
}

/// Makes an epoch's views; how many images they are of.
fn made(loader: &Loader, epoch: u64) -> Result<usize, Box<dyn Error>> {
    let mut images = 0;
    for batch in loader.epoch(epoch, 0) {
        images += std::hint::black_box(batch?).len();
    }
    assert_eq!(loader.skipped(), 0, "every photograph can be read");
    Ok(images)
}

/// Processor time of this process so far, its threads' and the system's on its behalf included.
fn cpu_seconds() -> f64 {
    // SAFETY: zeroed memory is a valid `rusage`, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
