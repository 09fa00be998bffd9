//! A run of 20 steps, resumed from the checkpoint of every one of them.

use std::path::Path;
use std::time::Instant;

use super::images;
use super::runs::{Left, TINY, killed_after, run};

const STEPS: u64 = 20;

/// Trains once without a stop, and once more from every step on; everything that is left must be the same.
fn same_from_every_step(root: &Path, name: &str, settings: &[&str]) {
    let whole = root.join(name);
    let out = format!("--out={}", whole.display());
    let every = ["--set=run.checkpoint_every_steps=1", &out];
    let begun = Instant::now();
    let position = run(&[&TINY, settings, &every].concat()).unwrap();
    eprintln!("{name}: whole {:?}", begun.elapsed());
    assert_eq!((position.next_step, position.is_finished()), (STEPS, true));
    let expected = Left::of(&whole, STEPS);
    let expected_without_workers = Left::of(&whole, STEPS).without_workers();
    let begun = Instant::now();
    for step in 1..=STEPS {
        let folder = root.join(format!("{name}-{step}"));
        killed_after(&whole, step, &folder);
        let resume = format!("--resume={}", folder.display());
        let what = format!("{name} from step {step}");
        if step % 2 == 0 {
            run(&[&resume]).unwrap();
            Left::of(&folder, STEPS).assert_is(&expected, &what);
        } else {
            // Another number of the loader's threads, of which nothing but the setting may be seen.
            run(&[&resume, "--set=data.loader.workers=3"]).unwrap();
            let left = Left::of(&folder, STEPS).without_workers();
            left.assert_is(&expected_without_workers, &what);
        }
    }
    eprintln!("{name}: resumed {:?}", begun.elapsed());
}

#[test]
fn simo() {
    let root = tempfile::tempdir().unwrap();
    let data = format!("--data={}", images::folder(root.path()).display());
    same_from_every_step(root.path(), "simo", &[&data]);
}
