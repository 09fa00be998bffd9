//! What the system does to a run: disks that are full or read-only, limits, closed outputs, narrow terminals, no home, a clock
//! that jumps.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::program::{SMALL, output, program, succeeds, text};
use super::runs::{Left, history, killed_after, metrics};

/// Settings of a run of 12 steps with a checkpoint at each.
const EACH_STEP: [&str; 5] = [
    "--epochs=4",
    "--set=run.checkpoint_every_steps=1",
    "--set=run.keep_last_checkpoints=0",
    "--set=run.baselines=false",
    "--out=run",
];
const STEPS: u64 = 12;

/// The run that nothing is done to, in `root/whole`.
fn whole(root: &Path) -> Left {
    let folder = root.join("whole");
    fs::create_dir(&folder).unwrap();
    succeeds(&folder, &[&SMALL[..], &EACH_STEP].concat());
    Left::of(&folder.join("run"), STEPS)
}

/// Runs a shell script in a name space where it may mount what nobody else sees; `None`, and a line that says so, where the
/// system does not allow that. `$PROGRAM` is ours.
fn where_mounting_is_allowed(folder: &Path, script: &str) -> Option<Output> {
    let isolated = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-ec", script]);
        command.current_dir(folder);
        command.env("PROGRAM", env!("CARGO_BIN_EXE_eqco-train"));
        command
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("RUST_LOG");
        command.output()
    };
    let probe = isolated("mkdir -p probe && mount -t tmpfs tmpfs probe");
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "NOT RUN: `unshare -rm` cannot mount here; the tests of limits and folders in the way stand for this one"
        );
        return None;
    }
    Some(isolated(script).unwrap())
}

fn quoted(arguments: &[&str]) -> String {
    arguments.join(" ")
}

#[test]
fn a_disk_that_becomes_full_costs_checkpoints_but_no_step() {
    let root = tempfile::tempdir().unwrap();
    let expected = whole(root.path());
    let one = fs::metadata(
        root.path()
            .join("whole/run/checkpoints/step-000000012.safetensors"),
    );
    // Room for five checkpoints and a half, and for everything else.
    let kilobytes = one.unwrap().len() * 11 / 2 / 1024 + 100;
    let script = format!(
        "mkdir disk kept && mount -t tmpfs -o size={kilobytes}k tmpfs disk && cd disk
         if $PROGRAM {command}; then exit 90; fi
         ls run/checkpoints > ../kept/then
         cp run/metrics.jsonl ../kept/metrics.jsonl
         mount -o remount,size=100m .
         $PROGRAM --resume run
         cp -r run ../kept/run",
        command = quoted(&[&SMALL[..], &EACH_STEP].concat()),
    );
    let Some(output) = where_mounting_is_allowed(root.path(), &script) else {
        return;
    };
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    let no_space = "the checkpoint of step 6 is not written: ";
    assert!(told.contains(no_space), "{told}");
    assert!(told.contains("No space left on device"), "{told}");
    assert!(
        told.contains("training goes on, and the next one will be tried"),
        "{told}"
    );
    // The one at the end had to be written.
    assert!(
        told.contains("error: the checkpoint of step 12 is not written\n"),
        "{told}"
    );
    assert!(
        told.contains("hint: free some space, then `--resume FOLDER` goes on"),
        "{told}"
    );
    let kept = root.path().join("kept");
    let then = fs::read_to_string(kept.join("then")).unwrap();
    let names: Vec<_> = (1..=5)
        .map(|step| format!("step-{step:09}.safetensors"))
        .collect();
    assert_eq!(then.lines().collect::<Vec<_>>(), names);
    assert!(
        metrics(&kept)
            .iter()
            .any(|line| line["kind"] == "step" && line["step"] == 11)
    );
    Left::of(&kept.join("run"), STEPS).assert_is(&expected, "after the disk was full");
}

