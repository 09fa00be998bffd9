//! kill -9 at any moment, again and again.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::program::{SMALL, program, succeeds};
use super::runs::{Left, history};

const KILLS: usize = 50;
/// More than all lives can do together on a machine ten times as fast as those of today.
const EPOCHS: u64 = 120;

/// Moments from a seed: a linear congruential generator with Knuth's constants.
struct Moments(u64);

impl Moments {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn length(metrics: &Path) -> u64 {
    fs::metadata(metrics).map_or(0, |about| about.len())
}

/// Starts the run, lets it come to some moment, and kills it: now while it starts, now in or between steps and checkpoints.
fn kill_one(folder: &Path, arguments: &[&str], moments: &mut Moments) {
    let metrics = folder.join("run/metrics.jsonl");
    let mut child = program(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    if moments.below(5) == 0 {
        thread::sleep(Duration::from_micros(moments.below(120_000)));
    } else {
        // Some hundred bytes are a line. What matters is that it is another moment every time, not which.
        let (mut last, mut changes, wanted) = (length(&metrics), 0, 1 + moments.below(4));
        while changes < wanted {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            let now = length(&metrics);
            changes += u64::from(now != last);
            last = now;
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(Duration::from_micros(moments.below(4_000)));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "killed by a signal");
}

#[cfg(unix)]
#[test]
fn fifty_kills_leave_the_run_that_was_never_touched() {
    let root = tempfile::tempdir().unwrap();
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    let epochs = format!("--epochs={EPOCHS}");
    let often = [
        &epochs,
        "--set=run.checkpoint_every_steps=2",
        "--set=run.keep_last_checkpoints=2",
        "--set=run.baselines=false",
        "--out=run",
        "--resume=auto",
    ];
    let arguments = [&SMALL[..], &often].concat();
    for folder in [&whole, &killed] {
        fs::create_dir(folder).unwrap();
    }
    succeeds(&whole, &arguments);

    let mut moments = Moments(20_240_607);
    for _ in 0..KILLS {
        kill_one(&killed, &arguments, &mut moments);
    }
    let told = succeeds(&killed, &arguments);
    assert!(
        told.contains("the newest checkpoint that is sound"),
        "{told}"
    );
    assert!(told.contains("lock     taken over from process "), "{told}");

    let (whole, killed) = (whole.join("run"), killed.join("run"));
    let steps = 3 * EPOCHS;
    Left::of(&killed, steps).assert_is(&Left::of(&whole, steps), "after all kills");
    let starts = history(&killed);
    let starts = starts.iter().filter(|event| event["kind"] == "start");
    let resumed: Vec<_> = starts.filter_map(|start| start["step"].as_u64()).collect();
    assert!(resumed.len() > KILLS / 2, "{resumed:?}");
    assert!(resumed.is_sorted(), "{resumed:?}");
    let mut left: Vec<_> = fs::read_dir(killed.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let expected = [steps - 2, steps].map(|step| format!("step-{step:09}.safetensors"));
    assert_eq!(left, expected, "no remains of half-written ones");
}
