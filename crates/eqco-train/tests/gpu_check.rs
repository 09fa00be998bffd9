//! `gpu-check` as a program, in builds without CUDA: what the tests have.
#![cfg(not(feature = "cuda"))]

use std::process::Command;

#[test]
fn without_cuda_nothing_is_checked_and_the_exit_status_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_eqco-train"))
        .arg("gpu-check")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(stderr.contains("nothing has been checked"), "{stderr}");
    assert!(stderr.contains("--features cuda"), "{stderr}");
}

#[test]
fn a_device_that_is_none_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_eqco-train"))
        .args(["gpu-check", "--device", "gpu"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("expected `cpu`, `cuda` or `cuda:NUMBER`, found `gpu`"),
        "{stderr}"
    );
}

/// What the command starts for every part must not be taken for one that has passed either.
#[test]
fn a_part_without_cuda_is_no_outcome_and_a_part_that_is_none_names_those_there_are() {
    let run = |part: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eqco-train"));
        command.args(["gpu-check", "--no-pytorch", "--part", part]);
        command.output().unwrap()
    };
    let output = run("kernel/relu");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let output = run("kernel/gelu");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for name in ["kernel/conv2d", "steps/moco_v2", "curves", "workload/simo"] {
        assert!(stderr.contains(name), "{stderr}");
    }
}
