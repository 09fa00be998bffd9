//! `--device`: what is asked for, or an error.

use serde_json::{Value, json};

use super::{eqco_eval, run_folder, succeeded, training};
#[cfg(not(feature = "cuda"))]
use super::{failed, program};

/// Every command that runs an encoder, with what it needs before the checkpoint.
#[cfg(not(feature = "cuda"))]
const COMMANDS: [&[&str]; 8] = [
    &["knn"],
    &["linear"],
    &["embed", "--out", "features.npy"],
    &["contrast"],
    &["report"],
    &["finetune"],
    &["semi"],
    &["neighbors"],
];

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_that_this_build_cannot_use_is_an_error_in_every_command() {
    let folder = run_folder(3, training());
    for command in COMMANDS {
        for device in ["cuda", "cuda:1"] {
            let run = folder.path().to_str().unwrap();
            let mut arguments = [command, &["--device", device, run]].concat();
            if command == ["neighbors"] {
                arguments.push("query.png");
            }
            let stderr = failed(program(&arguments));
            assert_eq!(
                stderr,
                "error: `device`: this build has no CUDA kernels; build it with `--features cuda`\n\
                 hint: leave --device away to compute on the CPU\n",
                "{command:?}"
            );
        }
    }
}

#[test]
fn a_device_that_is_none_is_named_with_those_that_there_are() {
    let folder = run_folder(3, training());
    let output = eqco_eval(&["knn", "--device", "x"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("expected `cpu`, `cuda` or `cuda:NUMBER`, found `x`"),
        "{stderr}"
    );
}

#[test]
fn results_say_where_they_were_computed() {
    let folder = run_folder(3, training());
    let arguments = [
        "knn", "--device", "cpu", "--limit", "60", "--k", "5", "--json",
    ];
    let text = succeeded(eqco_eval(&arguments, folder.path()));
    let result: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({"device": "cpu", "backend": "portable"});
    assert_eq!(result["computed_on"], expected);
    assert_eq!(result["checkpoint"]["metadata"]["step"], 780);
    // The CPU is what is used without a word.
    let unasked = ["knn", "--limit", "60", "--k", "5", "--json"];
    let unasked = succeeded(eqco_eval(&unasked, folder.path()));
    assert_eq!(unasked, text);
}