#[test]
fn a_disk_that_is_full_when_the_run_is_resumed_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let expected = whole(root.path());
    let script = "mkdir disk kept && mount -t tmpfs -o size=4m tmpfs disk && cd disk
         cp -r ../whole/run run && rm run/summary.json run/evaluation.json
         cd run/checkpoints && ls | sed 1,8d | xargs rm && cd ../..
         cat /dev/zero > filler 2> /dev/null || true
         if $PROGRAM --resume run > /dev/null; then exit 90; fi
         cp run/metrics.jsonl ../kept/metrics.jsonl
         rm filler
         $PROGRAM --resume run
         cp -r run ../kept/run";
    let Some(output) = where_mounting_is_allowed(root.path(), script) else {
        return;
    };
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("error: the disk is full: cannot write run/"),
        "{told}"
    );
    assert!(
        told.contains("hint: free some space, then `--resume FOLDER` goes on"),
        "{told}"
    );
    metrics(&root.path().join("kept"));
    Left::of(&root.path().join("kept/run"), STEPS).assert_is(&expected, "after the disk was full");
}

#[test]
fn a_limit_on_the_size_of_files_stops_nothing_but_what_exceeds_it() {
    let root = tempfile::tempdir().unwrap();
    let expected = whole(root.path());
    let folder = root.path().join("limited");
    let run = folder.join("run");
    killed_after(&root.path().join("whole/run"), 3, &run);
    // Less than any checkpoint, and than the metrics of all steps.
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let until_step = |step: u64| {
        let place = lines.find(&format!("\"step\",\"step\":{step},")).unwrap();
        lines[..place].len() as u64
    };
    let limit = until_step(6) + 100;
    assert!(limit < 20_000, "{limit}");
    let mut command = program(&folder);
    command.args(["--resume=run"]);
    // SAFETY: between fork and exec only two system calls are made.
    unsafe {
        command.pre_exec(move || {
            // A process that does not ignore the signal dies of it.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit {
                rlim_cur: limit,
                rlim_max: limit,
            };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let output = command.output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("the checkpoint of step 4 is not written: "),
        "{told}"
    );
    assert!(told.contains("File too large"), "{told}");
    assert!(
        told.contains("error: cannot write run/metrics.jsonl\n"),
        "{told}"
    );
    // Whole lines, and none of the steps before is missing.
    let steps = metrics(&run);
    let steps = steps.iter().filter(|line| line["kind"] == "step");
    let steps: Vec<_> = steps.map(|line| line["step"].as_u64().unwrap()).collect();
    assert!(
        steps.len() >= 5 && steps.iter().copied().eq(0..steps.len() as u64),
        "{steps:?}"
    );
    let left: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().collect();
    assert_eq!(left.len(), 1, "no remains");

    succeeds(&folder, &["--resume=run"]);
    Left::of(&run, STEPS).assert_is(&expected, "after the limit");
}

#[test]
fn a_read_only_folder_is_an_error_before_anything_is_done() {
    let root = tempfile::tempdir().unwrap();
    let _ = whole(root.path());
    let before = Left::of(&root.path().join("whole/run"), STEPS);
    let script = "cd whole && mount --bind run run && mount -o remount,ro,bind run
         if $PROGRAM --resume run; then exit 90; fi
         if $PROGRAM --out run/new; then exit 91; fi";
    let Some(output) = where_mounting_is_allowed(root.path(), script) else {
        return;
    };
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    let refused =
        "error: cannot write run/lock\n  because: Read-only file system (os error 30)\nhint: ";
    assert!(told.starts_with(refused), "{told}");
    assert!(
        told.contains("error: cannot write run/new/checkpoints\n  because: Read-only file system"),
        "{told}"
    );
    Left::of(&root.path().join("whole/run"), STEPS).assert_is(&before, "nothing was done");
}

/// Stands for a read-only folder where the system allows no mounts, and root may write anything.
#[test]
fn a_file_in_the_place_of_a_folder_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    for arguments in [
        &["--out=file/run"][..],
        &["--out=file/run", "--resume=auto"],
        &["--resume=file"],
        &["--out=file", "--resume=auto"],
    ] {
        let output = output(root.path(), &[&SMALL[..], arguments].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.starts_with("error: file is a file, expected a folder"),
            "{told}"
        );
        assert!(told.contains("hint: "), "{told}");
    }
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"");
}

