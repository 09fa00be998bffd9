//! Signals, locks and several processes.

#![cfg(unix)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::program::{SMALL, output, program, signal, start, succeeds, text};
use super::runs::{Left, history, metrics};

/// More epochs than any of these tests lets pass.
const LONG: [&str; 4] = [
    "--epochs=2000",
    "--set=run.checkpoint_every_epochs=2000",
    "--set=run.final_table=false",
    "--out=run",
];

#[test]
fn slurms_warning_stops_with_a_checkpoint_and_the_run_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = start(root.path(), &[&SMALL[..], &LONG].concat());
    assert!(lines.any(|line| line.starts_with("epoch ")));
    // However often it comes.
    signal(&child, "-USR1");
    signal(&child, "-USR1");
    let rest = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.contains("to go on:        eqco-train --resume run"),
        "{rest}"
    );
    let run = root.path().join("run");
    let stopped = metrics(&run);
    let step = stopped.last().unwrap()["step"].as_u64().unwrap();
    assert_eq!(stopped.last().unwrap()["finished"], false);

    // To the end of the epoch after this one, which is shorter than the run was to be.
    let epochs = step / 3 + 2;
    let told = succeeds(
        root.path(),
        &["--resume=run", &format!("--epochs={epochs}")],
    );
    assert!(
        told.contains(&format!(
            "the newest checkpoint that is sound: step {step}\n"
        )),
        "{told}"
    );
    let events = history(&run);
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["start", "checkpoint", "stop", "start", "checkpoint", "end"]
    );
    assert_eq!(events[1]["reason"], "stop");
    let lines = metrics(&run);
    let steps = lines.iter().filter(|line| line["kind"] == "step");
    let steps: Vec<_> = steps.map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (0..3 * epochs).collect::<Vec<_>>());
}

#[test]
fn a_folder_in_use_is_refused_with_its_owner_even_while_that_is_suspended() {
    let root = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = start(root.path(), &[&SMALL[..], &LONG].concat());
    assert!(lines.any(|line| line.starts_with("epoch ")));
    signal(&child, "-STOP");
    let owner = format!("run is in use by process {} on ", child.id());
    for arguments in [&["--resume=run"][..], &["--resume=auto", "--out=run"]] {
        let refused = output(root.path(), arguments);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1));
        assert!(told.starts_with(&format!("error: {owner}")), "{told}");
        assert!(
            told.contains("\nhint: wait for that process, or stop it"),
            "{told}"
        );
    }
    signal(&child, "-CONT");
    // It goes on as if nothing had been.
    assert!(lines.any(|line| line.starts_with("epoch ")));
    signal(&child, "-KILL");
    drop(lines);
    child.wait().unwrap();

    let arguments = [&SMALL[..], &["--epochs=1", "--out=run", "--resume=auto"]].concat();
    let settings = ["--set=run.final_table=false"];
    let told = succeeds(root.path(), &[&arguments[..], &settings].concat());
    let left = format!("taken over from process {} on ", child.id());
    assert!(told.contains(&left), "{told}");
    assert_eq!(
        fs::read_to_string(root.path().join("run/lock")).unwrap(),
        ""
    );
}

/// All ranks of a run with `arguments`, started together.
fn ranks(folder: &Path, size: usize, arguments: &[&str]) -> Vec<Child> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let one = |rank: usize| {
        program(folder)
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", &port)
            .env("EQCO_GROUP_TIMEOUT", "60")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..size).map(one).collect()
}

fn ended(children: Vec<Child>) -> Vec<Output> {
    let children = children.into_iter();
    children
        .map(|child| child.wait_with_output().unwrap())
        .collect()
}

#[test]
fn two_processes_go_on_together_and_one_alone_only_with_the_same_groups() {
    let root = tempfile::tempdir().unwrap();
    let epochs = [
        "--epochs=4",
        "--set=run.checkpoint_every_steps=5",
        "--set=run.keep_last_checkpoints=0",
    ];
    let run = |folder: &Path, more: &[&str]| {
        let all = ranks(
            folder,
            2,
            &[&SMALL[..], &epochs, &["--out=run"], more].concat(),
        );
        for output in ended(all) {
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    };
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    for folder in [&whole, &killed] {
        fs::create_dir(folder).unwrap();
        run(folder, &[]);
    }
    let expected = Left::of(&whole.join("run"), 12);
    Left::of(&killed.join("run"), 12).assert_is(&expected, "two runs");
    // As if killed after step 5: what comes later is in the metrics, but in no checkpoint.
    for step in [10, 12] {
        let name = format!("run/checkpoints/step-{step:09}.safetensors");
        fs::remove_file(killed.join(name)).unwrap();
    }
    run(&killed, &["--resume=auto"]);
    Left::of(&killed.join("run"), 12).assert_is(&expected, "resumed by two ranks");

    let alone = output(&killed, &["--resume=run", "--epochs=5"]);
    let told = text(&alone.stderr);
    assert!(
        told.contains("is 8 in each of 2 processes in the run and 16 in one process here"),
        "{told}"
    );
    assert!(
        told.contains("give --micro-batch so that as many images"),
        "{told}"
    );
    succeeds(&killed, &["--resume=run", "--epochs=5", "--micro-batch=8"]);
}

/// Puts an executable script into `folder`.
fn script(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The sample for Slurm, where srun warns the first job when it has done an epoch.
#[test]
fn a_job_that_is_warned_is_requeued_and_ends_in_the_next_one() {
    const SRUN: &str = r#"#!/bin/sh
"$@" &
if [ ! -e warned ]; then
    until grep -q '"kind":"epoch"' run/metrics.jsonl 2> /dev/null; do sleep 0.02; done
    touch warned
    kill -USR1 $!
fi
wait $!
"#;
    let root = tempfile::tempdir().unwrap();
    let commands = root.path().join("commands");
    fs::create_dir(&commands).unwrap();
    script(&commands, "srun", SRUN);
    script(&commands, "scontrol", "#!/bin/sh\necho \"$@\" >> asked\n");
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_eqco-train"),
        commands.join("eqco-train"),
    )
    .unwrap();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/slurm.sbatch");
    let path = format!("{}:{}", commands.display(), std::env::var("PATH").unwrap());
    let epochs = ["--epochs=100", "--set=run.final_table=false", "--out=run"];
    let job = || {
        let mut job = Command::new("sh");
        job.arg(sample).args([&SMALL[..], &epochs].concat());
        job.current_dir(root.path())
            .env("PATH", &path)
            .env("SLURM_JOB_ID", "77");
        job.output().unwrap()
    };
    let first = job();
    assert_eq!(first.status.code(), Some(130), "{}", text(&first.stderr));
    let asked = || fs::read_to_string(root.path().join("asked")).unwrap();
    assert_eq!(asked(), "requeue 77\n");
    let second = job();
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(asked(), "requeue 77\n");
    let run = root.path().join("run");
    assert_eq!(metrics(&run).last().unwrap()["step"], 300);
    let starts = history(&run);
    assert_eq!(
        starts
            .iter()
            .filter(|event| event["kind"] == "start")
            .count(),
        2
    );
}
