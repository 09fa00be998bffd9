//! Checkpoints that are damaged, foreign or do not fit.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::DType;
use eqco_models::checkpoint::{self, Checkpoint};
use eqco_train::hint;
use tempfile::TempDir;

use super::images;
use super::program::{SMALL, succeeds};
use super::runs::{Left, TINY, history, killed_after, metrics, run};

const STEPS: u64 = 20;

fn name(step: u64) -> String {
    format!("checkpoints/step-{step:09}.safetensors")
}

/// A whole run with the checkpoint of every step.
fn whole() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let data = format!("--data={}", images::folder(root.path()).display());
    let path = root.path().join("whole");
    let out = format!("--out={}", path.display());
    let every = [
        "--negatives=4",
        "--set=run.checkpoint_every_steps=1",
        &data,
        &out,
    ];
    run(&[&TINY[..], &every].concat()).unwrap();
    (root, path)
}

fn resume(folder: &Path) -> anyhow::Result<()> {
    run(&[&format!("--resume={}", folder.display())]).map(|_| ())
}

/// The error of resuming from this file as the only checkpoint, and its hint.
fn refused(whole: &Path, folder: &Path, write: impl FnOnce(&Path)) -> (String, String) {
    killed_after(whole, 19, folder);
    write(&folder.join(name(19)));
    let before = metrics(folder);
    let error = resume(folder).unwrap_err();
    // Nothing has been cut or written.
    assert_eq!(metrics(folder), before);
    (format!("{error:#}"), hint::of(&error).unwrap_or_default())
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_and_the_run_is_the_same() {
    let (root, whole) = whole();
    let expected = Left::of(&whole, STEPS);
    let bytes = fs::read(whole.join(name(19))).unwrap();
    let cuts = (0..16).map(|part| bytes[..bytes.len() * part / 16].to_vec());
    let flips = (0..16).map(|part| {
        let mut bytes = bytes.clone();
        let place = (bytes.len() - 1) * part / 15;
        bytes[place] ^= 1 << (part % 8);
        bytes
    });
    for (number, damaged) in cuts.chain(flips).enumerate() {
        let folder = root.path().join(format!("damaged-{number}"));
        killed_after(&whole, 18, &folder);
        fs::write(folder.join(name(19)), damaged).unwrap();
        resume(&folder).unwrap();
        Left::of(&folder, STEPS).assert_is(&expected, &format!("damage {number}"));
        let events = history(&folder);
        let mut starts = events.iter().filter(|event| event["kind"] == "start");
        let start = starts.next_back().unwrap();
        assert_eq!(start["step"], 18);
        let problem = start["passed_over"][0].as_str().unwrap().to_owned();
        assert!(
            problem.contains("step-000000019") && problem.contains("damaged"),
            "{problem}"
        );
        assert!(folder.join(name(19) + ".damaged").exists());
    }
}

#[test]
fn what_cannot_be_gone_on_from_is_an_error_that_says_why() {
    let (root, whole) = whole();
    let mut number = 0;
    let mut attempt = |write: &dyn Fn(&Path)| {
        number += 1;
        refused(
            &whole,
            &root.path().join(format!("refused-{number}")),
            write,
        )
    };

    let (error, hint) = attempt(&|path| fs::write(path, "no checkpoint at all").unwrap());
    assert!(error.contains("none of the 1 checkpoints"), "{error}");
    assert!(
        hint.contains("choose another --out or remove them"),
        "{hint}"
    );
    let (error, _) = attempt(&|path| {
        // A header of a gigabyte, in a file that is as long: a hole on the disk.
        let file = fs::File::create(path).unwrap();
        std::io::Write::write_all(&mut &file, &(1u64 << 30).to_le_bytes()).unwrap();
        file.set_len((1 << 30) + 8).unwrap();
    });
    assert!(
        error.contains("a header of at most 100000000 bytes"),
        "{error}"
    );

    let edited = |edit: fn(&mut Checkpoint)| {
        move |path: &Path| {
            let mut checkpoint = checkpoint::load(path).unwrap();
            edit(&mut checkpoint);
            checkpoint::save(path, &checkpoint).unwrap();
        }
    };
    let weight = "encoder.backbone.conv1.weight";
    for (edit, expected, found) in [
        (
            (|c| {
                c.tensors
                    .retain(|(name, _)| name != "encoder.backbone.conv1.weight")
            }) as fn(&mut Checkpoint),
            "expected f32 of shape [2, 3, 3, 3]",
            "found nothing",
        ),
        (
            |c| edit_weight(c, |t| t.flatten_all()),
            "expected f32 of shape [2, 3, 3, 3]",
            "found f32 of shape [54]",
        ),
        (
            |c| edit_weight(c, |t| t.to_dtype(DType::F64)),
            "expected f32 of shape [2, 3, 3, 3]",
            "found f64 of shape [2, 3, 3, 3]",
        ),
    ] {
        let (error, hint) = attempt(&edited(edit));
        assert!(
            error.contains(&format!("tensor {weight}: {expected}, {found}")),
            "{error}"
        );
        assert!(error.contains("step-000000019.safetensors"), "{error}");
        assert!(hint.contains("use an earlier checkpoint"), "{hint}");
    }
    let (error, _) = attempt(&edited(|c| {
        let (_, copy) = c.tensors[0].clone();
        c.tensors.push(("zzz".to_owned(), copy));
    }));
    assert!(
        error.contains("tensor zzz: expected nothing, found i64"),
        "{error}"
    );

    let (error, hint) = attempt(&edited(|c| c.metadata.progress = serde_json::Value::Null));
    assert!(
        error.contains("found a checkpoint without the state of a run"),
        "{error}"
    );
    assert!(hint.contains("eqco-eval"), "{hint}");
    let (error, _) = attempt(&|path| {
        let mut bytes = fs::read(path).unwrap();
        let before = br#"format_version\":"#;
        let mut windows = bytes.windows(before.len());
        let place = windows.position(|window| window == before).unwrap();
        bytes[place + before.len()] = b'9';
        fs::write(path, bytes).unwrap();
    });
    assert!(
        error.contains("found version 9; read it with the release"),
        "{error}"
    );
}

fn edit_weight(
    checkpoint: &mut Checkpoint,
    edit: fn(&candle_core::Tensor) -> candle_core::Result<candle_core::Tensor>,
) {
    let weight = "encoder.backbone.conv1.weight";
    let mut tensors = checkpoint.tensors.iter_mut();
    let (_, tensor) = tensors.find(|(name, _)| name == weight).unwrap();
    *tensor = edit(tensor).unwrap();
}

#[test]
fn the_program_says_which_checkpoint_it_took_and_why() {
    let root = tempfile::tempdir().unwrap();
    let each = [
        "--epochs=2",
        "--set=run.checkpoint_every_steps=1",
        "--set=run.final_table=false",
        "--out=run",
    ];
    succeeds(root.path(), &[&SMALL[..], &each].concat());
    let newest = root.path().join("run").join(name(6));
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let told = succeeds(root.path(), &["--resume=run"]);
    let taken = "resumed  from run/checkpoints/step-000000005.safetensors, the newest checkpoint that is sound: step 5\n";
    assert!(told.contains(taken), "{told}");
    let passed_over = "WARNING  a newer one cannot be used, and is kept with `.damaged` behind its name: checkpoint \
                       run/checkpoints/step-000000006.safetensors: expected a complete safetensors file, found ";
    assert!(told.contains(passed_over), "{told}");
    assert_eq!(
        fs::read(&newest).unwrap(),
        bytes,
        "written again, to the byte"
    );
}