#[test]
fn nobody_reading_the_results_is_no_reason_to_fail() {
    let root = tempfile::tempdir().unwrap();
    let arguments = [&SMALL[..], &["--epochs=1", "--out=run"]].concat();
    let mut command = program(root.path());
    let mut child = command
        .args(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // As `head -0` does: the pipe is closed before the table is printed.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = root.path().join("run");
    assert!(run.join("summary.json").exists());
    assert_eq!(metrics(&run).last().unwrap()["finished"], true);
}

#[test]
fn without_a_home_or_any_other_variable_a_run_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let expected = whole(root.path());
    let folder = root.path().join("bare");
    fs::create_dir(&folder).unwrap();
    let mut command = program(&folder);
    command.env_clear().args([&SMALL[..], &EACH_STEP].concat());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    Left::of(&folder.join("run"), STEPS).assert_is(&expected, "without variables");
}

#[test]
fn a_terminal_of_twenty_columns_is_never_wrapped() {
    let root = tempfile::tempdir().unwrap();
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 20,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are written to, the size is read, and there is neither a name nor a mode.
    let status = unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), &size) };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has given both descriptors to us alone.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    let mut command = program(root.path());
    command
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(slave);
    let arguments = ["--epochs=6", "--set=run.final_table=false", "--out=run"];
    let mut child = command
        .args([&SMALL[..], &arguments].concat())
        .spawn()
        .unwrap();
    // Its copy of the terminal would keep ours from ending.
    drop(command);
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    // A terminal that nobody has open any more is an error to whoever reads it.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    assert!(child.wait().unwrap().success());
    let shown = text(&shown);
    let bars: Vec<&str> = shown
        .split(['\r', '\n', '\x1b'])
        .filter(|part| part.contains("ETA"))
        .collect();
    assert!(!bars.is_empty(), "{shown}");
    for bar in bars {
        let plain = bar
            .trim_start_matches(|c: char| c == '[' || c == ';' || c.is_ascii_digit() || c == 'K');
        let plain = plain.trim_start_matches("2K");
        assert!(plain.chars().count() <= 20, "{plain:?}");
    }
}

/// A library that makes the clock on the wall jump by a day at every look, now ahead, now back.
const JUMPING_CLOCK: &str = r#"
#![no_std]
use core::sync::atomic::{AtomicI64, Ordering};
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
unsafe extern "C" { fn syscall(number: i64, ...) -> i64; }
static LOOKS: AtomicI64 = AtomicI64::new(0);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32 {
    let status = unsafe { syscall(NUMBER, clock as i64, time) } as i32;
    if clock == 0 && status == 0 {
        let looks = LOOKS.fetch_add(1, Ordering::Relaxed);
        unsafe { (*time)[0] += if looks % 2 == 0 { 86400 } else { -86400 * (looks % 20000) } };
    }
    status
}
"#;

#[test]
fn a_clock_that_jumps_changes_nothing_but_times() {
    let root = tempfile::tempdir().unwrap();
    let expected = whole(root.path());
    let source = root.path().join("clock.rs");
    let number = libc::SYS_clock_gettime.to_string();
    fs::write(&source, JUMPING_CLOCK.replace("NUMBER", &number)).unwrap();
    let library = root.path().join("libclock.so");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(compiler)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "-Cpanic=abort",
            "-O",
            "-o",
        ])
        .args([&library, &source])
        .output();
    match compiled {
        Ok(output) if output.status.success() => (),
        other => {
            eprintln!("NOT RUN: no library can be compiled here: {other:?}");
            return;
        }
    }
    let folder = root.path().join("jumping");
    fs::create_dir(&folder).unwrap();
    let arguments = [&SMALL[..], &EACH_STEP].concat();
    let mut command = program(&folder);
    let output = command
        .env("LD_PRELOAD", &library)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = folder.join("run");
    let times: Vec<f64> = history(&run)
        .iter()
        .map(|event| event["time"].as_f64().unwrap())
        .collect();
    assert!(!times.is_sorted(), "the clock has jumped: {times:?}");
    Left::of(&run, STEPS).assert_is(&expected, "with a clock that jumps");
    for line in fs::read_to_string(run.join("metrics.jsonl"))
        .unwrap()
        .lines()
    {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let seconds = record["timing"]["seconds"].as_f64().unwrap_or(0.0);
        assert!((0.0..3600.0).contains(&seconds), "{line}");
    }
}
